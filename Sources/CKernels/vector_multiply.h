// Products of activations with packed weights, for every instruction set (see vector.h and panels.h).
//
// One body serves all formats: constant arguments select planes, scales and minimums, and inlining removes
// the rest. A tile is up to 6 activation rows of 8 bits, or 3 of 16, × 16 or 32 weight rows. Up to 3 rows of 16 bits
// (decode) read the panel directly, unpacking in registers at the speed of memory; others unpack a chunk of 256 columns
// once, to scratch in the first-level cache.
//
// Per block of 32 columns, with integer dot products of quants for each group of columns that share a scale (of 16-bit
// activations, 256 times that of their high parts and that of their low parts):
//   f = Σ over groups of dot · scale (+ minimum · Σ quants of a), sum = f · (scale of a) + sum
// in rising order of groups and blocks, one rounding per product and fused sum. Both paths and all tiles run
// this same sequence, which is what makes the result independent of the batch. Offsets of signed formats are
// the integer start of `dot`, −offset · Σ quants of a, so they cost no arithmetic.
//
// The instruction-set file gives the dot product in three steps, so that one without 32-bit accumulation can
// sum run_length(bits) steps in 16 bits first (more where it counts from the middle of their range):
//   partial begin(vi sums);
//   partial dot(int bits, partial sums, vbytes weights, vi quads);
//   vi finish(vi sums, partial p);
#ifndef KINDRED_VECTOR_MULTIPLY_H
#define KINDRED_VECTOR_MULTIPLY_H

#include "vector_dense.h"

enum {
  HALF_VECTORS = KINDRED_HALF_ROWS / LANES,
  TILE_VECTORS = TILE_HALVES * HALF_VECTORS,
  PANEL_VECTORS = KINDRED_PANEL_ROWS / LANES,
  /// Rows of int8 in a 16-bit activation, and 16-bit rows in the largest tile.
  WIDE_PARTS = 2,
  WIDE_TILE = LARGEST_TILE / WIDE_PARTS,
  TILE_WEIGHTS = TILE_HALVES * KINDRED_HALF_ROWS,
  HALVES = KINDRED_PANEL_ROWS / KINDRED_HALF_ROWS,
  /// Groups of 16 columns in a block and in a chunk.
  BLOCK_GROUPS = 2,
  CHUNK_GROUPS = KINDRED_CHUNK_BLOCKS * BLOCK_GROUPS,
  /// Activation rows that share an unpacked chunk: 86 tiles of 6, 66 KB of sums.
  BLOCK_ROWS = 516,
  /// A panel that streams from memory is fetched twice. First into the second-level cache, which takes more fetches at
  /// a time than the first: lines of so many pages of memory by turns, since the processor follows each by itself.
  FETCHED_PAGES = 4,
  MEMORY_PAGE = 4096,
  /// Then from there into the first-level cache, so many bytes ahead of its use.
  FETCH_NEAR = 4096,
};

/// A chunk of up to 8 blocks, unpacked: quants [block][vector t][half][64 bytes], scales [group][32 rows].
typedef struct {
  _Alignas(64) uint8_t quants[KINDRED_CHUNK_BLOCKS][KINDRED_BLOCK_VECTORS][HALVES][KINDRED_VECTOR_BYTES];
  _Alignas(64) float scales[CHUNK_GROUPS][KINDRED_PANEL_ROWS];
  _Alignas(64) float minimums[CHUNK_GROUPS][KINDRED_PANEL_ROWS];
} unpacked_chunk;

/// A product in progress: what all its tiles share.
typedef struct {
  const kindred_activations *a;
  size_t padded;
  /// First of the block's rows, and how many there are.
  size_t first, rows;
  /// Sums so far, [rows][32].
  float *sums;
} row_block;

/// A chunk of a panel to be multiplied: as packed, and, unless tiles read it directly, unpacked.
typedef struct {
  const uint8_t *header, *packed;
  const unpacked_chunk *unpacked;
  /// Blocks in this chunk, and the first one's number in the row.
  size_t blocks, first_block;
  /// Where a tile that reads unpacked weights fetches further ones from memory, `fetched` bytes with each block.
  const uint8_t *further;
  size_t fetched;
} panel_chunk;

