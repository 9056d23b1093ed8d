// The kernels in plain C: for machines without a better instruction set, and the twin that the others are tested
// against. Written for clarity, with loops that a compiler can vectorise.
#include <math.h>
#include <string.h>

#include "floats.h"
#include "kernels.h"
#include "panels.h"

enum {
  PAGE = KINDRED_PAGE_POSITIONS,
  /// Activation rows that share one unpacked block of weights.
  TILE_ROWS = 64,
  /// Columns that share a scale at the finest; coarser formats repeat it.
  GROUP = 16,
  GROUPS = KINDRED_BLOCK / GROUP,
};

static size_t smaller(size_t a, size_t b) { return a < b ? a : b; }

// MARK: Products with quantised weights

/// One unpacked block: weight [k][row] = scales[k / 16][row] · quants[k][row] + minimums[k / 16][row].
typedef struct {
  int8_t quants[KINDRED_BLOCK][KINDRED_PANEL_ROWS];
  float scales[GROUPS][KINDRED_PANEL_ROWS];
  float minimums[GROUPS][KINDRED_PANEL_ROWS];
} unpacked_block;

/// Quant `byte` of vector `t`, from a plane of `bits` bits.
static int plane_bits(const uint8_t *plane, int bits, int t, size_t byte) {
  return plane[(size_t)(t % bits) * KINDRED_VECTOR_BYTES + byte] >> bits * (t / bits) & ((1 << bits) - 1);
}

static void unpack_quants(kindred_format f, const uint8_t *block, unpacked_block *u) {
  for (size_t row = 0; row < KINDRED_PANEL_ROWS; row++) {
    const uint8_t *low = block + row / KINDRED_HALF_ROWS * kindred_half_bytes(f);
    const uint8_t *high = low + (size_t)f.low_bits * KINDRED_VECTOR_BYTES;
    for (size_t k = 0; k < KINDRED_BLOCK; k++) {
      size_t byte = row % KINDRED_HALF_ROWS * 4 + k % 4;
      int quant = plane_bits(low, f.low_bits, (int)k / 4, byte);
      if (f.high_bits > 0) quant |= plane_bits(high, f.high_bits, (int)k / 4, byte) << f.low_bits;
      u->quants[k][row] = (int8_t)(quant - f.offset);
    }
  }
}

static float half_at(const uint8_t *line, size_t row) {
  uint16_t x;
  memcpy(&x, line + 2 * row, sizeof x);
  return kindred_from_f16(x);
}

/// `header` holds d and dmin of the superblock, `line` the scales of the block.
static void unpack_scales(kindred_format f, const uint8_t *header, const uint8_t *line, unpacked_block *u) {
  for (size_t row = 0; row < KINDRED_PANEL_ROWS; row++)
    for (size_t g = 0; g < GROUPS; g++) {
      const uint8_t *first = f.super ? header : line;
      float d = half_at(first, row);
      float minimum = f.minimum ? half_at(first + KINDRED_VECTOR_BYTES, row) : 0;
      uint8_t near = line[(f.scale_columns == 32 ? 0 : g) * KINDRED_PANEL_ROWS + row];
      uint8_t far = line[KINDRED_PANEL_ROWS + row];
      bool nibbles = f.scale_columns == 16 && f.minimum;
      u->scales[g][row] = !f.super ? d : d * (float)(nibbles ? near & 15 : (int8_t)near);
      u->minimums[g][row] = !f.super ? minimum : -minimum * (float)(nibbles ? near >> 4 : far);
    }
}

static void multiply_quantised(kindred_format f, const uint8_t *panel, const kindred_activations *a,
                               size_t first, size_t rows, float (*sums)[KINDRED_PANEL_ROWS]) {
  size_t padded = (a->columns + 63) / 64 * 64;
  const uint8_t *header = panel, *block = panel;
  for (size_t b = 0; b < a->columns / KINDRED_BLOCK; b++) {
    if (b % KINDRED_CHUNK_BLOCKS == 0) {
      header = block;
      block += kindred_header_bytes(f);
    }
    unpacked_block u;
    unpack_quants(f, block, &u);
    unpack_scales(f, header, block + 2 * kindred_half_bytes(f), &u);
    block += kindred_block_bytes(f);
    for (size_t i = 0; i < rows; i++) {
      float scale = a->scales[(first + i) * (padded / KINDRED_ACTIVATION_BLOCK) + b];
      for (size_t g = 0; g < GROUPS; g++) {
        const int8_t *quants = a->quants + (first + i) * padded + b * KINDRED_BLOCK + g * GROUP;
        float sum = (float)a->sums[(first + i) * (padded / GROUP) + b * GROUPS + g];
        int32_t dots[KINDRED_PANEL_ROWS] = {0};
        for (size_t k = 0; k < GROUP; k++)
          for (size_t r = 0; r < KINDRED_PANEL_ROWS; r++) dots[r] += quants[k] * u.quants[g * GROUP + k][r];
        for (size_t r = 0; r < KINDRED_PANEL_ROWS; r++)
          sums[i][r] += scale * (u.scales[g][r] * (float)dots[r] + u.minimums[g][r] * sum);
      }
    }
  }
}

