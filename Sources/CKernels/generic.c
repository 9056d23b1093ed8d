// The kernels in plain C: for machines without a better instruction set, and the twin that the others are
// tested against. Written for clarity, with loops that a compiler can vectorise: a product unpacks 32 columns
// of a panel to float and multiplies them, quantised or not, by the activations as float.
#include <math.h>
#include <string.h>

#include "cache_blocks.h"
#include "floats.h"
#include "kernels.h"
#include "panels.h"

enum {
  PAGE = KINDRED_PAGE_POSITIONS,
  /// Activation rows that share one unpacked block of weights.
  TILE_ROWS = 64,
};

static size_t smaller(size_t a, size_t b) { return a < b ? a : b; }

// MARK: Weights as float

/// One block of 32 columns of a panel as float, [column][row].
typedef float weight_block[KINDRED_BLOCK][KINDRED_PANEL_ROWS];

/// Adds vector `t` of a plane of `bits` bits, moved up by `up`.
static void add_plane(const uint8_t *plane, int bits, int up, int t, uint8_t *vector) {
  const uint8_t *bytes = plane + (size_t)(t % bits) * KINDRED_VECTOR_BYTES;
  int down = bits * (t / bits), mask = (1 << bits) - 1;
  for (size_t i = 0; i < KINDRED_VECTOR_BYTES; i++) vector[i] += (uint8_t)((bytes[i] >> down & mask) << up);
}

static float half_at(const uint8_t *line, size_t row) {
  uint16_t x;
  memcpy(&x, line + 2 * row, sizeof x);
  return kindred_from_f16(x);
}

/// Scale and minimum of each row, for group `g` of 16 columns. `header` holds d and dmin of the superblock,
/// `line` the scales of the block.
static void unpack_scales(kindred_format f, const uint8_t *header, const uint8_t *line, size_t g,
                          float *scales, float *minimums) {
  const uint8_t *near = line + (f.scale_columns == 32 ? 0 : g) * KINDRED_PANEL_ROWS;
  const uint8_t *far = line + KINDRED_PANEL_ROWS;
  bool nibbles = f.scale_columns == 16 && f.minimum;
  for (size_t row = 0; row < KINDRED_PANEL_ROWS; row++) {
    const uint8_t *first = f.super ? header : line;
    float d = half_at(first, row);
    float minimum = f.minimum ? half_at(first + KINDRED_VECTOR_BYTES, row) : 0;
    scales[row] = !f.super ? d : d * (float)(nibbles ? near[row] & 15 : (int8_t)near[row]);
    minimums[row] = !f.super ? minimum : -minimum * (float)(nibbles ? near[row] >> 4 : far[row]);
  }
}

static void unpack_block(kindred_format f, const uint8_t *header, const uint8_t *block,
                         weight_block weights) {
  const uint8_t *line = block + 2 * kindred_half_bytes(f);
  float scales[KINDRED_PANEL_ROWS], minimums[KINDRED_PANEL_ROWS];
  for (int t = 0; t < KINDRED_BLOCK_VECTORS; t++) {
    if (t % 4 == 0) unpack_scales(f, header, line, (size_t)t / 4, scales, minimums);
    for (size_t half = 0; half < KINDRED_PANEL_ROWS / KINDRED_HALF_ROWS; half++) {
      const uint8_t *low = block + half * kindred_half_bytes(f);
      uint8_t vector[KINDRED_VECTOR_BYTES] = {0};
      add_plane(low, f.low_bits, 0, t, vector);
      if (f.high_bits > 0)
        add_plane(low + (size_t)f.low_bits * KINDRED_VECTOR_BYTES, f.high_bits, f.low_bits, t, vector);
      for (size_t k = 0; k < 4; k++)
        for (size_t r = 0; r < KINDRED_HALF_ROWS; r++) {
          size_t row = half * KINDRED_HALF_ROWS + r;
          weights[4 * t + (int)k][row] = scales[row] * (float)(vector[4 * r + k] - f.offset) + minimums[row];
        }
    }
  }
}

