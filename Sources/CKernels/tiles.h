// Products of many rows on AMX tiles, in bf16 (included by avx512.c; see vector.h and panels.h).
//
// A tile is 16 rows of 64 bytes; one `tdpbf16ps` adds the product of 16 activation rows × 32 columns with
// 32 columns × 16 weight rows to 16 × 16 float sums, in one order whatever surrounds it. Weights of a panel are
// turned to bf16 once for a chunk of CHUNK_STEPS × 32 columns, which stays in the first-level cache while all
// activation rows pass; a group of panels shares a chunk of activations in the second-level cache.
//
// Activations and weights are rounded to bf16 (relative error at most 2^-9), sums are float. `rest` tiles, where given,
// carry what rounding left of the activations.
#ifndef KINDRED_TILES_H
#define KINDRED_TILES_H

#include "tile_layout.h"
#include "vector_multiply.h"

enum {
  /// Blocks of 32 columns that are turned to bf16 together: 32 KB for a panel.
  CHUNK_STEPS = 16,
  /// Panels that pass over a chunk of activations together, and activation rows that do: their sums are scratch.
  GROUP_PANELS = 8,
  GROUP_ROWS = 512,
};

/// What one call of `multiply_tiles` works in.
typedef struct {
  /// Weights of one chunk of a panel: [step][half][16 pairs of columns][16 rows][2].
  _Alignas(64) uint16_t weights[CHUNK_STEPS * HALVES * TILE_ELEMENTS];
  /// Sums: [panel][activation row][32].
  _Alignas(64) float sums[GROUP_PANELS][GROUP_ROWS * KINDRED_PANEL_ROWS];
} tile_scratch;

_Static_assert(sizeof(tile_scratch) <= KINDRED_TILE_SCRATCH_BYTES, "scratch is too small");

typedef struct {
  uint8_t palette, start_row, reserved[14];
  uint16_t row_bytes[16];
  uint8_t rows[16];
} tile_configuration;

/// All eight tiles at 16 rows of 64 bytes.
static void configure_tiles(void) {
  tile_configuration c = {.palette = 1};
  for (int i = 0; i < 8; i++) {
    c.row_bytes[i] = KINDRED_VECTOR_BYTES;
    c.rows[i] = TILE_ROWS;
  }
  _tile_loadconfig(&c);
}

// MARK: Packing

static void pack_tile_row(const float *x, size_t first, size_t count, size_t columns, size_t row, uint16_t *tiles,
                          uint16_t *rest) {
  const size_t steps = (columns + KINDRED_BLOCK - 1) / KINDRED_BLOCK;
  size_t at = (row / TILE_ROWS * steps + first / KINDRED_BLOCK) * TILE_ELEMENTS + row % TILE_ROWS * KINDRED_BLOCK;
  for (size_t k = 0; k < count; k += KINDRED_BLOCK, at += TILE_ELEMENTS) {
    float values[KINDRED_BLOCK] = {0};
    const float *source = x + k;
    if (count - k < KINDRED_BLOCK) {
      __builtin_memcpy(values, x + k, (count - k) * sizeof *x);
      source = values;
    }
    vf low = load(source), high = load(source + LANES);
    __m512i rounded = (__m512i)_mm512_cvtne2ps_pbh((__m512)high, (__m512)low);
    _mm512_storeu_si512(tiles + at, rounded);
    if (rest == NULL) continue;
    low -= widen_bf16(tiles + at);
    high -= widen_bf16(tiles + at + LANES);
    _mm512_storeu_si512(rest + at, (__m512i)_mm512_cvtne2ps_pbh((__m512)high, (__m512)low));
  }
}