// MARK: Products with dense weights

static float element(kindred_type type, const void *base, size_t i) {
  if (type == KINDRED_F32) return ((const float *)base)[i];
  uint16_t x = ((const uint16_t *)base)[i];
  return type == KINDRED_F16 ? kindred_from_f16(x) : kindred_from_bf16(x);
}

static void multiply_dense(kindred_type type, const void *panel, const kindred_activations *a, size_t first,
                           size_t rows, float (*sums)[KINDRED_PANEL_ROWS]) {
  for (size_t k = 0; k < a->columns; k++) {
    float weights[KINDRED_PANEL_ROWS];
    for (size_t r = 0; r < KINDRED_PANEL_ROWS; r++)
      weights[r] = element(type, panel, k * KINDRED_PANEL_ROWS + r);
    for (size_t i = 0; i < rows; i++) {
      float x = a->values[(first + i) * a->columns + k];
      for (size_t r = 0; r < KINDRED_PANEL_ROWS; r++) sums[i][r] += x * weights[r];
    }
  }
}

static void multiply(kindred_type type, const void *panels, size_t panel_begin, size_t panel_end, size_t rows,
                     const kindred_activations *a, size_t a_rows, const float *bias, bool accumulate, float *out,
                     size_t out_stride) {
  size_t panel_bytes = kindred_panel_bytes(type, a->columns);
  kindred_format f = kindred_format_of(type);
  for (size_t p = panel_begin; p < panel_end; p++) {
    const uint8_t *panel = (const uint8_t *)panels + p * panel_bytes;
    size_t row = p * KINDRED_PANEL_ROWS;
    for (size_t first = 0; first < a_rows; first += TILE_ROWS) {
      size_t tile = smaller(TILE_ROWS, a_rows - first);
      float sums[TILE_ROWS][KINDRED_PANEL_ROWS] = {{0}};
      if (f.low_bits == 0) multiply_dense(type, panel, a, first, tile, sums);
      else multiply_quantised(f, panel, a, first, tile, sums);
      for (size_t i = 0; i < tile; i++)
        for (size_t r = 0; r < KINDRED_PANEL_ROWS && row + r < rows; r++) {
          float *target = out + (first + i) * out_stride + row + r;
          float sum = sums[i][r] + (bias ? bias[row + r] : 0);
          *target = accumulate ? *target + sum : sum;
        }
    }
  }
}

// MARK: Activations

static void quantize(const float *x, size_t n, int8_t *quants, float *scales, int32_t *sums) {
  size_t padded = (n + 63) / 64 * 64;
  memset(quants, 0, padded);
  memset(sums, 0, padded / GROUP * sizeof *sums);
  for (size_t first = 0; first < padded; first += KINDRED_ACTIVATION_BLOCK) {
    float largest = 0;
    for (size_t k = first; k < first + KINDRED_ACTIVATION_BLOCK && k < n; k++)
      if (!(fabsf(x[k]) <= largest)) largest = isnan(largest) ? largest : fabsf(x[k]);
    float scale = largest / 127;
    scales[first / KINDRED_ACTIVATION_BLOCK] = scale;
    // A scale of NaN or infinity makes every output NaN; a subnormal one has no reciprocal, and counts as 0.
    if (!(scale >= 0x1p-126f && scale <= 0x1p127f)) continue;
    float inverse = 1 / scale;
    for (size_t k = first; k < first + KINDRED_ACTIVATION_BLOCK && k < n; k++) {
      quants[k] = (int8_t)nearbyintf(x[k] * inverse);
      sums[k / GROUP] += quants[k];
    }
  }
}

