// Attention on one page of keys or values, for every instruction set (see vector.h).
//
// Both products are outer products: lanes are positions (scores) or value columns (accumulate), and a tile of
// up to 6 queries shares each load. Every output is one chain of fused multiply-adds, in rising order of its
// inner index.
#ifndef KINDRED_VECTOR_ATTENTION_H
#define KINDRED_VECTOR_ATTENTION_H

#include "vector.h"

// MARK: Storing

static void store_key(kindred_type type, const float *key, size_t d, size_t slot, void *key_page) {
  size_t index = slot / KINDRED_KEY_BLOCK * d * KINDRED_KEY_BLOCK + slot % KINDRED_KEY_BLOCK;
  if (type == KINDRED_F32) {
    for (size_t c = 0; c < d; c++) ((float *)key_page)[index + c * KINDRED_KEY_BLOCK] = key[c];
    return;
  }
  for (size_t c = 0; c < d; c += LANES) {
    vf x = 0;
    size_t count = smaller(LANES, d - c);
    __builtin_memcpy(&x, key + c, count * sizeof *key);
    vshort bits = narrow(type, x);
    for (size_t i = 0; i < count; i++) ((uint16_t *)key_page)[index + (c + i) * KINDRED_KEY_BLOCK] = bits[i];
  }
}

static void store_value(kindred_type type, const float *value, size_t d, size_t slot, void *value_page) {
  if (type == KINDRED_F32) {
    __builtin_memcpy((float *)value_page + slot * d, value, d * sizeof *value);
    return;
  }
  for (size_t c = 0; c < d; c += LANES) {
    vf x = 0;
    size_t count = smaller(LANES, d - c);
    __builtin_memcpy(&x, value + c, count * sizeof *value);
    vshort bits = narrow(type, x);
    __builtin_memcpy((uint16_t *)value_page + slot * d + c, &bits, count * sizeof(uint16_t));
  }
}

// MARK: Scores

enum { KEY_VECTORS = KINDRED_KEY_BLOCK / LANES };

/// A page of keys or values, from some element of it on.
typedef struct {
  kindred_type type;
  const uint8_t *elements;
  /// Elements of a key or value, and positions.
  size_t d, count;
  /// A page to fetch meanwhile, element by element; may be this one.
  const uint8_t *next;
} page;

/// Fetches `next` from element `i` on: the line that holds it.
INLINE void fetch(page p, size_t i) { __builtin_prefetch(p.next + i * (p.type == KINDRED_F32 ? 4 : 2)); }

/// The rows of a tile (queries, or weights of positions), how many there are, and where their results go.
typedef struct {
  const float *rows;
  size_t row_stride;
  size_t count;
  float *out;
  size_t out_stride;
} query_tile;

/// Rows of the next tile where so many are left: 7 and 8 make two tiles of 4, of which neither is nearly empty.
INLINE size_t queries_together(size_t left) { return left == 7 || left == 8 ? 4 : smaller(left, LARGEST_TILE); }