/// Groups of columns with one scale in a block.
INLINE size_t groups_of(kindred_format f) { return KINDRED_BLOCK / f.scale_columns; }

// MARK: Unpacking

/// Bits `bits` of vector `t` from a plane, moved up by `up`; `byte` selects a part of the 64.
INLINE vbytes plane_vector(const uint8_t *plane, int bits, int up, int t, size_t byte) {
  vwords x = (vwords)load_bytes(plane + (size_t)(t % bits) * KINDRED_VECTOR_BYTES + byte);
  int down = bits * (t / bits) - up;
  x = down >= 0 ? x >> (uint16_t)down : x << (uint16_t)-down;
  return bits == 8 ? (vbytes)x : (vbytes)x & (uint8_t)(((1 << bits) - 1) << up);
}

/// Vector `t` of a half as bytes for `dot`, starting at `byte` of its 64.
INLINE vbytes quant_vector(kindred_format f, const uint8_t *half, int t, size_t byte) {
  vbytes low = plane_vector(half, f.low_bits, 0, t, byte);
  if (f.low_bits == 8 && SIGNED_BYTES) low ^= 0x80;
  if (f.high_bits == 0) return low;
  const uint8_t *high = half + (size_t)f.low_bits * KINDRED_VECTOR_BYTES;
  return low | plane_vector(high, f.high_bits, f.low_bits, t, byte);
}

INLINE vf widen_bytes(const uint8_t *p, int shift, int mask) {
  vchar x;
  __builtin_memcpy(&x, p, sizeof x);
  vi wide = __builtin_convertvector(x, vi);
  return __builtin_convertvector(mask == 0 ? wide : wide >> shift & mask, vf);
}

/// Scale and minimum of LANES rows from `row`, for group `g` of a block whose scales lie at `line`.
INLINE void row_scales(kindred_format f, const uint8_t *header, const uint8_t *line, size_t g, size_t row,
                       vf *scale, vf *minimum) {
  const uint8_t *first = f.super ? header : line;
  vf d = widen_f16(first + 2 * row);
  vf dmin = f.minimum ? widen_f16(first + KINDRED_VECTOR_BYTES + 2 * row) : (vf)0;
  *scale = d;
  *minimum = dmin;
  if (!f.super) return;
  const uint8_t *near = line + (f.scale_columns == 32 ? 0 : g) * KINDRED_PANEL_ROWS + row;
  bool nibbles = f.scale_columns == 16 && f.minimum;
  *scale = d * widen_bytes(near, 0, nibbles ? 15 : 0);
  if (!f.minimum) return;
  *minimum = -dmin * (nibbles ? widen_bytes(near, 4, 15) : widen_bytes(near + KINDRED_PANEL_ROWS, 0, 0));
}

INLINE void unpack_chunk(kindred_format f, panel_chunk chunk, unpacked_chunk *u) {
  const uint8_t *block = chunk.packed;
  const size_t groups = groups_of(f);
  for (size_t b = 0; b < chunk.blocks; b++, block += kindred_block_bytes(f)) {
    UNROLL for (size_t h = 0; h < HALVES; h++) {
      UNROLL for (int t = 0; t < KINDRED_BLOCK_VECTORS; t++) {
        UNROLL for (size_t byte = 0; byte < KINDRED_VECTOR_BYTES; byte += VECTOR_BYTES) {
          vbytes quants = quant_vector(f, block + h * kindred_half_bytes(f), t, byte);
          __builtin_memcpy(&u->quants[b][t][h][byte], &quants, sizeof quants);
        }
      }
    }
    for (size_t g = 0; g < groups; g++)
      for (size_t row = 0; row < KINDRED_PANEL_ROWS; row += LANES) {
        vf scale, minimum;
        row_scales(f, chunk.header, block + 2 * kindred_half_bytes(f), g, row, &scale, &minimum);
        store(&u->scales[b * groups + g][row], scale);
        if (f.minimum) store(&u->minimums[b * groups + g][row], minimum);
      }
  }
}

// MARK: Tiles

/// What is constant in a tile's code: its activation rows, whether they have 16 bits, the format, whether weights come
/// as packed, and the halves of a panel that the tile takes together.
typedef struct {
  size_t columns;
  bool wide;
  kindred_format format;
  bool direct;
  size_t halves;
} tile_kind;

