// The kernels for AArch64 with NEON and its dot product: Armv8.2 and later, all Apple silicon.
#if defined(__aarch64__)
#include <arm_neon.h>

#pragma clang attribute push(__attribute__((target("dotprod"))), apply_to = function)

enum {
  LANES = 4,
  TILE_HALVES = 1,
  DENSE_COLUMNS = 6,
  KEY_BLOCKS = 1,
  VALUE_VECTORS = 4,
  SIGNED_BYTES = 1,
  FEW_REGISTERS = 0,
};

#include "vector.h"

// `sdot` sums straight into 32 bits; quants of less than 8 bits are the same signed or unsigned.
typedef vi partial;
INLINE size_t run_length(int bits) { return (void)bits, KINDRED_BLOCK_VECTORS; }
INLINE partial begin(vi sums) { return sums; }
INLINE vi finish(vi sums, partial p) { return (void)sums, p; }
INLINE partial dot(int bits, partial p, vbytes weights, vi quads) {
  (void)bits;
  return (vi)vdotq_s32((int32x4_t)p, (int8x16_t)weights, (int8x16_t)quads);
}

#include "vector_attention.h"
#include "vector_multiply.h"
#include "vector_rows.h"
#include "attention_pages.h"

const kindred_kernels kindred_neon = VECTOR_KERNELS(KINDRED_ISA_NEON);

#pragma clang attribute pop
#endif
