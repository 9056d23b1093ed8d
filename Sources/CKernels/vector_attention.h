// Attention on one page of keys or values, for every instruction set (see vector.h).
//
// Both products are outer products: lanes are positions (scores) or value columns (accumulate), and a tile of up to 6
// queries shares each load. Every output is one chain of fused multiply-adds, in rising order of its inner index.
#ifndef KINDRED_VECTOR_ATTENTION_H
#define KINDRED_VECTOR_ATTENTION_H

#include "vector.h"

// MARK: Storing

static void store_key(kindred_type type, const float *key, size_t d, size_t slot, void *page) {
  size_t index = slot / KINDRED_KEY_BLOCK * d * KINDRED_KEY_BLOCK + slot % KINDRED_KEY_BLOCK;
  if (type == KINDRED_F32) {
    for (size_t c = 0; c < d; c++) ((float *)page)[index + c * KINDRED_KEY_BLOCK] = key[c];
    return;
  }
  for (size_t c = 0; c < d; c += LANES) {
    vf x = 0;
    size_t count = smaller(LANES, d - c);
    __builtin_memcpy(&x, key + c, count * sizeof *key);
    vshort bits = narrow(type, x);
    for (size_t i = 0; i < count; i++) ((uint16_t *)page)[index + (c + i) * KINDRED_KEY_BLOCK] = bits[i];
  }
}

static void store_value(kindred_type type, const float *value, size_t d, size_t slot, void *page) {
  if (type == KINDRED_F32) {
    __builtin_memcpy((float *)page + slot * d, value, d * sizeof *value);
    return;
  }
  for (size_t c = 0; c < d; c += LANES) {
    vf x = 0;
    size_t count = smaller(LANES, d - c);
    __builtin_memcpy(&x, value + c, count * sizeof *value);
    vshort bits = narrow(type, x);
    __builtin_memcpy((uint16_t *)page + slot * d + c, &bits, count * sizeof(uint16_t));
  }
}

// MARK: Scores

enum { KEY_VECTORS = KINDRED_KEY_BLOCK / LANES };

/// Where the queries or weights of a tile lie, how many there are, and where their results go.
typedef struct {
  const float *rows;
  size_t row_stride;
  /// Rows of the tile that exist, at most its columns.
  size_t count;
  float *out;
  size_t out_stride;
} attention_tile;

/// Scores of a tile of `columns` queries at `blocks` blocks of 16 positions.
INLINE void score_tile(size_t columns, kindred_type type, size_t blocks, attention_tile t, size_t d,
                       const void *keys, float scale) {
  vf sums[LARGEST_TILE][4 * KEY_VECTORS];
  const float *rows[LARGEST_TILE];
  UNROLL for (size_t i = 0; i < columns; i++) {
    rows[i] = t.rows + (i < t.count ? i : 0) * t.row_stride;
    UNROLL for (size_t v = 0; v < blocks * KEY_VECTORS; v++) sums[i][v] = 0;
  }
  for (size_t c = 0; c < d; c++) {
    UNROLL for (size_t v = 0; v < blocks * KEY_VECTORS; v++) {
      size_t element = (v / KEY_VECTORS * d + c) * KINDRED_KEY_BLOCK + v % KEY_VECTORS * LANES;
      vf key = widen(type, keys, element);
      UNROLL for (size_t i = 0; i < columns; i++) sums[i][v] = fused((vf)rows[i][c], key, sums[i][v]);
    }
  }
  UNROLL for (size_t i = 0; i < columns; i++) {
    if (i < t.count) {
      UNROLL for (size_t v = 0; v < blocks * KEY_VECTORS; v++)
        store(t.out + i * t.out_stride + v * LANES, sums[i][v] * scale);
    }
  }
}

/// A tile of queries at all positions: several blocks at once while there are, then one at a time.
INLINE void score_tiles(size_t columns, kindred_type type, attention_tile t, size_t d, const void *keys,
                        size_t count, float scale) {
  const size_t element_bytes = type == KINDRED_F32 ? 4 : 2;
  const size_t together = columns == 1 ? 4 : columns == 2 && KEY_BLOCKS < 2 ? 2 : KEY_BLOCKS;
  size_t block_bytes = d * KINDRED_KEY_BLOCK * element_bytes;
  const uint8_t *bytes = keys;
  size_t left = (count + KINDRED_KEY_BLOCK - 1) / KINDRED_KEY_BLOCK;
  for (; left >= together; left -= together, bytes += together * block_bytes) {
    score_tile(columns, type, together, t, d, bytes, scale);
    t.out += together * KINDRED_KEY_BLOCK;
  }
  for (; left > 0; left--, bytes += block_bytes) {
    score_tile(columns, type, 1, t, d, bytes, scale);
    t.out += KINDRED_KEY_BLOCK;
  }
}

