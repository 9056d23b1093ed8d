// The products of attention of many rows on AMX tiles, in bf16 (included by avx512.c; see strips_attention.h).
//
// Queries and keys are pairs of bf16, the second of what rounding the first has left: where keys have a large part in
// common, logits are large, and eight bits would move them by more than they differ.
#ifndef KINDRED_TILES_ATTENTION_H
#define KINDRED_TILES_ATTENTION_H

#include "strips_attention.h"
#include "tiles.h"

/// Key tiles are [16 positions][32 columns][rounded, rest][16 pairs of columns][16 positions][2].
static void pack_key_tiles(kindred_type type, const void *page, size_t d, uint16_t *tiles) {
  for (size_t block = 0; block < PAGE_BLOCKS; block++)
    for (size_t c = 0; c < rounded_up(d, KINDRED_BLOCK); c += 2) {
      const size_t slot = block * KINDRED_KEY_BLOCK;
      vf even = c < d ? key_vector(type, page, d, slot, c) : (vf)0;
      vf odd = c + 1 < d ? key_vector(type, page, d, slot, c + 1) : (vf)0;
      vu pairs = (vu)pair_bf16(even, odd);
      _mm512_store_si512(tiles, (__m512i)pairs);
      _mm512_store_si512(tiles + TILE_ELEMENTS, pair_bf16(even - (vf)(pairs << 16), odd - (vf)(pairs & 0xffff0000)));
      tiles += c % KINDRED_BLOCK == KINDRED_BLOCK - 2 ? TILE_ELEMENTS + 2 * LANES : 2 * LANES;
    }
}

static void pack_tile_query(const float *query, size_t d, float factor, size_t row, attention_scratch *x) {
  float scaled[KINDRED_TILE_COLUMNS];
  for (size_t c = 0; c < d; c++) scaled[c] = query[c] * factor;
  pack_tile_row(scaled, 0, d, d, row, x->queries.tiles[0], x->queries.tiles[1]);
}

/// Adds a strip of queries times a step of keys at 32 positions, `next` apart like the strip's two tiles of queries.
INLINE void multiply_keys(const uint16_t *queries, const uint16_t *keys, size_t next) {
  _tile_loadd(4, queries, KINDRED_VECTOR_BYTES);
  _tile_loadd(6, keys, KINDRED_VECTOR_BYTES);
  _tile_loadd(7, keys + 2 * next, KINDRED_VECTOR_BYTES);
  _tile_dpbf16ps(0, 4, 6);
  _tile_dpbf16ps(1, 4, 7);
  _tile_loadd(5, queries + next, KINDRED_VECTOR_BYTES);
  _tile_dpbf16ps(2, 5, 6);
  _tile_dpbf16ps(3, 5, 7);
}

static void tile_logits(attention_scratch *x, size_t first, const uint16_t *keys, size_t columns, size_t steps) {
  const uint16_t *queries = x->queries.tiles[0] + first * columns, *rest = x->queries.tiles[1] + first * columns;
  const size_t next = columns * TILE_ROWS, stride = LOGIT_STRIDE * sizeof(float);
  float *logits = x->strip.logits;
  for (size_t s = 0; s < steps; s++, logits += KINDRED_BLOCK) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (size_t c = 0; c < next; c += TILE_ELEMENTS) {
      const uint16_t *step = keys + s * 4 * next + 2 * c;
      multiply_keys(rest + c, step, next);
      multiply_keys(queries + c, step + TILE_ELEMENTS, next);
      multiply_keys(queries + c, step, next);
    }
    _tile_stored(0, logits, stride);
    _tile_stored(1, logits + LANES, stride);
    _tile_stored(2, logits + TILE_ROWS * LOGIT_STRIDE, stride);
    _tile_stored(3, logits + TILE_ROWS * LOGIT_STRIDE + LANES, stride);
  }
}

static void tile_outputs(const uint16_t *weights, const uint16_t *values, size_t columns, size_t steps,
                          float *outputs) {
  const size_t stride = columns * sizeof *outputs, step_elements = columns * KINDRED_BLOCK;
  float *second = outputs + TILE_ROWS * columns;
  for (size_t c = 0; c < columns; c += 2 * LANES) {
    _tile_loadd(0, outputs + c, stride);
    _tile_loadd(1, outputs + c + LANES, stride);
    _tile_loadd(2, second + c, stride);
    _tile_loadd(3, second + c + LANES, stride);
    for (size_t s = 0; s < steps; s++) {
      const uint16_t *tile = values + s * step_elements + c * KINDRED_BLOCK;
      _tile_loadd(4, weights + s * TILE_ELEMENTS, KINDRED_VECTOR_BYTES);
      _tile_loadd(6, tile, KINDRED_VECTOR_BYTES);
      _tile_loadd(7, tile + TILE_ELEMENTS, KINDRED_VECTOR_BYTES);
      _tile_dpbf16ps(0, 4, 6);
      _tile_dpbf16ps(1, 4, 7);
      _tile_loadd(5, weights + (SPAN_STEPS + s) * TILE_ELEMENTS, KINDRED_VECTOR_BYTES);
      _tile_dpbf16ps(2, 5, 6);
      _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, outputs + c, stride);
    _tile_stored(1, outputs + c + LANES, stride);
    _tile_stored(2, second + c, stride);
    _tile_stored(3, second + c + LANES, stride);
  }
}

static const strip_products TILE_PRODUCTS = {pack_tile_query, tile_logits, tile_outputs};

static void attend_tiles(const kindred_tile_attention *a, void *scratch) {
  configure_tiles();
  attend_strips(TILE_PRODUCTS, a, scratch);
  _tile_release();
}

static void borrow_tiles(const kindred_tile_loan *loan, void *scratch) {
  configure_tiles();
  borrow_strips(TILE_PRODUCTS, loan, scratch);
  _tile_release();
}

#endif
