// The products of attention of many rows on plain AVX-512 (included by avx512.c; see strips_attention.h).
//
// Queries and keys are 16-bit integers with a scale for each row, which one `vpdpwssd` multiplies and adds exactly: a
// row's Euclidean norm is at most WORD_NORM, so by the inequality of Cauchy and Schwarz no sum of products leaves 32
// bits. Rounding moves a logit by about 1e-5 of the product of the norms. Weights times values is `vdpbf16ps`.
#ifndef KINDRED_WORDS_ATTENTION_H
#define KINDRED_WORDS_ATTENTION_H

#include "strips_attention.h"

/// With what rounding KINDRED_TILE_COLUMNS elements by half may add to a norm, its square is below 2^31.
static const float WORD_NORM = 46330, LARGEST_WORD = 32767;
_Static_assert((46330 + 8 + 1) * (46330 + 8 + 1) < INT32_MAX && KINDRED_TILE_COLUMNS <= 256, "sums overflow");

enum {
  /// Queries, and vectors of positions or columns, of a tile of sums in registers.
  WORD_QUERIES = 4,
  WORD_VECTORS = 4,
  /// Positions whose values stay in the first-level cache while a strip's queries pass.
  WORD_STEPS = 4,
};

// MARK: Packing

/// Elements times `factor` are integers to be rounded; integers times `scale` are elements. A row that holds what is
/// not finite has a scale of NaN, as its logits are.
typedef struct {
  vf factor, scale;
} word_scale;

/// What brings the largest magnitude of a row near 1; 0 for a row of almost nothing or one that is not finite.
INLINE vf unit_factor(vf most) {
  vi usual = (most >= 0x1p-100f) & (most <= 0x1.fffffep127f);
  return usual ? 1 / most : (vf)0;
}

/// Of rows with these largest magnitudes and sums of squares, after unit_factor.
INLINE word_scale scale_words(vf most, vf squares) {
  vf norm = WORD_NORM / (vf)_mm512_sqrt_ps((__m512)squares);
  vf largest = norm < LARGEST_WORD ? norm : LARGEST_WORD;
  vf scale = most <= 0x1.fffffep127f ? most / largest : (vf)__builtin_nanf("");
  return (word_scale){unit_factor(most) * largest, scale};
}

/// Rounds to nearest even; 0 where the factor is 0.
INLINE vi round_words(vf x, vf factor) {
  vi words = (vi)_mm512_cvtps_epi32((__m512)(x * factor));
  return factor > 0 ? words : (vi)0;
}

/// The larger of a magnitude and that of x, as bits, which put NaN above infinity.
INLINE vi larger_magnitude(vi most, vf x) { return __builtin_elementwise_max(most, (vi)x & 0x7fffffff); }

/// Key pages are [pairs of columns][64 positions][2] integers, d rounded up to 32, and then a scale for each position.
static void pack_key_words(kindred_type type, const void *page, size_t d, uint16_t *tiles) {
  const size_t columns = rounded_up(d, KINDRED_BLOCK);
  float *scales = (float *)(tiles + columns * PAGE);
  for (size_t block = 0; block < PAGE_BLOCKS; block++) {
    const size_t slot = block * KINDRED_KEY_BLOCK;
    vi magnitude = 0;
    for (size_t c = 0; c < d; c++) magnitude = larger_magnitude(magnitude, key_vector(type, page, d, slot, c));
    const vf most = (vf)magnitude;
    vf squares = 0;
    for (size_t c = 0; c < d; c++) {
      vf x = key_vector(type, page, d, slot, c) * unit_factor(most);
      squares = fused(x, x, squares);
    }
    word_scale s = scale_words(most, squares);
    store(scales + block * KINDRED_KEY_BLOCK, s.scale);
    for (size_t c = 0; c < columns; c += 2) {
      vi even = c < d ? round_words(key_vector(type, page, d, slot, c), s.factor) : (vi)0;
      vi odd = c + 1 < d ? round_words(key_vector(type, page, d, slot, c + 1), s.factor) : (vi)0;
      uint16_t *pairs = tiles + (c / 2 * PAGE + slot) * 2;
      _mm512_store_si512(pairs, (__m512i)((even & 0xffff) | odd << 16));
    }
  }
}

static void pack_word_query(const float *query, size_t d, float factor, size_t row, attention_scratch *x) {
  float scaled[KINDRED_TILE_COLUMNS] = {0};
  const size_t columns = rounded_up(d, KINDRED_BLOCK);
  for (size_t c = 0; c < d; c++) scaled[c] = query[c] * factor;
  vi magnitude = 0;
  for (size_t c = 0; c < columns; c += LANES) magnitude = larger_magnitude(magnitude, load(scaled + c));
  const vf most = (vf)(vi)_mm512_set1_epi32(_mm512_reduce_max_epi32((__m512i)magnitude));
  vf squares = 0;
  for (size_t c = 0; c < columns; c += LANES) {
    vf v = load(scaled + c) * unit_factor(most);
    squares = fused(v, v, squares);
  }
  word_scale s = scale_words(most, sum_lanes(squares));
  x->queries.scales[row] = s.scale[0];
  for (size_t c = 0; c < columns; c += LANES) {
    vshort words = __builtin_convertvector(round_words(load(scaled + c), s.factor), vshort);
    __builtin_memcpy(x->queries.words + row * columns + c, &words, sizeof words);
  }
}

// MARK: Steps

/// Two elements that are multiplied and added together.
INLINE vi broadcast_pair(const void *p) {
  int32_t pair;
  __builtin_memcpy(&pair, p, sizeof pair);
  return pair;
}

