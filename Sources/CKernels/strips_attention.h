// Attention of many rows of a sequence in strips of queries (included by avx512.c; see vector.h).
//
// Keys and values of a page are packed once for all rows of a pass (pack_key_tiles, pack_value_tiles). Then 32 queries
// at a time meet a span of 256 positions: logits, softmax in registers with the maximum and sum of FlashAttention's
// online softmax, and the product with the values. Spans lie at fixed positions, so a row's result does not depend on
// the rows beside it. Logits are in units of ln 2: queries are scaled by log2(e), and weights are 2^x.
//
// Weights and values are one bf16 each. What queries and keys are, and both products, is up to the instruction set:
// matrix tiles (tiles_attention.h) or dot products of pairs (words_attention.h).
#ifndef KINDRED_STRIPS_ATTENTION_H
#define KINDRED_STRIPS_ATTENTION_H

#include "tile_layout.h"

enum {
  PAGE_BLOCKS = PAGE / TILE_ROWS,
  /// Positions of one step of the softmax, and its steps of 32.
  SPAN = KINDRED_TILE_SPAN_PAGES * PAGE,
  SPAN_STEPS = SPAN / KINDRED_BLOCK,
  /// Queries that meet a span together.
  STRIP = 2 * TILE_ROWS,
  /// Floats from one query's logits to the next; not a power of two, which would fall on few cache lines.
  LOGIT_STRIDE = SPAN + LANES,
};

/// What one strip of queries works in.
typedef struct {
  _Alignas(64) float logits[STRIP * LOGIT_STRIDE];
  /// Weights of positions: [16 queries][step][16][32].
  _Alignas(64) uint16_t weights[STRIP * SPAN];
} strip_scratch;

/// Queries of one call.
typedef union {
  /// As tiles, and what rounding has left of them.
  _Alignas(64) uint16_t tiles[2][KINDRED_TILE_QUERIES * KINDRED_TILE_COLUMNS];
  /// As 16-bit integers, [query][columns rounded up to 32], and what each is to be multiplied by.
  struct {
    int16_t words[KINDRED_TILE_QUERIES * KINDRED_TILE_COLUMNS];
    float scales[KINDRED_TILE_QUERIES];
  };
} packed_queries;

typedef struct {
  strip_scratch strip;
  /// Maximum and sum of each query so far.
  float maximum[KINDRED_TILE_QUERIES], sum[KINDRED_TILE_QUERIES];
  /// Queries as the set's products take them; results [query][columns rounded up to 32].
  packed_queries queries;
  _Alignas(64) float outputs[KINDRED_TILE_QUERIES * KINDRED_TILE_COLUMNS];
} attention_scratch;

_Static_assert(sizeof(attention_scratch) <= KINDRED_TILE_SCRATCH_BYTES, "scratch is too small");

/// What an instruction set has of its own.
typedef struct {
  /// A query, times `factor`, as the scratch's query `row`.
  void (*pack_query)(const float *query, size_t d, float factor, size_t row, attention_scratch *x);
  /// Logits of the strip from query `first` at the first `steps` · 32 positions of a span.
  void (*logits)(attention_scratch *x, size_t first, const uint16_t *keys, size_t columns, size_t steps);
  /// Adds a strip's weights of `steps` · 32 positions times their values to its outputs, [32][columns].
  void (*outputs)(const uint16_t *weights, const uint16_t *values, size_t columns, size_t steps, float *outputs);
} strip_products;

INLINE size_t rounded_up(size_t n, size_t unit) { return (n + unit - 1) / unit * unit; }

// MARK: Values

/// Columns c… of one value; past `d` zero.
INLINE vf value_lanes(kindred_type type, const void *page, size_t d, size_t position, size_t c) {
  if (c + LANES <= d) return value_vector(type, page, d, position, c);
  float lanes[LANES] = {0};
  for (size_t i = 0; c + i < d; i++) lanes[i] = widen_one(type, page, position * d + c + i);
  return load(lanes);
}

/// Value tiles are [32 positions][16 columns][16 pairs of positions][16 columns][2].
static void pack_value_tiles(kindred_type type, const void *page, size_t count, size_t d, uint16_t *tiles) {
  for (size_t step = 0; step < PAGE; step += KINDRED_BLOCK)
    for (size_t c = 0; c < rounded_up(d, KINDRED_BLOCK); c += LANES)
      for (size_t j = step; j < step + KINDRED_BLOCK; j += 2, tiles += 2 * LANES) {
        vf even = j < count ? value_lanes(type, page, d, j, c) : (vf)0;
        vf odd = j + 1 < count ? value_lanes(type, page, d, j + 1, c) : (vf)0;
        _mm512_store_si512(tiles, pair_bf16(even, odd));
      }
}