/// Quants of one half of a block as bf16 tile: each byte becomes the mantissa of 1 + quant / 256, which one
/// multiply-add turns into the weight with a rounding error of 2^-16 of its scale.
INLINE void dequantize_half(kindred_format f, const uint8_t *half, const vf *scales, const vf *minimums,
                            uint16_t *tile) {
  const size_t steps = KINDRED_BLOCK_VECTORS / groups_of(f);
  UNROLL for (size_t g = 0; g < groups_of(f); g++) {
    vf factor = scales[g] * 256, start = minimums[g] - scales[g] * (float)(256 + f.offset);
    UNROLL for (size_t t = g * steps; t < (g + 1) * steps; t++) {
      vu quads = (vu)quant_vector(f, half, (int)t, 0);
      vf weights[4];
      UNROLL for (int j = 0; j < 4; j++) {
        vu moved = j < 2 ? quads << (15 - 8 * j) : quads >> (8 * j - 15);
        weights[j] = fused((vf)((moved & 0x7f8000) | 0x3f800000), factor, start);
      }
      _mm512_store_si512(tile + (2 * t) * 2 * LANES, pair_bf16(weights[0], weights[1]));
      _mm512_store_si512(tile + (2 * t + 1) * 2 * LANES, pair_bf16(weights[2], weights[3]));
    }
  }
}

/// `steps` blocks of a panel from `first` on.
INLINE void dequantize_chunk(kindred_format f, const uint8_t *panel, size_t first, size_t steps, uint16_t *tiles) {
  const size_t block_bytes = kindred_block_bytes(f), header_bytes = kindred_header_bytes(f);
  for (size_t b = first; b < first + steps; b++) {
    const uint8_t *header = panel + b / KINDRED_CHUNK_BLOCKS * (KINDRED_CHUNK_BLOCKS * block_bytes + header_bytes);
    const uint8_t *block = header + header_bytes + b % KINDRED_CHUNK_BLOCKS * block_bytes;
    UNROLL for (size_t i = 0; i < 2 * kindred_half_bytes(f); i += KINDRED_VECTOR_BYTES)
      __builtin_prefetch(block + 4 * block_bytes + i);
    UNROLL for (size_t h = 0; h < HALVES; h++, tiles += TILE_ELEMENTS) {
      vf scales[BLOCK_GROUPS], minimums[BLOCK_GROUPS];
      UNROLL for (size_t g = 0; g < groups_of(f); g++)
        row_scales(f, header, block + 2 * kindred_half_bytes(f), g, h * KINDRED_HALF_ROWS, &scales[g], &minimums[g]);
      dequantize_half(f, block + h * kindred_half_bytes(f), scales, minimums, tiles);
    }
  }
}

/// Columns `32 · first`… of a dense bf16 panel, [columns][32 rows], as tiles; past `columns` zero.
static void pair_chunk(const uint8_t *panel, size_t columns, size_t first, size_t steps, uint16_t *tiles) {
  const uint16_t *source = (const uint16_t *)panel;
  for (size_t step = first; step < first + steps; step++)
    for (size_t h = 0; h < HALVES; h++, tiles += TILE_ELEMENTS)
      for (size_t k = step * KINDRED_BLOCK; k < (step + 1) * KINDRED_BLOCK; k += 2) {
        vshort even = 0, odd = 0;
        const uint16_t *column = source + k * KINDRED_PANEL_ROWS + h * KINDRED_HALF_ROWS;
        if (k < columns) __builtin_memcpy(&even, column, sizeof even);
        if (k + 1 < columns) __builtin_memcpy(&odd, column + KINDRED_PANEL_ROWS, sizeof odd);
        vu pairs = __builtin_convertvector(even, vu) | __builtin_convertvector(odd, vu) << 16;
        _mm512_store_si512(tiles + k % KINDRED_BLOCK * LANES, (__m512i)pairs);
      }
}

static void unpack_tiles(kindred_type type, const uint8_t *panel, size_t columns, size_t first, size_t steps,
                         uint16_t *tiles) {
  switch (type) {
    FOR_EACH_FORMAT(dequantize_chunk, panel, first, steps, tiles);
  case KINDRED_BF16: pair_chunk(panel, columns, first, steps, tiles); break;
  default: break;
  }
}

// MARK: Products