INLINE size_t vectors_of(tile_kind kind) { return kind.halves * HALF_VECTORS; }

/// The rows of one tile: pointers to their quants and blocks at the chunk's first column.
typedef struct {
  const int8_t *quants[LARGEST_TILE], *low[LARGEST_TILE];
  const kindred_activation_block *blocks[LARGEST_TILE];
  /// Rows that exist; the tile may have more columns, which repeat the first row.
  size_t count;
  /// Quants from a row to the next.
  size_t padded;
} tile_rows;

/// A group of columns in a chunk, for the weight rows from half `half`.
typedef struct {
  size_t block, group, half;
} place;

INLINE vi quad(const int8_t *quants) {
  int32_t x;
  __builtin_memcpy(&x, quants, sizeof x);
  return (vi)x;
}

/// Σ quants of a row over one group.
INLINE int32_t group_sum(tile_kind kind, const kindred_activation_block *block, size_t group) {
  if (kind.format.scale_columns == KINDRED_BLOCK) return block->sum;
  return kind.wide ? block->halves[group] : block->pairs[group][0] + block->pairs[group][1];
}

INLINE int quant_bits(kindred_format f) { return f.low_bits + f.high_bits; }

/// Vectors of quants in a group of columns.
INLINE size_t steps_of(kindred_format f) { return KINDRED_BLOCK_VECTORS / groups_of(f); }

/// What partial sums count quants from: the middle of their range where all steps of a group then fit and else do not,
/// or 0. Of 16-bit activations the sums that this takes are not known.
INLINE int32_t centre_of(tile_kind kind) {
  const int bits = quant_bits(kind.format);
  const size_t steps = steps_of(kind.format);
  return !kind.wide && run_length(bits) < steps && run_length(bits - 1) >= steps ? 1 << (bits - 1) : 0;
}

/// The partial sums of one group, of 16 bits, that count quants from the middle. They are in range when all are added.
INLINE partial begin_centred(tile_kind kind, const kindred_activation_block *block, size_t group) {
  vwords pairs = (vwords)quad((const int8_t *)block->pairs[group]);
  if (kind.format.scale_columns == KINDRED_BLOCK) pairs += (vwords)quad((const int8_t *)block->pairs[group + 1]);
  return (partial)(pairs * (uint16_t)-centre_of(kind));
}

/// Has the compiler compute `p` here. Left to itself it takes each vector of weights through all steps before the next
/// one, and keeps all quads of activations for it in memory.
INLINE void settle(partial *p) {
#if defined(__x86_64__)
  __asm__ volatile("" : "+x"(*p));
#else
  (void)p;
#endif
}

/// Vector `t` of the block at `at`, for each vector of the tile's weight rows.
INLINE void tile_weights(tile_kind kind, const panel_chunk *chunk, place at, size_t t, vbytes *weights) {
  const kindred_format f = kind.format;
  const uint8_t *block = chunk->packed + at.block * kindred_block_bytes(f);
  UNROLL for (size_t v = 0; v < vectors_of(kind); v++) {
    size_t half = at.half + v / HALF_VECTORS, byte = v % HALF_VECTORS * VECTOR_BYTES;
    weights[v] = kind.direct ? quant_vector(f, block + half * kindred_half_bytes(f), (int)t, byte)
                             : load_bytes(&chunk->unpacked->quants[at.block][t][half][byte]);
  }
}