// MARK: Steps

/// 2^x with a relative error of at most 3e-6, far below that of bf16; below −126 as at −126.
INLINE vf power_of_two(vf x) {
  x = x < -126.0f ? (vf)-126.0f : x;
  __m512 whole = _mm512_roundscale_ps((__m512)x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  vf r = x - (vf)whole;
  vf p = fused(r, (vf)0x1.3a02ccp-7f, (vf)0x1.c9fc46p-5f);
  p = fused(p, r, (vf)0x1.ec0378p-3f);
  p = fused(p, r, (vf)0x1.62e12cp-1f);
  p = fused(p, r, (vf)1.0f);
  return (vf)_mm512_scalef_ps((__m512)p, whole);
}

/// Lanes of the vector at position `j` that are among the first `valid`.
INLINE vi valid_lanes(size_t valid, size_t j) { return lane_numbers() < (int32_t)valid - (int32_t)j; }

INLINE float largest_of(const float *logits, size_t valid, float least) {
  vf most = least;
  size_t j = 0;
  for (; j + LANES <= valid; j += LANES) {
    vf x = load(logits + j);
    most = x > most ? x : most;
  }
  if (j < valid) {
    vf x = load(logits + j);
    most = (x > most) & valid_lanes(valid, j) ? x : most;
  }
  return _mm512_reduce_max_ps((__m512)most);
}

/// Weights 2^(logit − shift) of one query as bf16, 0 from position `valid` to the end of `steps`; returns their sum.
INLINE float write_weights(const float *logits, size_t valid, size_t steps, float shift, uint16_t *weights) {
  vf totals[2] = {0, 0};
  for (size_t s = 0; s < steps; s++, weights += TILE_ELEMENTS) {
    vf parts[2];
    UNROLL for (size_t h = 0; h < 2; h++) {
      const size_t j = s * KINDRED_BLOCK + h * LANES;
      parts[h] = power_of_two(load(logits + j) - shift);
      if (j + LANES > valid) parts[h] = (vf)((vi)parts[h] & valid_lanes(valid, j));
      totals[h] += parts[h];
    }
    _mm512_store_si512(weights, (__m512i)_mm512_cvtne2ps_pbh((__m512)parts[1], (__m512)parts[0]));
  }
  return _mm512_reduce_add_ps((__m512)(totals[0] + totals[1]));
}

INLINE uint16_t *weights_of(strip_scratch *s, size_t i) {
  return s->weights + i / TILE_ROWS * SPAN_STEPS * TILE_ELEMENTS + i % TILE_ROWS * KINDRED_BLOCK;
}

/// One span of one strip of an online softmax: queries `first`…, of which the i-th sees `valid[i]` positions.
INLINE void attend_span(strip_products set, attention_scratch *x, size_t first, const size_t *valid, size_t steps,
                        size_t d, const uint16_t *keys, const uint16_t *values) {
  const size_t columns = rounded_up(d, KINDRED_BLOCK);
  float *outputs = x->outputs + first * columns;
  set.logits(x, first, keys, columns, steps);
  for (size_t i = 0; i < STRIP; i++) {
    const float *logits = x->strip.logits + i * LOGIT_STRIDE;
    float old = x->maximum[first + i], most = largest_of(logits, valid[i], old);
    // With nothing but −∞ so far every weight is 0, and the difference below would be NaN.
    float shift = most == -__builtin_inff() ? 0 : most;
    float sum = write_weights(logits, valid[i], steps, shift, weights_of(&x->strip, i));
    float factor = old == most ? 1 : power_of_two((vf)(old - shift))[0];
    x->maximum[first + i] = most;
    x->sum[first + i] = x->sum[first + i] * factor + sum;
    if (factor != 1) scale(outputs + i * columns, columns, factor);
  }
  set.outputs(x->strip.weights, values, columns, steps, outputs);
}

// MARK: Own attention

INLINE void attend_strips(strip_products set, const kindred_tile_attention *a, void *scratch) {
  attention_scratch *x = scratch;
  const float log2_e = 0x1.715476p0f, ln_2 = 0x1.62e430p-1f;
  const size_t columns = rounded_up(a->d, KINDRED_BLOCK), span_elements = SPAN * columns;
  const size_t queries = a->rows * a->heads, strips = (queries + STRIP - 1) / STRIP;
  for (size_t i = 0; i < strips * STRIP; i++) {
    // The strip's empty places repeat the last query.
    size_t row = smaller(i, queries - 1) / a->heads, head = smaller(i, queries - 1) % a->heads;
    set.pack_query(a->query + row * a->query_stride + head * a->d, a->d, a->scale * log2_e, i, x);
    x->maximum[i] = -__builtin_inff();
    x->sum[i] = 0;
  }
  __builtin_memset(x->outputs, 0, strips * STRIP * columns * sizeof *x->outputs);
  for (size_t start = 0, span = 0; start < a->first_position + a->rows; start += SPAN, span++)
    for (size_t first = 0; first < queries; first += STRIP) {
      size_t valid[STRIP], most = 0;
      for (size_t i = 0; i < STRIP; i++) {
        size_t end = a->first_position + smaller(first + i, queries - 1) / a->heads + 1;
        valid[i] = end <= start ? 0 : smaller(end - start, SPAN);
        most = valid[i] > most ? valid[i] : most;
      }
      if (most > 0)
        attend_span(set, x, first, valid, (most + KINDRED_BLOCK - 1) / KINDRED_BLOCK, a->d,
                    a->keys + 2 * span * span_elements, a->values + span * span_elements);
    }
  for (size_t i = 0; i < queries; i++) {
    size_t row = i / a->heads, head = i % a->heads;
    float *out = a->output + row * a->output_stride + head * a->d, factor = 1 / x->sum[i];
    for (size_t c = 0; c < a->d; c++) out[c] = x->outputs[i * columns + c] * factor;
    if (a->log_sum_exp != NULL)
      a->log_sum_exp[row * a->log_sum_exp_stride + head] = ln_2 * x->maximum[i] + __builtin_logf(x->sum[i]);
  }
}

// MARK: Borrowed attention

INLINE void borrow_strips(strip_products set, const kindred_tile_loan *loan, void *scratch) {
  attention_scratch *x = scratch;
  const float log2_e = 0x1.715476p0f;
  const size_t lent_columns = rounded_up(loan->lent_d, KINDRED_BLOCK), columns = rounded_up(loan->d, KINDRED_BLOCK);
  const size_t rows = loan->rows, padded_rows = rounded_up(rows, STRIP), last = rows - 1;
  for (size_t i = 0; i < padded_rows; i++)
    set.pack_query(loan->query + smaller(i, last) * loan->query_stride, loan->lent_d, loan->scale * log2_e, i, x);
  __builtin_memset(x->outputs, 0, loan->borrowers * padded_rows * columns * sizeof *x->outputs);
  for (size_t start = 0, span = 0; start < loan->first_position + rows; start += SPAN, span++)
    for (size_t first = 0; first < rows; first += STRIP) {
      const size_t end = loan->first_position + smaller(first + STRIP, rows);
      if (end <= start) continue;
      const size_t steps = (smaller(end - start, SPAN) + KINDRED_BLOCK - 1) / KINDRED_BLOCK;
      set.logits(x, first, loan->keys + 2 * span * SPAN * lent_columns, lent_columns, steps);
      for (size_t i = 0; i < STRIP; i++) {
        size_t row = smaller(first + i, last), seen = loan->first_position + row + 1;
        write_weights(x->strip.logits + i * LOGIT_STRIDE, seen <= start ? 0 : smaller(seen - start, SPAN), steps,
                      log2_e * loan->log_sum_exp[row * loan->log_sum_exp_stride], weights_of(&x->strip, i));
      }
      for (size_t b = 0; b < loan->borrowers; b++)
        set.outputs(x->strip.weights, loan->values[b] + span * SPAN * columns, columns, steps,
                      x->outputs + (b * padded_rows + first) * columns);
    }
  for (size_t b = 0; b < loan->borrowers; b++)
    for (size_t i = 0; i < rows; i++)
      __builtin_memcpy(loan->outputs[b] + i * loan->output_stride, x->outputs + (b * padded_rows + i) * columns,
                       loan->d * sizeof(float));
}

#endif
