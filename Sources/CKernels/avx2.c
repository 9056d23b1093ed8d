// The kernels for AVX2 with FMA and F16C: x86-64 since 2013.
#if defined(__x86_64__)
#include <immintrin.h>

#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)

enum {
  LANES = 8,
  TILE_HALVES = 1,
  DENSE_COLUMNS = 6,
  KEY_BLOCKS = 1,
  VALUE_VECTORS = 2,
  SIGNED_BYTES = 1,
  FEW_REGISTERS = 1,
};

#include "vector.h"

// `vpmaddubsw` sums pairs into 16 bits with saturation: with activations up to 127, so many steps fit without
// any.
typedef vwords partial;
INLINE size_t run_length(int bits) { return bits <= 4 ? 8 : bits == 5 ? 4 : bits == 6 ? 2 : 1; }
INLINE partial begin(vi sums) { return (void)sums, (partial)0; }
INLINE vi finish(vi sums, partial p) {
  return sums + (vi)_mm256_madd_epi16((__m256i)p, _mm256_set1_epi16(1));
}
INLINE partial dot(int bits, partial p, vbytes weights, vi quads) {
  __m256i w = (__m256i)weights, a = (__m256i)quads;
  // 8-bit weights are signed here; their sign moves to the activations.
  if (bits == 8) return p + (partial)_mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(a, w));
  return p + (partial)_mm256_maddubs_epi16(w, a);
}

#include "vector_attention.h"
#include "vector_multiply.h"
#include "vector_rows.h"
#include "attention_pages.h"

const kindred_kernels kindred_avx2 = VECTOR_KERNELS(KINDRED_ISA_AVX2);

#pragma clang attribute pop
#endif