static void rms_norm(const float *x, const float *weight, float epsilon, size_t n, float *y) {
  double squares = 0;
  for (size_t i = 0; i < n; i++) squares += (double)x[i] * x[i];
  float factor = 1 / sqrtf((float)(squares / (double)n) + epsilon);
  for (size_t i = 0; i < n; i++) y[i] = x[i] * factor * (weight ? weight[i] : 1);
}

static void rotate(float *x, size_t n, const float *cosines, const float *sines, bool interleaved) {
  for (size_t i = 0; i < n / 2; i++) {
    float *first = interleaved ? x + 2 * i : x + i;
    float *second = interleaved ? x + 2 * i + 1 : x + i + n / 2;
    float real = *first, imaginary = *second;
    *first = real * cosines[i] - imaginary * sines[i];
    *second = real * sines[i] + imaginary * cosines[i];
  }
}

static void silu_multiply(const float *gate, const float *up, size_t n, float *out) {
  for (size_t i = 0; i < n; i++) out[i] = gate[i] / (1 + expf(-gate[i])) * up[i];
}

static void scale(float *x, size_t n, float factor) {
  for (size_t i = 0; i < n; i++) x[i] *= factor;
}

// MARK: Attention

static void store(kindred_type type, float x, void *base, size_t i) {
  if (type == KINDRED_F32) ((float *)base)[i] = x;
  else ((uint16_t *)base)[i] = type == KINDRED_F16 ? kindred_to_f16(x) : kindred_to_bf16(x);
}

/// Where element `c` of the key in `slot` lies: [page / 16][d][16].
static size_t key_index(size_t slot, size_t d, size_t c) {
  return (slot / KINDRED_KEY_BLOCK * d + c) * KINDRED_KEY_BLOCK + slot % KINDRED_KEY_BLOCK;
}

static void store_key(kindred_type type, const float *key, size_t d, size_t slot, void *page) {
  for (size_t c = 0; c < d; c++) store(type, key[c], page, key_index(slot, d, c));
}

static void store_value(kindred_type type, const float *value, size_t d, size_t slot, void *page) {
  for (size_t c = 0; c < d; c++) store(type, value[c], page, slot * d + c);
}

static void scores(kindred_type type, const float *q, size_t q_stride, size_t m, size_t d, const void *key_page,
                   size_t count, float scale, float *s) {
  for (size_t i = 0; i < m; i++)
    for (size_t j = 0; j < count; j++) {
      float sum = 0;
      for (size_t c = 0; c < d; c++) sum += q[i * q_stride + c] * element(type, key_page, key_index(j, d, c));
      s[i * PAGE + j] = scale * sum;
    }
}

static float softmax_step(float *s, size_t valid, float *maximum, float *sum) {
  float old = *maximum, new = old;
  for (size_t j = 0; j < valid; j++) new = s[j] > new ? s[j] : new;
  // With nothing but −∞ so far every weight is 0, and the difference below would be NaN.
  float shift = new == -INFINITY ? 0 : new;
  float factor = expf(old - shift), total = 0;
  for (size_t j = 0; j < valid; j++) total += s[j] = expf(s[j] - shift);
  memset(s + valid, 0, (PAGE - valid) * sizeof *s);
  *sum = *sum * factor + total;
  *maximum = new;
  return factor;
}

static void exp_shifted(float *s, size_t valid, float log_sum_exp) {
  for (size_t j = 0; j < valid; j++) s[j] = expf(s[j] - log_sum_exp);
  memset(s + valid, 0, (PAGE - valid) * sizeof *s);
}

static void accumulate(kindred_type type, const float *p, size_t m, const void *value_page, size_t count,
                       size_t d, float *o, size_t o_stride) {
  for (size_t i = 0; i < m; i++)
    for (size_t j = 0; j < count; j++)
      for (size_t c = 0; c < d; c++)
        o[i * o_stride + c] += p[i * PAGE + j] * element(type, value_page, j * d + c);
}

const kindred_kernels kindred_generic = {
    .isa = KINDRED_ISA_GENERIC,
    .rms_norm = rms_norm,
    .quantize = quantize,
    .multiply = multiply,
    .rotate = rotate,
    .silu_multiply = silu_multiply,
    .store_key = store_key,
    .store_value = store_value,
    .scores = scores,
    .softmax_step = softmax_step,
    .exp_shifted = exp_shifted,
    .accumulate = accumulate,
    .scale = scale,
};
