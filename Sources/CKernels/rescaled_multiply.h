// Products of many rows with quantised weights that were rounded once more, to bytes with one scale for a weight row
// and chunk (see vector_multiply.h, whose tiles and chunks these are).
//
// What keeps `multiply` from the peak of the integer dot product is arithmetic in float: of each block of 32 columns
// the scales of weights, their minimums, and the scales of activations. Here only the last remain:
//   byte = weight / s + 128 rounded, s = the largest |weight| that the chunk's scales allow / 127
//   f = Σ over blocks of (Σ byte · a − 128 · Σ a) · (scale of a), sum = f · s + sum
// again in one order for all tiles.
#ifndef KINDRED_RESCALED_MULTIPLY_H
#define KINDRED_RESCALED_MULTIPLY_H

#include "vector_multiply.h"

_Static_assert(!SIGNED_BYTES, "bytes of weights are the unsigned operand of the dot product");

enum {
  /// What a weight of 0 becomes, and the largest distance from it.
  BYTE_ZERO = 128,
  BYTE_RANGE = 127,
  /// 1 in the fixed point in which quants are rescaled: 8 bits behind the point.
  FIXED_ONE = 256,
};

/// A chunk of up to 8 blocks: bytes [block][vector t][half][64 bytes], and s of each weight row.
typedef struct {
  _Alignas(64) uint8_t bytes[KINDRED_CHUNK_BLOCKS][KINDRED_BLOCK_VECTORS][HALVES][KINDRED_VECTOR_BYTES];
  _Alignas(64) float scales[KINDRED_PANEL_ROWS];
} rescaled_chunk;

/// The weights of quant 0 and of one more each, of each group of columns: weight = minimum + quant · scale.
typedef struct {
  _Alignas(64) float scales[CHUNK_GROUPS][KINDRED_PANEL_ROWS];
  _Alignas(64) float minimums[CHUNK_GROUPS][KINDRED_PANEL_ROWS];
} chunk_lines;

INLINE vf magnitude(vf x) { return __builtin_elementwise_abs(x); }
INLINE vf larger(vf a, vf b) { return __builtin_elementwise_max(a, b); }

/// Fills `lines` and `scales`, and `factors` with what turns weights into bytes in fixed point. A scale that is no number
/// or infinite makes s no number.
INLINE void chunk_ranges(kindred_format f, const panel_chunk *chunk, chunk_lines *lines, float *scales, vf *factors) {
  const float most = (float)((1 << (f.low_bits + f.high_bits)) - 1);
  const size_t groups = groups_of(f);
  vf ranges[PANEL_VECTORS] = {0}, zeros[PANEL_VECTORS] = {0};
  for (size_t b = 0; b < chunk->blocks; b++) {
    const uint8_t *line = chunk->packed + b * kindred_block_bytes(f) + 2 * kindred_half_bytes(f);
    for (size_t g = 0; g < groups; g++) {
      UNROLL for (size_t v = 0; v < PANEL_VECTORS; v++) {
        vf scale, minimum;
        row_scales(f, chunk->header, line, g, v * LANES, &scale, &minimum);
        if (!f.minimum) minimum = scale * -(float)f.offset;
        vf top = fused(scale, (vf)most, minimum);
        ranges[v] = larger(ranges[v], larger(magnitude(minimum), magnitude(top)));
        zeros[v] += top * 0;
        store(&lines->scales[b * groups + g][v * LANES], scale);
        store(&lines->minimums[b * groups + g][v * LANES], minimum);
      }
    }
  }
  UNROLL for (size_t v = 0; v < PANEL_VECTORS; v++) {
    store(scales + v * LANES, ranges[v] / BYTE_RANGE + zeros[v]);
    // No range above 0 is so small that this overflows: scales are multiples of the smallest F16.
    factors[v] = zeros[v] == 0 && ranges[v] > 0 ? BYTE_RANGE * FIXED_ONE / ranges[v] : 0;
  }
}

/// x · factor to the nearest integer; 0 where the factor is 0, whatever x is.
INLINE vi fixed_point(vf x, vf factor) {
  vf scaled = factor > 0 ? x * factor : 0;
  return __builtin_convertvector(scaled + __builtin_elementwise_copysign((vf)0.5f, scaled), vi);
}

/// A number of 16 bits in both halves of each lane.
INLINE vwords in_halves(vi x) { return (vwords)(x | x << 16); }

/// start + quant · step of each quant, in fixed point, without what is behind the point.
INLINE vbytes rescaled(vbytes quants, vwords step, vwords start) {
  vwords even = (vwords)quants & 0xff, odd = (vwords)quants >> 8;
  return (vbytes)((even * step + start) >> 8 | ((odd * step + start) & 0xff00));
}