/// Scores of a tile of `columns` queries at the first `blocks` blocks of 16 positions.
INLINE void score_tile(size_t columns, size_t blocks, page keys, query_tile t, float scale) {
  vf sums[LARGEST_TILE][4 * KEY_VECTORS];
  const float *rows[LARGEST_TILE];
  UNROLL for (size_t i = 0; i < columns; i++) {
    rows[i] = t.rows + (i < t.count ? i : 0) * t.row_stride;
    UNROLL for (size_t v = 0; v < blocks * KEY_VECTORS; v++) sums[i][v] = 0;
  }
  for (size_t c = 0; c < keys.d; c++) {
    UNROLL for (size_t v = 0; v < blocks * KEY_VECTORS; v++) {
      size_t element = (v / KEY_VECTORS * keys.d + c) * KINDRED_KEY_BLOCK + v % KEY_VECTORS * LANES;
      vf key = widen(keys.type, keys.elements, element);
      fetch(keys, element);
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
INLINE void score_tiles(size_t columns, page keys, query_tile t, float scale) {
  const size_t together = columns == 1 ? 4 : columns == 2 && KEY_BLOCKS < 2 ? 2 : KEY_BLOCKS;
  size_t block_bytes = keys.d * KINDRED_KEY_BLOCK * (keys.type == KINDRED_F32 ? 4 : 2);
  size_t left = (keys.count + KINDRED_KEY_BLOCK - 1) / KINDRED_KEY_BLOCK;
  for (; left >= together; left -= together) {
    score_tile(columns, together, keys, t, scale);
    keys.elements += together * block_bytes;
    keys.next += together * block_bytes;
    t.out += together * KINDRED_KEY_BLOCK;
  }
  for (; left > 0; left--) {
    score_tile(columns, 1, keys, t, scale);
    keys.elements += block_bytes;
    keys.next += block_bytes;
    t.out += KINDRED_KEY_BLOCK;
  }
}

INLINE void scores_of(page keys, query_tile all, float scale) {
  for (size_t i = 0; i < all.count; i += queries_together(all.count - i)) {
    query_tile t = all;
    t.rows += i * t.row_stride;
    t.out += i * t.out_stride;
    t.count = queries_together(all.count - i);
    WITH_TILE(t.count, score_tiles, keys, t, scale);
  }
}

/// `scores`, while the page `next` is fetched.
static void scores_ahead(kindred_type type, const float *q, size_t q_stride, size_t m, size_t d, const void *key_page,
                         size_t count, float scale, float *s, const void *next) {
  query_tile all = {q, q_stride, m, s, PAGE};
  if (type == KINDRED_F32) scores_of((page){KINDRED_F32, key_page, d, count, next}, all, scale);
  else if (type == KINDRED_F16) scores_of((page){KINDRED_F16, key_page, d, count, next}, all, scale);
  else scores_of((page){KINDRED_BF16, key_page, d, count, next}, all, scale);
}

static void scores(kindred_type type, const float *q, size_t q_stride, size_t m, size_t d,
                   const void *key_page, size_t count, float scale, float *s) {
  scores_ahead(type, q, q_stride, m, d, key_page, count, scale, s, key_page);
}

// MARK: Accumulation

/// A tile of `columns` queries and `vectors` vectors of value columns from column `first`.
INLINE void value_tile(size_t columns, size_t vectors, page values, query_tile t, size_t first) {
  vf sums[LARGEST_TILE][VALUE_VECTORS];
  const float *rows[LARGEST_TILE];
  UNROLL for (size_t i = 0; i < columns; i++) {
    size_t row = i < t.count ? i : 0;
    rows[i] = t.rows + row * t.row_stride;
    UNROLL for (size_t v = 0; v < vectors; v++)
      sums[i][v] = load(t.out + row * t.out_stride + first + v * LANES);
  }
  for (size_t j = 0; j < values.count; j++) {
    UNROLL for (size_t v = 0; v < vectors; v++) {
      vf value = widen(values.type, values.elements, j * values.d + first + v * LANES);
      fetch(values, j * values.d + first + v * LANES);
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

/// One output, for the columns that fill no vector.
INLINE void value_column(page values, const float *row, size_t c, float *sum) {
  for (size_t j = 0; j < values.count; j++)
    *sum = __builtin_fmaf(row[j], widen_one(values.type, values.elements, j * values.d + c), *sum);
}

/// A tile of queries at all value columns: several vectors at once while there are, then one, then single
/// columns.
INLINE void value_tiles(size_t columns, page values, query_tile t) {
  size_t c = 0;
  for (; c + VALUE_VECTORS * LANES <= values.d; c += VALUE_VECTORS * LANES)
    value_tile(columns, VALUE_VECTORS, values, t, c);
  for (; c + LANES <= values.d; c += LANES) value_tile(columns, 1, values, t, c);
  for (; c < values.d; c++)
    for (size_t i = 0; i < t.count; i++)
      value_column(values, t.rows + i * t.row_stride, c, t.out + i * t.out_stride + c);
}

INLINE void accumulate_of(page values, query_tile all) {
  for (size_t i = 0; i < all.count; i += queries_together(all.count - i)) {
    query_tile t = all;
    t.rows += i * t.row_stride;
    t.out += i * t.out_stride;
    t.count = queries_together(all.count - i);
    WITH_TILE(t.count, value_tiles, values, t);
  }
}

/// `accumulate`, while the page `next` is fetched.
static void accumulate_ahead(kindred_type type, const float *p, size_t m, const void *value_page, size_t count,
                             size_t d, float *o, size_t o_stride, const void *next) {
  query_tile all = {p, PAGE, m, o, o_stride};
  if (type == KINDRED_F32) accumulate_of((page){KINDRED_F32, value_page, d, count, next}, all);
  else if (type == KINDRED_F16) accumulate_of((page){KINDRED_F16, value_page, d, count, next}, all);
  else accumulate_of((page){KINDRED_BF16, value_page, d, count, next}, all);
}

static void accumulate(kindred_type type, const float *p, size_t m, const void *value_page, size_t count,
                       size_t d, float *o, size_t o_stride) {
  accumulate_ahead(type, p, m, value_page, count, d, o, o_stride, value_page);
}

#endif