/// Adds the integer dot products of one group to `dots`.
INLINE void dot_group(tile_kind kind, const panel_chunk *chunk, place at, const tile_rows *rows,
                      vi (*dots)[PANEL_VECTORS]) {
  const size_t parts = kind.wide ? WIDE_PARTS : 1;
  const int bits = quant_bits(kind.format);
  const bool centred = centre_of(kind) != 0;
  const size_t steps = steps_of(kind.format), first = at.group * steps;
  const size_t run = smaller(run_length(centred ? bits - 1 : bits), steps);
  // Those of the high parts, and of the low ones or of all.
  vi sums[WIDE_PARTS][LARGEST_TILE][PANEL_VECTORS];
  UNROLL for (size_t i = 0; i < kind.columns; i++) {
    UNROLL for (size_t v = 0; v < vectors_of(kind); v++) {
      sums[parts - 1][i][v] = dots[i][v];
      if (kind.wide) sums[0][i][v] = (vi)0;
    }
  }
  UNROLL for (size_t begun = first; begun < first + steps; begun += run) {
    partial partials[WIDE_PARTS][LARGEST_TILE][PANEL_VECTORS];
    UNROLL for (size_t part = 0; part < parts; part++) {
      UNROLL for (size_t i = 0; i < kind.columns; i++) {
        UNROLL for (size_t v = 0; v < vectors_of(kind); v++)
          partials[part][i][v] =
              centred ? begin_centred(kind, &rows->blocks[i][at.block], at.group) : begin(sums[part][i][v]);
      }
    }
    UNROLL for (size_t t = begun; t < begun + run; t++) {
      vbytes weights[PANEL_VECTORS];
      tile_weights(kind, chunk, at, t, weights);
      UNROLL for (size_t part = 0; part < parts; part++) {
        UNROLL for (size_t i = 0; i < kind.columns; i++) {
          vi quads = quad((part == 0 ? rows->quants : rows->low)[i] + at.block * KINDRED_BLOCK + 4 * t);
          UNROLL for (size_t v = 0; v < vectors_of(kind); v++)
            partials[part][i][v] = dot(bits, partials[part][i][v], weights[v], quads);
        }
      }
      if (FEW_REGISTERS) {
        UNROLL for (size_t part = 0; part < parts; part++) {
          UNROLL for (size_t i = 0; i < kind.columns; i++) {
            UNROLL for (size_t v = 0; v < vectors_of(kind); v++) settle(&partials[part][i][v]);
          }
        }
      }
    }
    UNROLL for (size_t part = 0; part < parts; part++) {
      UNROLL for (size_t i = 0; i < kind.columns; i++) {
        UNROLL for (size_t v = 0; v < vectors_of(kind); v++)
          sums[part][i][v] = finish(sums[part][i][v], partials[part][i][v]);
      }
    }
  }
  UNROLL for (size_t i = 0; i < kind.columns; i++) {
    UNROLL for (size_t v = 0; v < vectors_of(kind); v++)
      dots[i][v] = sums[parts - 1][i][v] + (kind.wide ? sums[0][i][v] * 256 : (vi)0);
  }
}

/// Scales and minimums of the tile's weight rows for one group.
INLINE void group_scales(tile_kind kind, const panel_chunk *chunk, place at, vf *scales, vf *minimums) {
  const kindred_format f = kind.format;
  const uint8_t *line = chunk->packed + at.block * kindred_block_bytes(f) + 2 * kindred_half_bytes(f);
  const size_t group = at.block * groups_of(f) + at.group;
  UNROLL for (size_t v = 0; v < vectors_of(kind); v++) {
    size_t row = at.half * KINDRED_HALF_ROWS + v * LANES;
    if (kind.direct) {
      row_scales(f, chunk->header, line, at.group, row, &scales[v], &minimums[v]);
    } else {
      scales[v] = load(&chunk->unpacked->scales[group][row]);
      minimums[v] = f.minimum ? load(&chunk->unpacked->minimums[group][row]) : (vf)0;
    }
  }
}

/// Adds the product of one group to the sums of its block, which the first group begins.
INLINE void multiply_group(tile_kind kind, const panel_chunk *chunk, place at, const tile_rows *rows,
                           vf (*sums)[PANEL_VECTORS]) {
  const kindred_format f = kind.format;
  const int32_t offset = (f.low_bits == 8 && SIGNED_BYTES ? 0 : f.offset) - centre_of(kind);
  vi dots[LARGEST_TILE][PANEL_VECTORS];
  vf scales[PANEL_VECTORS], minimums[PANEL_VECTORS];
  UNROLL for (size_t i = 0; i < kind.columns; i++) {
    vi start = offset == 0 ? (vi)0 : (vi)group_sum(kind, &rows->blocks[i][at.block], at.group) * -offset;
    UNROLL for (size_t v = 0; v < vectors_of(kind); v++) dots[i][v] = start;
  }
  dot_group(kind, chunk, at, rows, dots);
  group_scales(kind, chunk, at, scales, minimums);
  UNROLL for (size_t i = 0; i < kind.columns; i++) {
    vf sum = (vf)group_sum(kind, &rows->blocks[i][at.block], at.group);
    UNROLL for (size_t v = 0; v < vectors_of(kind); v++) {
      vf dot = __builtin_convertvector(dots[i][v], vf);
      if (at.group == 0) sums[i][v] = f.minimum ? fused(dot, scales[v], minimums[v] * sum) : dot * scales[v];
      else {
        sums[i][v] = fused(dot, scales[v], sums[i][v]);
        if (f.minimum) sums[i][v] = fused(minimums[v], sum, sums[i][v]);
      }
    }
  }
}

