// Products of activations with dense weights (F32, F16, BF16), for every instruction set (see vector.h).
//
// Panels are [columns][32 rows]. Each output is one chain of fused multiply-adds over the columns, in float,
// whatever the tile. With few activation rows a tile takes several streams of weight rows, to keep enough
// sums in flight.
#ifndef KINDRED_VECTOR_DENSE_H
#define KINDRED_VECTOR_DENSE_H

#include "vector.h"

enum {
  DENSE_WEIGHTS = TILE_HALVES * KINDRED_HALF_ROWS,
  DENSE_VECTORS = DENSE_WEIGHTS / LANES,
  MOST_STREAMS = 4,
};

/// A tile of activation rows from `first` and of `streams` runs of weight rows from `row`, written to the
/// output.
INLINE void dense_tile(size_t columns, kindred_type type, size_t streams, const product *p, size_t row,
                       size_t first) {
  const size_t count = smaller(columns, p->a_rows - first);
  vf totals[DENSE_COLUMNS][MOST_STREAMS * DENSE_VECTORS];
  const float *values[DENSE_COLUMNS];
  const uint8_t *weights[MOST_STREAMS];
  const size_t element_bytes = type == KINDRED_F32 ? 4 : 2;
  UNROLL for (size_t s = 0; s < streams; s++) {
    size_t start = row + s * DENSE_WEIGHTS;
    weights[s] = p->panels + start / KINDRED_PANEL_ROWS * kindred_panel_bytes(type, p->a->columns) +
                 start % KINDRED_PANEL_ROWS * element_bytes;
  }
  UNROLL for (size_t i = 0; i < columns; i++) {
    values[i] = p->a->values + (first + (i < count ? i : 0)) * p->a->columns;
    UNROLL for (size_t v = 0; v < streams * DENSE_VECTORS; v++) totals[i][v] = 0;
  }
  for (size_t k = 0; k < p->a->columns; k++) {
    UNROLL for (size_t v = 0; v < streams * DENSE_VECTORS; v++) {
      size_t element = k * KINDRED_PANEL_ROWS + v % DENSE_VECTORS * LANES;
      vf weight = widen(type, weights[v / DENSE_VECTORS], element);
      UNROLL for (size_t i = 0; i < columns; i++)
        totals[i][v] = fused((vf)values[i][k], weight, totals[i][v]);
    }
  }
  UNROLL for (size_t i = 0; i < columns; i++) {
    if (i < count) {
      UNROLL for (size_t v = 0; v < streams * DENSE_VECTORS; v++)
        write_out(p, first + i, row + v * LANES, totals[i][v]);
    }
  }
}

/// All activation rows with the DENSE_WEIGHTS weight rows from `row`.
INLINE void dense_rows(kindred_type type, const product *p, size_t row) {
  size_t first = 0;
  for (; p->a_rows - first >= DENSE_COLUMNS; first += DENSE_COLUMNS)
    dense_tile(DENSE_COLUMNS, type, 1, p, row, first);
  for (; first < p->a_rows; first += LARGEST_TILE)
    WITH_TILE(p->a_rows - first, dense_tile, type, 1, p, row, first);
}

INLINE void multiply_dense(kindred_type type, const product *p) {
  size_t row = p->panel_begin * KINDRED_PANEL_ROWS, end = p->panel_end * KINDRED_PANEL_ROWS;
  if (p->a_rows == 1)
    for (; end - row >= 4 * DENSE_WEIGHTS; row += 4 * DENSE_WEIGHTS) dense_tile(1, type, 4, p, row, 0);
  if (p->a_rows == 2)
    for (; end - row >= 2 * DENSE_WEIGHTS; row += 2 * DENSE_WEIGHTS) dense_tile(2, type, 2, p, row, 0);
  for (; row < end; row += DENSE_WEIGHTS) dense_rows(type, p, row);
}

#endif