static float element(kindred_type type, const void *base, size_t i) {
  if (type == KINDRED_F32) return ((const float *)base)[i];
  uint16_t x = ((const uint16_t *)base)[i];
  return type == KINDRED_F16 ? kindred_from_f16(x) : kindred_from_bf16(x);
}

/// The activations of row `i` from column `first` as float: those of a block of quants, or one as it is.
static void read_activations(const kindred_activations *a, bool quantised, size_t i, size_t first,
                             size_t columns, float *values) {
  if (!quantised) {
    memcpy(values, a->values + i * a->columns + first, columns * sizeof *values);
    return;
  }
  size_t start = i * ((a->columns + 63) / 64 * 64) + first;
  float scale = a->blocks[start / KINDRED_ACTIVATION_BLOCK].scale;
  for (size_t k = 0; k < columns; k++) {
    int32_t quant = a->quants[start + k];
    values[k] = scale * (float)(a->low ? 256 * quant + a->low[start + k] : quant);
  }
}

/// Sums of a tile of activation rows with one panel, [rows][32], in rising order of columns.
static void multiply_panel(kindred_type type, const uint8_t *panel, const kindred_activations *a,
                           size_t first, size_t rows, float (*sums)[KINDRED_PANEL_ROWS]) {
  kindred_format f = kindred_format_of(type);
  bool quantised = f.low_bits > 0;
  const uint8_t *header = panel, *block = panel;
  memset(sums, 0, rows * sizeof *sums);
  for (size_t begin = 0; begin < a->columns; begin += KINDRED_BLOCK) {
    size_t columns = smaller(KINDRED_BLOCK, a->columns - begin);
    weight_block weights;
    if (quantised) {
      if (begin % (KINDRED_BLOCK * KINDRED_CHUNK_BLOCKS) == 0) {
        header = block;
        block += kindred_header_bytes(f);
      }
      unpack_block(f, header, block, weights);
      block += kindred_block_bytes(f);
    } else {
      for (size_t i = 0; i < columns * KINDRED_PANEL_ROWS; i++)
        weights[i / KINDRED_PANEL_ROWS][i % KINDRED_PANEL_ROWS] =
            element(type, panel, begin * KINDRED_PANEL_ROWS + i);
    }
    for (size_t i = 0; i < rows; i++) {
      float values[KINDRED_BLOCK];
      read_activations(a, quantised, first + i, begin, columns, values);
      for (size_t k = 0; k < columns; k++)
        for (size_t r = 0; r < KINDRED_PANEL_ROWS; r++) sums[i][r] += values[k] * weights[k][r];
    }
  }
}

static void multiply(kindred_type type, const void *panels, size_t panel_begin, size_t panel_end,
                     size_t rows, const kindred_activations *a, size_t a_rows, const float *bias,
                     bool accumulate, float *out, size_t out_stride) {
  size_t panel_bytes = kindred_panel_bytes(type, a->columns);
  for (size_t p = panel_begin; p < panel_end; p++)
    for (size_t first = 0; first < a_rows; first += TILE_ROWS) {
      size_t tile = smaller(TILE_ROWS, a_rows - first), row = p * KINDRED_PANEL_ROWS;
      float sums[TILE_ROWS][KINDRED_PANEL_ROWS];
      multiply_panel(type, (const uint8_t *)panels + p * panel_bytes, a, first, tile, sums);
      for (size_t i = 0; i < tile; i++)
        for (size_t r = 0; r < KINDRED_PANEL_ROWS && row + r < rows; r++) {
          float *target = out + (first + i) * out_stride + row + r;
          float sum = sums[i][r] + (bias ? bias[row + r] : 0);
          *target = accumulate ? *target + sum : sum;
        }
    }
}

// MARK: Activations