/// Adds the product of one block to the tile's sums.
INLINE void multiply_block(tile_kind kind, const panel_chunk *chunk, size_t block, size_t half, const tile_rows *rows,
                           vf (*totals)[PANEL_VECTORS]) {
  vf sums[LARGEST_TILE][PANEL_VECTORS];
  UNROLL for (size_t g = 0; g < groups_of(kind.format); g++)
    multiply_group(kind, chunk, (place){block, g, half}, rows, sums);
  UNROLL for (size_t i = 0; i < kind.columns; i++) {
    UNROLL for (size_t v = 0; v < vectors_of(kind); v++)
      totals[i][v] = fused(sums[i][v], (vf)rows->blocks[i][block].scale, totals[i][v]);
  }
}

INLINE void fetch_lines(const uint8_t *p, size_t bytes) {
  for (size_t i = 0; i < bytes; i += KINDRED_VECTOR_BYTES) __builtin_prefetch(p + i);
}

/// Fetches the lines FETCH_NEAR bytes on, and, for every FETCHED_PAGES lines of a block, and of a header before it, one
/// of each of as many pages after those in which they lie.
INLINE void fetch_ahead(kindred_format f, const panel_chunk *chunk, size_t block) {
  const uintptr_t together = FETCHED_PAGES * MEMORY_PAGE, turn = FETCHED_PAGES * KINDRED_VECTOR_BYTES;
  const uint8_t *packed = chunk->packed + block * kindred_block_bytes(f);
  const uintptr_t start = (uintptr_t)(block == 0 ? chunk->header : packed);
  const uintptr_t end = (uintptr_t)packed + kindred_block_bytes(f);
  UNROLL for (size_t i = 0; i < kindred_block_bytes(f); i += KINDRED_VECTOR_BYTES)
    __builtin_prefetch(packed + i + FETCH_NEAR);
  for (uintptr_t here = (start + turn - 1) / turn * turn; here < end; here += turn) {
    const uint8_t *next = (const uint8_t *)(here / together * together + together + here % together / FETCHED_PAGES);
    UNROLL for (size_t page = 0; page < FETCHED_PAGES; page++) __builtin_prefetch(next + page * MEMORY_PAGE, 0, 2);
  }
}

/// Fetches what the next tile will read of its row `i`: it comes from the second-level cache, where hardware does not
/// foresee the next row.
INLINE void fetch_next(const tile_rows *rows, size_t i, const float *sums) {
  const size_t ahead = LARGEST_TILE * rows->padded;
  const kindred_activation_block *blocks = rows->blocks[i] + ahead / KINDRED_BLOCK;
  UNROLL for (size_t k = 0; k < KINDRED_CHUNK_BLOCKS * KINDRED_BLOCK; k += KINDRED_VECTOR_BYTES)
    __builtin_prefetch(rows->quants[i] + ahead + k);
  __builtin_prefetch(blocks);
  __builtin_prefetch(blocks + KINDRED_CHUNK_BLOCKS / 2);
  __builtin_prefetch(sums + (LARGEST_TILE + i) * KINDRED_PANEL_ROWS);
  __builtin_prefetch(sums + (LARGEST_TILE + i) * KINDRED_PANEL_ROWS + KINDRED_HALF_ROWS);
}