INLINE void rescale_chunk(kindred_format f, const panel_chunk *chunk, rescaled_chunk *u) {
  const size_t groups = groups_of(f);
  chunk_lines lines;
  vf factors[PANEL_VECTORS];
  chunk_ranges(f, chunk, &lines, u->scales, factors);
  for (size_t b = 0; b < chunk->blocks; b++) {
    UNROLL for (size_t v = 0; v < PANEL_VECTORS; v++) {
      size_t half = v / HALF_VECTORS, byte = v % HALF_VECTORS * VECTOR_BYTES;
      const uint8_t *quants = chunk->packed + b * kindred_block_bytes(f) + half * kindred_half_bytes(f);
      vwords steps[BLOCK_GROUPS], starts[BLOCK_GROUPS];
      UNROLL for (size_t g = 0; g < groups; g++) {
        vi step = fixed_point(load(&lines.scales[b * groups + g][v * LANES]), factors[v]);
        // The weight 0 of formats with an offset stays exactly 0 where the step is rounded.
        vi start = f.minimum ? fixed_point(load(&lines.minimums[b * groups + g][v * LANES]), factors[v])
                             : step * -f.offset;
        steps[g] = in_halves(step & 0xffff);
        starts[g] = in_halves(start + (BYTE_ZERO * FIXED_ONE + FIXED_ONE / 2) & 0xffff);
      }
      UNROLL for (int t = 0; t < KINDRED_BLOCK_VECTORS; t++) {
        size_t g = (size_t)t * groups / KINDRED_BLOCK_VECTORS;
        vbytes bytes = rescaled(quant_vector(f, quants, t, byte), steps[g], starts[g]);
        __builtin_memcpy(&u->bytes[b][t][half][byte], &bytes, sizeof bytes);
      }
    }
  }
}

/// Adds the product of the tile of rows from `first` of the block with a chunk to the block's sums.
INLINE void multiply_rescaled_tiles(size_t columns, const rescaled_chunk *u, const panel_chunk *chunk,
                                    const row_block *block, size_t first) {
  const tile_rows rows = rows_of_tile(columns, block, first, chunk);
  float *sums = block->sums + first * KINDRED_PANEL_ROWS;
  for (size_t part = 0; part < HALVES; part += TILE_HALVES, sums += TILE_WEIGHTS) {
    vf totals[LARGEST_TILE][TILE_VECTORS];
    UNROLL for (size_t i = 0; i < columns; i++) {
      UNROLL for (size_t v = 0; v < TILE_VECTORS; v++) totals[i][v] = (vf)0;
    }
    for (size_t b = 0; b < chunk->blocks; b++) {
      if (columns == LARGEST_TILE && b < LARGEST_TILE && part == 0) fetch_next(&rows, b, sums);
      vi dots[LARGEST_TILE][TILE_VECTORS];
      UNROLL for (size_t i = 0; i < columns; i++) {
        UNROLL for (size_t v = 0; v < TILE_VECTORS; v++) dots[i][v] = (vi)(rows.blocks[i][b].sum * -BYTE_ZERO);
      }
      UNROLL for (size_t t = 0; t < KINDRED_BLOCK_VECTORS; t++) {
        vbytes weights[TILE_VECTORS];
        UNROLL for (size_t v = 0; v < TILE_VECTORS; v++)
          weights[v] = load_bytes(&u->bytes[b][t][part + v / HALF_VECTORS][v % HALF_VECTORS * VECTOR_BYTES]);
        UNROLL for (size_t i = 0; i < columns; i++) {
          vi quads = quad(rows.quants[i] + b * KINDRED_BLOCK + 4 * t);
          UNROLL for (size_t v = 0; v < TILE_VECTORS; v++) dots[i][v] = dot(8, dots[i][v], weights[v], quads);
        }
      }
      UNROLL for (size_t i = 0; i < columns; i++) {
        UNROLL for (size_t v = 0; v < TILE_VECTORS; v++)
          totals[i][v] = fused(__builtin_convertvector(dots[i][v], vf), (vf)rows.blocks[i][b].scale, totals[i][v]);
      }
    }
    UNROLL for (size_t i = 0; i < columns; i++) {
      if (i < rows.count) {
        float *row = sums + i * KINDRED_PANEL_ROWS;
        UNROLL for (size_t v = 0; v < TILE_VECTORS; v++) {
          vf scale = load(u->scales + part * KINDRED_HALF_ROWS + v * LANES);
          store(row + v * LANES, fused(totals[i][v], scale, load(row + v * LANES)));
        }
      }
    }
  }
}

INLINE void multiply_rescaled_panel_as(kindred_format f, const uint8_t *panel, const row_block *block) {
  rescaled_chunk rescaled;
  size_t blocks = block->a->columns / KINDRED_BLOCK;
  for (size_t first_block = 0; first_block < blocks; first_block += KINDRED_CHUNK_BLOCKS) {
    const panel_chunk chunk = chunk_at(f, panel, first_block, blocks);
    panel = chunk_end(f, &chunk);
    rescale_chunk(f, &chunk, &rescaled);
    fetch_lines(panel, (size_t)(panel - chunk.header));
    for (size_t row = 0; row < block->rows; row += LARGEST_TILE)
      WITH_TILE(block->rows - row, multiply_rescaled_tiles, &rescaled, &chunk, block, row);
  }
}

static void multiply_rescaled_panel(kindred_type type, const uint8_t *panel, const row_block *block) {
  switch (type) {
    FOR_EACH_FORMAT(multiply_rescaled_panel_as, panel, block);
  default: break;
  }
}

static void multiply_rescaled(kindred_type type, const void *panels, size_t panel_begin, size_t panel_end, size_t rows,
                              const kindred_activations *a, size_t a_rows, const float *bias, bool accumulate,
                              float *out, size_t out_stride) {
  product p = {panels, panel_begin, panel_end, rows, a, a_rows, bias, accumulate, out, out_stride};
  multiply_panels(multiply_rescaled_panel, type, &p);
}

#endif
