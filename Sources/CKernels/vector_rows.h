// Kernels on rows of floats, for every instruction set (see vector.h): exp, softmax, norm, rotation,
// quantisation.
//
// exp is e^x = 2^n · e^r with n = round(x / ln 2) and a polynomial of degree 6 in r, |r| ≤ ln 2 / 2; its
// relative error stays below 1.5e-7 (Tests/CKernelsTests checks 3e-7 over the whole range).
#ifndef KINDRED_VECTOR_ROWS_H
#define KINDRED_VECTOR_ROWS_H

#include "vector.h"

/// e^x; 0 at −∞, ∞ beyond the range of float, NaN at NaN.
INLINE vf exponential(vf x) {
  // Comparisons with NaN are false, so NaN passes both clamps.
  x = x < -104.0f ? (vf)-104.0f : x;
  x = x > 89.0f ? (vf)89.0f : x;
  const float shifter = 0x1.8p23f;  // adding it rounds to an integer, which is then in the low bits
  vf shifted = fused(x, (vf)0x1.715476p0f, (vf)shifter);
  vf n = shifted - shifter;
  vi exponent = (vi)shifted - (vi)(vf)shifter;
  vf r = fused(n, (vf)-0x1.62e4p-1f, x);
  r = fused(n, (vf)-0x1.7f7d1cp-20f, r);
  vf p = fused(r, (vf)0x1.6c16c2p-10f, (vf)0x1.111112p-7f);
  p = fused(p, r, (vf)0x1.555556p-5f);
  p = fused(p, r, (vf)0x1.555556p-3f);
  p = fused(p, r, (vf)0.5f);
  p = fused(p, r, (vf)1.0f);
  p = fused(p, r, (vf)1.0f);
  // In two factors, because 2^n alone may be subnormal or too large.
  vi half = exponent >> 1;
  vf first = (vf)((half + 127) << 23);
  vf second = (vf)((exponent - half + 127) << 23);
  return p * first * second;
}

INLINE float exponential_one(float x) { return exponential((vf)x)[0]; }

/// The numbers 0, 1, … of the lanes.
INLINE vi lane_numbers(void) {
  vi lanes;
  for (int i = 0; i < LANES; i++) lanes[i] = i;
  return lanes;
}

/// s[j] = exp(s[j] − shift) for j < valid and 0 for the rest of the page; returns the sum.
INLINE float exponentiate(float *s, size_t valid, float shift) {
  vf total = 0;
  for (size_t j = 0; j < PAGE; j += LANES) {
    vf x = exponential(load(s + j) - shift);
    vi inside = lane_numbers() < (int32_t)valid - (int32_t)j;
    x = (vf)((vi)x & inside);
    store(s + j, x);
    total += x;
  }
  return sum_lanes(total);
}

static float softmax_step(float *s, size_t valid, float *maximum, float *sum) {
  float old = *maximum;
  vf largest = old;
  for (size_t j = 0; j < PAGE; j += LANES) {
    vf x = load(s + j);
    vi better = (x > largest) & (lane_numbers() < (int32_t)valid - (int32_t)j);
    largest = better ? x : largest;
  }
  float new = old;
  for (int i = 0; i < LANES; i++) new = largest[i] > new ? largest[i] : new;
  // With nothing but −∞ so far every weight is 0, and the difference below would be NaN.
  float shift = new == -__builtin_inff() ? 0 : new;
  float factor = exponential_one(old - shift);
  *sum = *sum * factor + exponentiate(s, valid, shift);
  *maximum = new;
  return factor;
}

static void exp_shifted(float *s, size_t valid, float log_sum_exp) { exponentiate(s, valid, log_sum_exp); }

static double sum_exponentials(const float *x, size_t n, float shift, float divisor) {
  double total = 0;
  size_t i = 0;
  for (; i + 4 * LANES <= n; i += 4 * LANES) {
    vf sum = 0;
    for (size_t j = 0; j < 4; j++) {
      vf e = exponential((load(x + i + j * LANES) - shift) / divisor);
      sum += (vf)((vi)e & (e == e));
    }
    total += (double)sum_lanes(sum);
  }
  for (; i < n; i++) {
    float e = exponential_one((x[i] - shift) / divisor);
    total += e == e ? (double)e : 0;
  }
  return total;
}

INLINE vf silu(vf x) { return x / (1 + exponential(-x)); }

static void silu_multiply(const float *gate, const float *up, size_t n, float *out) {
  size_t i = 0;
  for (; i + LANES <= n; i += LANES) store(out + i, silu(load(gate + i)) * load(up + i));
  for (; i < n; i++) out[i] = silu((vf)gate[i])[0] * up[i];
}