/// Adds the product of a tile of rows with `halves` halves of the weight rows from `half`, over one chunk, to `sums`.
INLINE void multiply_tile(tile_kind kind, const panel_chunk *chunk, size_t half, size_t halves, const tile_rows *rows,
                          float *sums) {
  vf totals[HALVES][LARGEST_TILE][PANEL_VECTORS];
  const size_t parts = halves / kind.halves;
  UNROLL for (size_t part = 0; part < parts; part++) {
    UNROLL for (size_t i = 0; i < kind.columns; i++) {
      const float *row = sums + (i < rows->count ? i : 0) * KINDRED_PANEL_ROWS + part * kind.halves * KINDRED_HALF_ROWS;
      UNROLL for (size_t v = 0; v < vectors_of(kind); v++) totals[part][i][v] = load(row + v * LANES);
    }
  }
  for (size_t b = 0; b < chunk->blocks; b++) {
    if (kind.direct) fetch_ahead(kind.format, chunk, b);
    else fetch_lines(chunk->further + b * chunk->fetched, chunk->fetched);
    if (!kind.direct && kind.columns == LARGEST_TILE && b < LARGEST_TILE && half == 0) fetch_next(rows, b, sums);
    UNROLL for (size_t part = 0; part < parts; part++)
      multiply_block(kind, chunk, b, half + part * kind.halves, rows, totals[part]);
  }
  UNROLL for (size_t part = 0; part < parts; part++) {
    UNROLL for (size_t i = 0; i < kind.columns; i++) {
      if (i < rows->count) {
        float *row = sums + i * KINDRED_PANEL_ROWS + part * kind.halves * KINDRED_HALF_ROWS;
        UNROLL for (size_t v = 0; v < vectors_of(kind); v++) store(row + v * LANES, totals[part][i][v]);
      }
    }
  }
}

/// The tile of `columns` rows from `first` of the block, at a chunk's first column.
INLINE tile_rows rows_of_tile(size_t columns, const row_block *block, size_t first, const panel_chunk *chunk) {
  const kindred_activations *a = block->a;
  tile_rows rows;
  rows.count = smaller(columns, block->rows - first);
  rows.padded = block->padded;
  UNROLL for (size_t i = 0; i < columns; i++) {
    size_t row = block->first + first + (i < rows.count ? i : 0);
    const size_t quant = row * block->padded + chunk->first_block * KINDRED_BLOCK;
    rows.quants[i] = a->quants + quant;
    rows.low[i] = a->low ? a->low + quant : NULL;
    rows.blocks[i] = a->blocks + row * (block->padded / KINDRED_BLOCK) + chunk->first_block;
  }
  return rows;
}

/// The tile of rows from `first` of the block, against all weight rows of a chunk.
INLINE void multiply_tiles(size_t columns, bool wide, kindred_format f, bool direct, const panel_chunk *chunk,
                           const row_block *block, size_t first) {
  // The sums of one row fit registers for all weight rows, which then meet each quad of activations together.
  const tile_kind kind = {columns, wide, f, direct, direct && columns == 1 ? HALVES : TILE_HALVES};
  const tile_rows rows = rows_of_tile(columns, block, first, chunk);
  float *sums = block->sums + first * KINDRED_PANEL_ROWS;
  // What streams from memory is read in the order in which it lies there; otherwise fewer sums fit registers.
  if (direct) return multiply_tile(kind, chunk, 0, HALVES, &rows, sums);
  for (size_t half = 0; half < HALVES; half += TILE_HALVES)
    multiply_tile(kind, chunk, half, TILE_HALVES, &rows, sums + half * KINDRED_HALF_ROWS);
}

// MARK: Panels

/// The chunk of a panel, of `blocks` blocks in all, that begins at `packed` with block `first_block`.
INLINE panel_chunk chunk_at(kindred_format f, const uint8_t *packed, size_t first_block, size_t blocks) {
  return (panel_chunk){
      .header = packed,
      .packed = packed + kindred_header_bytes(f),
      .blocks = smaller(KINDRED_CHUNK_BLOCKS, blocks - first_block),
      .first_block = first_block,
  };
}

INLINE const uint8_t *chunk_end(kindred_format f, const panel_chunk *chunk) {
  return chunk->packed + chunk->blocks * kindred_block_bytes(f);
}

