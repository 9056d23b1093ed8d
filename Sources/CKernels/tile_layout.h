// How bf16 lies in matrix tiles and in the operands of dot products of pairs (see vector.h).
#ifndef KINDRED_TILE_LAYOUT_H
#define KINDRED_TILE_LAYOUT_H

#include "vector.h"

enum {
  TILE_ROWS = KINDRED_TILE_ROWS,
  /// Elements of a tile of bf16: 16 rows × 32 columns.
  TILE_ELEMENTS = TILE_ROWS * KINDRED_BLOCK,
};

/// The bf16 pairs (even[i], odd[i]) of 16 lanes.
INLINE __m512i pair_bf16(vf even, vf odd) {
  const __m512i interleave = _mm512_set_epi16(
      31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8,
      23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  __m512i both = (__m512i)_mm512_cvtne2ps_pbh((__m512)odd, (__m512)even);
  return _mm512_permutexvar_epi16(interleave, both);
}

#endif