static void quantize(const float *x, size_t n, int8_t *quants, int8_t *low, kindred_activation_block *blocks) {
  size_t padded = (n + 63) / 64 * 64;
  memset(quants, 0, padded);
  if (low) memset(low, 0, padded);
  for (size_t first = 0; first < padded; first += KINDRED_ACTIVATION_BLOCK) {
    float largest = 0;
    for (size_t k = first; k < first + KINDRED_ACTIVATION_BLOCK && k < n; k++)
      if (!(fabsf(x[k]) <= largest)) largest = isnan(largest) ? largest : fabsf(x[k]);
    float scale = largest / (low ? KINDRED_LARGEST_WIDE : 127);
    kindred_activation_block *block = blocks + first / KINDRED_ACTIVATION_BLOCK;
    *block = (kindred_activation_block){.scale = scale};
    // A scale of NaN or infinity makes every output NaN; a subnormal one has no reciprocal, and counts as 0.
    if (!(scale >= 0x1p-126f && scale <= 0x1p127f)) continue;
    float inverse = 1 / scale;
    for (size_t k = first; k < first + KINDRED_ACTIVATION_BLOCK && k < n; k++) {
      int32_t quant = (int32_t)nearbyintf(x[k] * inverse);
      if (low) {
        int32_t high = (quant + 128) >> 8, rest = quant - 256 * high;
        if (rest < -127) rest = -127;
        quants[k] = (int8_t)high;
        low[k] = (int8_t)rest;
        quant = 256 * high + rest;
      } else {
        quants[k] = (int8_t)quant;
      }
      block->sum += quant;
      if (low) block->halves[k / 16 % 2] += quant;
      else block->pairs[k / 16 % 2][k / 2 % 2] += (int16_t)quant;
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

static float key_element(kindred_type type, const void *page, size_t d, size_t slot, size_t c) {
  if (is_blocks(type)) return key_block_element(type, page, d, slot, c);
  return element(type, page, key_index(slot, d, c));
}

static float value_element(kindred_type type, const void *page, size_t d, size_t slot, size_t c) {
  return is_blocks(type) ? value_block_element(type, page, d, slot, c) : element(type, page, slot * d + c);
}

static void store_key(kindred_type type, const float *key, size_t d, size_t slot, void *page) {
  if (is_blocks(type)) return store_key_blocks(type, key, d, slot, page);
  for (size_t c = 0; c < d; c++) store(type, key[c], page, key_index(slot, d, c));
}

static void store_value(kindred_type type, const float *value, size_t d, size_t slot, void *page) {
  if (is_blocks(type)) return store_value_blocks(type, value, d, slot, page);
  for (size_t c = 0; c < d; c++) store(type, value[c], page, slot * d + c);
}

static void scores(kindred_type type, const float *q, size_t q_stride, size_t m, size_t d,
                   const void *key_page, size_t count, float scale, float *s) {
  for (size_t i = 0; i < m; i++)
    for (size_t j = 0; j < count; j++) {
      float sum = 0;
      for (size_t c = 0; c < d; c++) sum += q[i * q_stride + c] * key_element(type, key_page, d, j, c);
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

static double sum_exponentials(const float *x, size_t n, float shift, float divisor) {
  double total = 0;
  for (size_t i = 0; i < n; i++) {
    double e = exp((double)((x[i] - shift) / divisor));
    total += isnan(e) ? 0 : e;
  }
  return total;
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
        o[i * o_stride + c] += p[i * PAGE + j] * value_element(type, value_page, d, j, c);
}

static void scores_ahead(kindred_type type, const float *q, size_t q_stride, size_t m, size_t d, const void *key_page,
                         size_t count, float factor, float *s, const void *next) {
  (void)next;
  scores(type, q, q_stride, m, d, key_page, count, factor, s);
}

static void accumulate_ahead(kindred_type type, const float *p, size_t m, const void *value_page, size_t count,
                             size_t d, float *o, size_t o_stride, const void *next) {
  (void)next;
  accumulate(type, p, m, value_page, count, d, o, o_stride);
}

#include "attention_pages.h"

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
    .sum_exponentials = sum_exponentials,
    .attend = attend,
    .weigh_values = weigh_values,
};