/// Logits of WORD_QUERIES queries from `first` at `vectors` · 16 positions of a page.
INLINE void logit_tile(attention_scratch *x, size_t first, const uint16_t *keys, const float *scales, size_t columns,
                       size_t vectors, float *logits) {
  const int16_t *rows = x->queries.words + first * columns;
  vi sums[WORD_QUERIES][WORD_VECTORS];
  UNROLL for (size_t i = 0; i < WORD_QUERIES; i++) {
    UNROLL for (size_t v = 0; v < vectors; v++) sums[i][v] = 0;
  }
  for (size_t c = 0; c < columns; c += 2, keys += 2 * PAGE) {
    vi pairs[WORD_VECTORS];
    UNROLL for (size_t v = 0; v < vectors; v++) pairs[v] = (vi)_mm512_load_si512(keys + v * 2 * LANES);
    UNROLL for (size_t i = 0; i < WORD_QUERIES; i++) {
      vi query = broadcast_pair(rows + i * columns + c);
      UNROLL for (size_t v = 0; v < vectors; v++)
        sums[i][v] = (vi)_mm512_dpwssd_epi32((__m512i)sums[i][v], (__m512i)query, (__m512i)pairs[v]);
    }
  }
  UNROLL for (size_t i = 0; i < WORD_QUERIES; i++) {
    UNROLL for (size_t v = 0; v < vectors; v++) {
      vf scale = load(scales + v * LANES) * x->queries.scales[first + i];
      store(logits + i * LOGIT_STRIDE + v * LANES, __builtin_convertvector(sums[i][v], vf) * scale);
    }
  }
}

static void word_logits(attention_scratch *x, size_t first, const uint16_t *keys, size_t columns, size_t steps) {
  const size_t page_steps = PAGE / KINDRED_BLOCK;
  for (size_t s = 0; s < steps; s += page_steps, keys += 2 * PAGE * columns) {
    const float *scales = (const float *)(keys + PAGE * columns);
    for (size_t i = 0; i < STRIP; i += WORD_QUERIES) {
      float *logits = x->strip.logits + i * LOGIT_STRIDE + s * KINDRED_BLOCK;
      if (s + page_steps <= steps) logit_tile(x, first + i, keys, scales, columns, WORD_VECTORS, logits);
      else logit_tile(x, first + i, keys, scales, columns, WORD_VECTORS / 2, logits);
    }
  }
}

/// Adds the weights of WORD_QUERIES queries times `vectors` vectors of columns of their values.
INLINE void output_tile(const uint16_t *weights, const uint16_t *values, size_t columns, size_t steps, size_t vectors,
                        float *outputs) {
  vf sums[WORD_QUERIES][WORD_VECTORS];
  UNROLL for (size_t i = 0; i < WORD_QUERIES; i++) {
    UNROLL for (size_t v = 0; v < vectors; v++) sums[i][v] = load(outputs + i * columns + v * LANES);
  }
  for (size_t s = 0; s < steps; s++, weights += TILE_ELEMENTS, values += columns * KINDRED_BLOCK) {
    for (size_t j = 0; j < KINDRED_BLOCK; j += 2) {
      __m512bh pairs[WORD_VECTORS];
      UNROLL for (size_t v = 0; v < vectors; v++)
        pairs[v] = (__m512bh)_mm512_load_si512(values + v * TILE_ELEMENTS + j * LANES);
      UNROLL for (size_t i = 0; i < WORD_QUERIES; i++) {
        __m512bh weight = (__m512bh)broadcast_pair(weights + i * KINDRED_BLOCK + j);
        UNROLL for (size_t v = 0; v < vectors; v++)
          sums[i][v] = (vf)_mm512_dpbf16_ps((__m512)sums[i][v], weight, pairs[v]);
      }
    }
  }
  UNROLL for (size_t i = 0; i < WORD_QUERIES; i++) {
    UNROLL for (size_t v = 0; v < vectors; v++) store(outputs + i * columns + v * LANES, sums[i][v]);
  }
}

static void word_outputs(const uint16_t *weights, const uint16_t *values, size_t columns, size_t steps,
                         float *outputs) {
  for (size_t s = 0; s < steps; s += WORD_STEPS, weights += WORD_STEPS * TILE_ELEMENTS) {
    const size_t count = smaller(steps - s, WORD_STEPS);
    for (size_t c = 0; c < columns; c += WORD_VECTORS * LANES)
      for (size_t i = 0; i < STRIP; i += WORD_QUERIES) {
        const uint16_t *rows = weights + i / TILE_ROWS * SPAN_STEPS * TILE_ELEMENTS + i % TILE_ROWS * KINDRED_BLOCK;
        const uint16_t *tile = values + s * columns * KINDRED_BLOCK + c * KINDRED_BLOCK;
        float *sums = outputs + i * columns + c;
        if (c + WORD_VECTORS * LANES <= columns) output_tile(rows, tile, columns, count, WORD_VECTORS, sums);
        else output_tile(rows, tile, columns, count, WORD_VECTORS / 2, sums);
      }
  }
}

static const strip_products WORD_PRODUCTS = {pack_word_query, word_logits, word_outputs};

static void attend_words(const kindred_tile_attention *a, void *scratch) { attend_strips(WORD_PRODUCTS, a, scratch); }

static void borrow_words(const kindred_tile_loan *loan, void *scratch) { borrow_strips(WORD_PRODUCTS, loan, scratch); }

#endif
