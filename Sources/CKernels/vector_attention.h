// Attention on one page of keys or values, for every instruction set (see vector.h).
//
// Both products are outer products: lanes are positions (scores) or value columns (accumulate), and a tile of
// up to 6 queries shares each load. Every output is one chain of fused multiply-adds, in rising order of its
// inner index.
#ifndef KINDRED_VECTOR_ATTENTION_H
#define KINDRED_VECTOR_ATTENTION_H

#include "cache_blocks.h"
#include "vector.h"

// MARK: Storing

static void store_key(kindred_type type, const float *key, size_t d, size_t slot, void *key_page) {
  if (is_blocks(type)) return store_key_blocks(type, key, d, slot, key_page);
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
  if (is_blocks(type)) return store_value_blocks(type, value, d, slot, value_page);
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

// MARK: Reading

/// LANES quants from byte `p` on, their byte's part from bit `shift` on, as float.
INLINE vf cached_quants(kindred_type type, const uint8_t *p, int shift) {
  if (type == KINDRED_Q8_0) {
    vchar quants;
    __builtin_memcpy(&quants, p, sizeof quants);
    return __builtin_convertvector(quants, vf);
  }
  vuchar bytes;
  __builtin_memcpy(&bytes, p, sizeof bytes);
  return __builtin_convertvector((__builtin_convertvector(bytes, vi) >> shift & 15) - 8, vf);
}

/// Scales of LANES positions, from `slot` on, of blocks with column `c`.
INLINE vf block_scales(kindred_type type, const void *page, size_t d, size_t slot, size_t c) {
  return widen_f16(block_scale(blocks_at(type, page, d, slot, c), slot));
}

/// Column `c` of LANES keys from `slot` on, a multiple of LANES.
INLINE vf key_vector(kindred_type type, const void *page, size_t d, size_t slot, size_t c) {
  const size_t lane = slot % KINDRED_KEY_BLOCK;
  if (!is_blocks(type)) return widen(type, page, (slot / KINDRED_KEY_BLOCK * d + c) * KINDRED_KEY_BLOCK + lane);
  const uint8_t *quants = key_quant(type, blocks_at(type, page, d, slot, c), slot, c);
  return block_scales(type, page, d, slot, c) * cached_quants(type, quants, quant_shift(type, c));
}

/// LANES columns from `c` on, in blocks a multiple of LANES, of the value at `slot`.
INLINE vf value_vector(kindred_type type, const void *page, size_t d, size_t slot, size_t c) {
  if (!is_blocks(type)) return widen(type, page, slot * d + c);
  const uint8_t *blocks = blocks_at(type, page, d, slot, c);
  _Float16 scale;
  __builtin_memcpy(&scale, block_scale(blocks, slot), sizeof scale);
  return (vf)(float)scale * cached_quants(type, value_quant(type, blocks, slot, c), quant_shift(type, c));
}

/// Calls `function(type, ...)` with a constant type of keys or values.
#define WITH_CACHE_TYPE(type, function, ...) \
  do { \
    switch (type) { \
    case KINDRED_F32: function(KINDRED_F32, __VA_ARGS__); break; \
    case KINDRED_F16: function(KINDRED_F16, __VA_ARGS__); break; \
    case KINDRED_Q8_0: function(KINDRED_Q8_0, __VA_ARGS__); break; \
    case KINDRED_Q4_0: function(KINDRED_Q4_0, __VA_ARGS__); break; \
    default: function(KINDRED_BF16, __VA_ARGS__); break; \
    } \
  } while (0)

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

/// Fetches `next` where about its element `i` lies, into the second-level cache: the first is full of this page.
INLINE void fetch(page p, size_t i) { __builtin_prefetch(p.next + cached_bytes(p.type, i), 0, 2); }

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

/// Adds the products of elements `first`..<`end` of a tile of queries and of keys. Of keys in blocks these are half a
/// block, with its scales, and its quants from bit `shift` of bytes on.
INLINE void score_columns(size_t columns, size_t blocks, page keys, const float **rows, size_t first, size_t end,
                          const vf *scales, int shift, vf sums[][4 * KEY_VECTORS]) {
  for (size_t c = first; c < end; c++) {
    // All keys before any query: with one element of one query at a time 16 registers are enough.
    vf key[4 * KEY_VECTORS];
    UNROLL for (size_t v = 0; v < blocks * KEY_VECTORS; v++) {
      const size_t slot = v * LANES;
      const size_t element = (v / KEY_VECTORS * keys.d + c) * KINDRED_KEY_BLOCK + slot % KINDRED_KEY_BLOCK;
      if (is_blocks(keys.type)) {
        const uint8_t *quants = key_quant(keys.type, blocks_at(keys.type, keys.elements, keys.d, slot, c), slot, c);
        key[v] = scales[v] * cached_quants(keys.type, quants, shift);
      } else {
        key[v] = widen(keys.type, keys.elements, element);
      }
      fetch(keys, element);
    }
    UNROLL for (size_t i = 0; i < columns; i++) {
      UNROLL for (size_t v = 0; v < blocks * KEY_VECTORS; v++) sums[i][v] = fused((vf)rows[i][c], key[v], sums[i][v]);
    }
  }
}

/// Scores of a tile of `columns` queries at the first `blocks` blocks of 16 positions.
INLINE void score_tile(size_t columns, size_t blocks, page keys, query_tile t, float scale) {
  vf sums[LARGEST_TILE][4 * KEY_VECTORS];
  const float *rows[LARGEST_TILE];
  UNROLL for (size_t i = 0; i < columns; i++) {
    rows[i] = t.rows + (i < t.count ? i : 0) * t.row_stride;
    UNROLL for (size_t v = 0; v < blocks * KEY_VECTORS; v++) sums[i][v] = 0;
  }
  if (is_blocks(keys.type)) {
    for (size_t c = 0; c < keys.d; c += KINDRED_BLOCK) {
      vf scales[4 * KEY_VECTORS];
      UNROLL for (size_t v = 0; v < blocks * KEY_VECTORS; v++)
        scales[v] = block_scales(keys.type, keys.elements, keys.d, v * LANES, c);
      score_columns(columns, blocks, keys, rows, c, c + KINDRED_BLOCK / 2, scales, 0, sums);
      score_columns(columns, blocks, keys, rows, c + KINDRED_BLOCK / 2, c + KINDRED_BLOCK, scales, 4, sums);
    }
  } else {
    score_columns(columns, blocks, keys, rows, 0, keys.d, NULL, 0, sums);
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
  size_t block_bytes = cached_bytes(keys.type, keys.d * KINDRED_KEY_BLOCK);
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

INLINE void scores_of(kindred_type type, page keys, query_tile all, float scale) {
  keys.type = type;
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
  page keys = {type, key_page, d, count, next};
  WITH_CACHE_TYPE(type, scores_of, keys, all, scale);
}

static void scores(kindred_type type, const float *q, size_t q_stride, size_t m, size_t d,
                   const void *key_page, size_t count, float scale, float *s) {
  scores_ahead(type, q, q_stride, m, d, key_page, count, scale, s, key_page);
}

// MARK: Accumulation

enum {
  /// Vectors of a block's columns, and blocks of a tile's.
  BLOCK_VECTORS = KINDRED_BLOCK / LANES,
  VALUE_BLOCKS = (VALUE_VECTORS + BLOCK_VECTORS - 1) / BLOCK_VECTORS,
};

/// Adds the values at the positions `begin`..<`end` to `vectors` vectors of columns of a tile of queries. Of values in
/// blocks these are positions whose blocks lie together, with their scales, and the columns begin `offset` columns into
/// a block.
INLINE void accumulate_positions(size_t columns, size_t vectors, page values, const float **rows, size_t first,
                                 size_t begin, size_t end, float scales[][KINDRED_KEY_BLOCK], size_t offset,
                                 vf sums[][VALUE_VECTORS]) {
  for (size_t j = begin; j < end; j++) {
    vf value[VALUE_VECTORS];
    UNROLL for (size_t v = 0; v < vectors; v++) {
      const size_t c = first + v * LANES;
      if (is_blocks(values.type)) {
        const uint8_t *blocks = blocks_at(values.type, values.elements, values.d, begin, c);
        const uint8_t *quants = value_quant(values.type, blocks, j - begin, c);
        value[v] = (vf)scales[v / BLOCK_VECTORS][j - begin] *
                   cached_quants(values.type, quants, quant_shift(values.type, offset + v * LANES));
      } else {
        value[v] = widen(values.type, values.elements, j * values.d + c);
      }
      fetch(values, j * values.d + c);
    }
    UNROLL for (size_t i = 0; i < columns; i++) {
      UNROLL for (size_t v = 0; v < vectors; v++) sums[i][v] = fused((vf)rows[i][j], value[v], sums[i][v]);
    }
  }
}

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
  if (is_blocks(values.type)) {
    for (size_t j = 0; j < values.count; j += KINDRED_KEY_BLOCK) {
      float scales[VALUE_BLOCKS][KINDRED_KEY_BLOCK];
      const size_t end = smaller(j + KINDRED_KEY_BLOCK, values.count), half = KINDRED_BLOCK / 2;
      UNROLL for (size_t v = 0; v < vectors; v += BLOCK_VECTORS) {
        UNROLL for (size_t i = 0; i < KINDRED_KEY_BLOCK; i += LANES) {
          vf part = block_scales(values.type, values.elements, values.d, j + i, first + v * LANES);
          store(&scales[v / BLOCK_VECTORS][i], part);
        }
      }
      // A constant offset makes shifts constant.
      if (first % KINDRED_BLOCK == 0)
        accumulate_positions(columns, vectors, values, rows, first, j, end, scales, 0, sums);
      else
        accumulate_positions(columns, vectors, values, rows, first, j, end, scales, half, sums);
    }
  } else {
    accumulate_positions(columns, vectors, values, rows, first, 0, values.count, NULL, 0, sums);
  }
  UNROLL for (size_t i = 0; i < columns; i++) {
    if (i < t.count) {
      UNROLL for (size_t v = 0; v < vectors; v++)
        store(t.out + i * t.out_stride + first + v * LANES, sums[i][v]);
    }
  }
}

/// One output, for the columns that fill no vector, of which blocks leave none.
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

INLINE void accumulate_of(kindred_type type, page values, query_tile all) {
  values.type = type;
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
  page values = {type, value_page, d, count, next};
  WITH_CACHE_TYPE(type, accumulate_of, values, all);
}

static void accumulate(kindred_type type, const float *p, size_t m, const void *value_page, size_t count,
                       size_t d, float *o, size_t o_stride) {
  accumulate_ahead(type, p, m, value_page, count, d, o, o_stride, value_page);
}

#endif