INLINE void scores_of(kindred_type type, const float *q, size_t q_stride, size_t m, size_t d, const void *keys,
                      size_t count, float scale, float *s) {
  for (size_t i = 0; i < m; i += LARGEST_TILE) {
    attention_tile t = {q + i * q_stride, q_stride, smaller(m - i, LARGEST_TILE), s + i * PAGE, PAGE};
    WITH_TILE(t.count, score_tiles, type, t, d, keys, count, scale);
  }
}

static void scores(kindred_type type, const float *q, size_t q_stride, size_t m, size_t d, const void *key_page,
                   size_t count, float scale, float *s) {
  if (type == KINDRED_F32) scores_of(KINDRED_F32, q, q_stride, m, d, key_page, count, scale, s);
  else if (type == KINDRED_F16) scores_of(KINDRED_F16, q, q_stride, m, d, key_page, count, scale, s);
  else scores_of(KINDRED_BF16, q, q_stride, m, d, key_page, count, scale, s);
}

// MARK: Accumulation

/// A tile of `columns` queries and `vectors` vectors of value columns from column `first`.
INLINE void value_tile(size_t columns, kindred_type type, size_t vectors, attention_tile t, const void *values,
                       size_t count, size_t d, size_t first) {
  vf sums[LARGEST_TILE][VALUE_VECTORS];
  const float *rows[LARGEST_TILE];
  UNROLL for (size_t i = 0; i < columns; i++) {
    size_t row = i < t.count ? i : 0;
    rows[i] = t.rows + row * t.row_stride;
    UNROLL for (size_t v = 0; v < vectors; v++)
      sums[i][v] = load(t.out + row * t.out_stride + first + v * LANES);
  }
  for (size_t j = 0; j < count; j++) {
    UNROLL for (size_t v = 0; v < vectors; v++) {
      vf value = widen(type, values, j * d + first + v * LANES);
      UNROLL for (size_t i = 0; i < columns; i++) sums[i][v] = fused((vf)rows[i][j], value, sums[i][v]);
    }
  }
  UNROLL for (size_t i = 0; i < columns; i++) {
    if (i < t.count) {
      UNROLL for (size_t v = 0; v < vectors; v++)
        store(t.out + i * t.out_stride + first + v * LANES, sums[i][v]);
    }
  }
}

/// A tile of queries at all value columns: several vectors at once while there are, then one, then single columns.
INLINE void value_tiles(size_t columns, kindred_type type, attention_tile t, const void *values, size_t count,
                        size_t d) {
  size_t c = 0;
  for (; c + VALUE_VECTORS * LANES <= d; c += VALUE_VECTORS * LANES)
    value_tile(columns, type, VALUE_VECTORS, t, values, count, d, c);
  for (; c + LANES <= d; c += LANES) value_tile(columns, type, 1, t, values, count, d, c);
  for (; c < d; c++)
    for (size_t i = 0; i < t.count; i++) {
      float *sum = t.out + i * t.out_stride + c;
      for (size_t j = 0; j < count; j++)
        *sum = __builtin_fmaf(t.rows[i * t.row_stride + j], widen_one(type, values, j * d + c), *sum);
    }
}

INLINE void accumulate_of(kindred_type type, const float *p, size_t m, const void *values, size_t count, size_t d,
                          float *o, size_t o_stride) {
  for (size_t i = 0; i < m; i += LARGEST_TILE) {
    attention_tile t = {p + i * PAGE, PAGE, smaller(m - i, LARGEST_TILE), o + i * o_stride, o_stride};
    WITH_TILE(t.count, value_tiles, type, t, values, count, d);
  }
}

static void accumulate(kindred_type type, const float *p, size_t m, const void *value_page, size_t count,
                       size_t d, float *o, size_t o_stride) {
  if (type == KINDRED_F32) accumulate_of(KINDRED_F32, p, m, value_page, count, d, o, o_stride);
  else if (type == KINDRED_F16) accumulate_of(KINDRED_F16, p, m, value_page, count, d, o, o_stride);
  else accumulate_of(KINDRED_BF16, p, m, value_page, count, d, o, o_stride);
}

#endif