/// Adds `steps` blocks of columns of 16 or 32 activation rows to sums [rows][32]. `next` is how far apart the
/// second 16 rows' tiles lie. Activations pass by the first-level cache, where the weights are to stay.
INLINE void multiply_steps(bool two, const uint16_t *a, size_t next, const uint16_t *weights, size_t steps) {
  for (size_t s = 0; s < steps; s++, a += TILE_ELEMENTS, weights += HALVES * TILE_ELEMENTS) {
    _tile_stream_loadd(4, a, KINDRED_VECTOR_BYTES);
    _tile_loadd(6, weights, KINDRED_VECTOR_BYTES);
    _tile_loadd(7, weights + TILE_ELEMENTS, KINDRED_VECTOR_BYTES);
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    if (!two) continue;
    _tile_stream_loadd(5, a + next, KINDRED_VECTOR_BYTES);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
}

INLINE void multiply_rows(bool two, const uint16_t *a, const uint16_t *rest, size_t next, const uint16_t *weights,
                          size_t steps, bool begin, float *sums) {
  const size_t stride = KINDRED_PANEL_ROWS * sizeof *sums;
  float *second = sums + TILE_ROWS * KINDRED_PANEL_ROWS;
  if (begin) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  } else {
    _tile_loadd(0, sums, stride);
    _tile_loadd(1, sums + LANES, stride);
    if (two) {
      _tile_loadd(2, second, stride);
      _tile_loadd(3, second + LANES, stride);
    }
  }
  multiply_steps(two, a, next, weights, steps);
  if (rest != NULL) multiply_steps(two, rest, next, weights, steps);
  _tile_stored(0, sums, stride);
  _tile_stored(1, sums + LANES, stride);
  if (two) {
    _tile_stored(2, second, stride);
    _tile_stored(3, second + LANES, stride);
  }
}

/// Products of rows `first`… with a group of panels; `p->a` is not used.
static void multiply_group_tiles(kindred_type type, const product *p, const kindred_tiles *a, size_t first,
                                 tile_scratch *scratch) {
  const size_t all_steps = (a->columns + KINDRED_BLOCK - 1) / KINDRED_BLOCK;
  const size_t count = smaller(p->a_rows - first, GROUP_ROWS), next = all_steps * TILE_ELEMENTS;
  const size_t panel_bytes = kindred_panel_bytes(type, a->columns);
  for (size_t step = 0; step < all_steps; step += CHUNK_STEPS) {
    const size_t steps = smaller(CHUNK_STEPS, all_steps - step);
    for (size_t panel = p->panel_begin; panel < p->panel_end; panel++) {
      float *sums = scratch->sums[panel - p->panel_begin];
      unpack_tiles(type, p->panels + panel * panel_bytes, a->columns, step, steps, scratch->weights);
      for (size_t i = 0; i < count; i += 2 * TILE_ROWS) {
        const size_t at = (first + i) / TILE_ROWS * next + step * TILE_ELEMENTS;
        const uint16_t *rest = a->rest == NULL ? NULL : a->rest + at;
        float *block = sums + i * KINDRED_PANEL_ROWS;
        if (i + TILE_ROWS < count)
          multiply_rows(true, a->tiles + at, rest, next, scratch->weights, steps, step == 0, block);
        else multiply_rows(false, a->tiles + at, rest, next, scratch->weights, steps, step == 0, block);
      }
    }
  }
  for (size_t panel = p->panel_begin; panel < p->panel_end; panel++)
    for (size_t i = 0; i < count; i++)
      for (size_t r = 0; r < KINDRED_PANEL_ROWS; r += LANES)
        write_out(p, first + i, panel * KINDRED_PANEL_ROWS + r,
                  load(scratch->sums[panel - p->panel_begin] + i * KINDRED_PANEL_ROWS + r));
}

static void multiply_tiles_of(kindred_type type, const void *panels, size_t panel_begin, size_t panel_end,
                              size_t rows, const kindred_tiles *a, size_t a_rows, const float *bias,
                              bool accumulate, float *out, size_t out_stride, void *scratch) {
  configure_tiles();
  for (size_t panel = panel_begin; panel < panel_end; panel += GROUP_PANELS) {
    product p = {panels, panel,      smaller(panel + GROUP_PANELS, panel_end), rows, NULL, a_rows, bias, accumulate,
                 out,    out_stride};
    for (size_t first = 0; first < a_rows; first += GROUP_ROWS) multiply_group_tiles(type, &p, a, first, scratch);
  }
  _tile_release();
}

#endif