static void rms_norm(const float *x, const float *weight, float epsilon, size_t n, float *y) {
  vf squares[4] = {0, 0, 0, 0};
  size_t i = 0;
  for (; i + 4 * LANES <= n; i += 4 * LANES)
    for (int j = 0; j < 4; j++) {
      vf v = load(x + i + j * LANES);
      squares[j] = fused(v, v, squares[j]);
    }
  float total = sum_lanes((squares[0] + squares[1]) + (squares[2] + squares[3]));
  for (; i < n; i++) total += x[i] * x[i];
  float factor = 1 / __builtin_sqrtf(total / (float)n + epsilon);
  for (i = 0; i < n; i++) y[i] = x[i] * factor * (weight ? weight[i] : 1);
}

static void scale(float *x, size_t n, float factor) {
  for (size_t i = 0; i < n; i++) x[i] *= factor;
}

static void rotate(float *x, size_t n, const float *cosines, const float *sines, bool interleaved) {
  size_t step = interleaved ? 2 : 1, distance = interleaved ? 1 : n / 2, i = 0;
  for (; !interleaved && i + LANES <= n / 2; i += LANES) {
    vf real = load(x + i), imaginary = load(x + n / 2 + i);
    vf cosine = load(cosines + i), sine = load(sines + i);
    store(x + i, fused(real, cosine, -(imaginary * sine)));
    store(x + n / 2 + i, fused(real, sine, imaginary * cosine));
  }
  for (; i < n / 2; i++) {
    float real = x[i * step], imaginary = x[i * step + distance];
    x[i * step] = __builtin_fmaf(real, cosines[i], -(imaginary * sines[i]));
    x[i * step + distance] = __builtin_fmaf(real, sines[i], imaginary * cosines[i]);
  }
}

/// One block of `quantize`; without `low`, which is then not written, of 8 bits.
INLINE void quantize_block(const float *x, int8_t *quants, int8_t *low, kindred_activation_block *block) {
  enum { VECTORS = KINDRED_ACTIVATION_BLOCK / LANES };
  vf values[VECTORS];
  // The bits of |x| order as integers do, with NaN above infinity.
  vi largest = 0;
  for (int v = 0; v < VECTORS; v++) {
    values[v] = load(x + v * LANES);
    largest = __builtin_elementwise_max(largest, (vi)values[v] & 0x7fffffff);
  }
  const float scale = kindred_float((uint32_t)__builtin_reduce_max(largest)) / (low ? KINDRED_LARGEST_WIDE : 127);
  // A scale of NaN or infinity makes every output NaN; a subnormal one has no reciprocal, and counts as 0.
  if (!(scale >= 0x1p-126f && scale <= 0x1p127f)) {
    __builtin_memset(quants, 0, KINDRED_ACTIVATION_BLOCK);
    if (low) __builtin_memset(low, 0, KINDRED_ACTIVATION_BLOCK);
    *block = (kindred_activation_block){.scale = scale};
    return;
  }
  float inverse = 1 / scale;
  // Of 8 bits the sums of two pairs of columns are added up together, one of them moved up by 16 bits.
  vi totals[2] = {0, 0}, shifts = 0;
  for (int lane = 0; lane < LANES && !low; lane++) shifts[lane] = lane / 2 % 2 * 16;
  for (int v = 0; v < VECTORS; v++) {
    vi rounded = __builtin_convertvector(__builtin_elementwise_roundeven(values[v] * inverse), vi);
    vi high = rounded;
    if (low) {
      high = (rounded + 128) >> 8;
      const vi rest = __builtin_elementwise_max(rounded - high * 256, (vi)-127);
      rounded = high * 256 + rest;
      vchar narrow = __builtin_convertvector(rest, vchar);
      __builtin_memcpy(low + v * LANES, &narrow, sizeof narrow);
    }
    vchar narrow = __builtin_convertvector(high, vchar);
    __builtin_memcpy(quants + v * LANES, &narrow, sizeof narrow);
    totals[v * LANES / 16] += rounded << shifts;
  }
  *block = (kindred_activation_block){.scale = scale};
  for (int half = 0; half < 2; half++) {
    const int32_t total = __builtin_reduce_add(totals[half]);
    if (low) {
      block->halves[half] = total;
      block->sum += total;
    } else {
      int16_t *pairs = block->pairs[half];
      pairs[0] = (int16_t)total;
      pairs[1] = (int16_t)((total - pairs[0]) >> 16);
      block->sum += pairs[0] + pairs[1];
    }
  }
}

static void quantize(const float *x, size_t n, int8_t *quants, int8_t *low, kindred_activation_block *blocks) {
  size_t padded = (n + 63) / 64 * 64, k = 0;
  for (; k + KINDRED_ACTIVATION_BLOCK <= n; k += KINDRED_ACTIVATION_BLOCK)
    quantize_block(x + k, quants + k, low ? low + k : NULL, blocks + k / KINDRED_ACTIVATION_BLOCK);
  for (; k < padded; k += KINDRED_ACTIVATION_BLOCK) {
    float rest[KINDRED_ACTIVATION_BLOCK] = {0};
    if (k < n) __builtin_memcpy(rest, x + k, (n - k) * sizeof *x);
    quantize_block(rest, quants + k, low ? low + k : NULL, blocks + k / KINDRED_ACTIVATION_BLOCK);
  }
}

#endif