/// All rows of a block with one panel. A call of few rows of 16 bits reads the panel directly, others unpack it first.
INLINE void multiply_panel_as(kindred_format f, const uint8_t *panel, const row_block *block) {
  const bool wide = block->a->low != NULL;
  const size_t tile = wide ? WIDE_TILE : LARGEST_TILE;
  unpacked_chunk unpacked;
  size_t blocks = block->a->columns / KINDRED_BLOCK;
  for (size_t first_block = 0; first_block < blocks; first_block += KINDRED_CHUNK_BLOCKS) {
    panel_chunk chunk = chunk_at(f, panel, first_block, blocks);
    chunk.unpacked = &unpacked;
    panel = chunk_end(f, &chunk);
    if (wide && block->rows <= tile) {
      if (block->rows == 1) multiply_tiles(1, true, f, true, &chunk, block, 0);
      else if (block->rows == 2) multiply_tiles(2, true, f, true, &chunk, block, 0);
      else multiply_tiles(WIDE_TILE, true, f, true, &chunk, block, 0);
      continue;
    }
    unpack_chunk(f, chunk, &unpacked);
    // The tiles share out the chunk after the next.
    const size_t bytes = (size_t)(panel - chunk.header), tiles = (block->rows + tile - 1) / tile;
    const size_t lines = bytes / KINDRED_VECTOR_BYTES, steps = tiles * chunk.blocks;
    chunk.further = panel + bytes;
    chunk.fetched = (lines + steps - 1) / steps * KINDRED_VECTOR_BYTES;
    for (size_t row = 0; row < block->rows; row += tile) {
      if (wide && block->rows - row == 1) multiply_tiles(1, true, f, false, &chunk, block, row);
      else if (wide) multiply_tiles(WIDE_TILE, true, f, false, &chunk, block, row);
      else WITH_TILE(block->rows - row, multiply_tiles, false, f, false, &chunk, block, row);
      chunk.further += chunk.blocks * chunk.fetched;
      if (chunk.further >= panel + 2 * bytes) chunk.fetched = 0;
    }
  }
}

static void multiply_panel(kindred_type type, const uint8_t *panel, const row_block *block) {
  switch (type) {
    FOR_EACH_FORMAT(multiply_panel_as, panel, block);
  default: break;
  }
}

/// The panels of a product with quantised weights, each by `multiply_panel`.
INLINE void multiply_panels(void multiply_panel(kindred_type, const uint8_t *, const row_block *), kindred_type type,
                            const product *p) {
  float sums[BLOCK_ROWS * KINDRED_PANEL_ROWS];
  size_t panel_bytes = kindred_panel_bytes(type, p->a->columns);
  row_block block = {p->a, (p->a->columns + 63) / 64 * 64, 0, 0, sums};
  for (size_t panel = p->panel_begin; panel < p->panel_end; panel++)
    for (block.first = 0; block.first < p->a_rows; block.first += BLOCK_ROWS) {
      block.rows = smaller(BLOCK_ROWS, p->a_rows - block.first);
      __builtin_memset(sums, 0, block.rows * KINDRED_PANEL_ROWS * sizeof *sums);
      multiply_panel(type, p->panels + panel * panel_bytes, &block);
      for (size_t i = 0; i < block.rows; i++)
        for (size_t r = 0; r < KINDRED_PANEL_ROWS; r += LANES)
          write_out(p, block.first + i, panel * KINDRED_PANEL_ROWS + r,
                    load(sums + i * KINDRED_PANEL_ROWS + r));
    }
}

static void multiply(kindred_type type, const void *panels, size_t panel_begin, size_t panel_end,
                     size_t rows, const kindred_activations *a, size_t a_rows, const float *bias,
                     bool accumulate, float *out, size_t out_stride) {
  product p = {panels, panel_begin, panel_end, rows, a, a_rows, bias, accumulate, out, out_stride};
  switch (type) {
  case KINDRED_F32: multiply_dense(KINDRED_F32, &p); break;
  case KINDRED_F16: multiply_dense(KINDRED_F16, &p); break;
  case KINDRED_BF16: multiply_dense(KINDRED_BF16, &p); break;
  default: multiply_panels(multiply_panel, type, &p);
  }
}

#endif
