// The kernels for AVX-512 with F, BW, VL, DQ, VNNI and BF16: AMD since Zen 4, Intel Xeon since Sapphire Rapids.
#if defined(__x86_64__)
#include <immintrin.h>

#pragma clang attribute push( \
    __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512bf16,avx2,fma,f16c"))), \
    apply_to = function)

enum {
  LANES = 16,
  TILE_HALVES = 2,
  DENSE_COLUMNS = 12,
  KEY_BLOCKS = 4,
  VALUE_VECTORS = 4,
  SIGNED_BYTES = 0,
  FEW_REGISTERS = 0,
};

#include "vector.h"

// `vpdpbusd` sums straight into 32 bits.
typedef vi partial;
INLINE size_t run_length(int bits) { return (void)bits, KINDRED_BLOCK_VECTORS; }
INLINE partial begin(vi sums) { return sums; }
INLINE vi finish(vi sums, partial p) { return (void)sums, p; }
INLINE partial dot(int bits, partial p, vbytes weights, vi quads) {
  (void)bits;
  return (vi)_mm512_dpbusd_epi32((__m512i)p, (__m512i)weights, (__m512i)quads);
}

#include "vector_attention.h"
#include "rescaled_multiply.h"
#include "vector_rows.h"
#include "attention_pages.h"
#include "words_attention.h"

const kindred_kernels kindred_avx512 =
    VECTOR_KERNELS(KINDRED_ISA_AVX512, .multiply_rescaled = multiply_rescaled, .pack_key_tiles = pack_key_words,
                   .pack_value_tiles = pack_value_tiles, .attend_tiles = attend_words, .borrow_tiles = borrow_words);

#pragma clang attribute pop

// The same with AMX: Intel servers since 2023.
#pragma clang attribute push(__attribute__((target( \
    "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512bf16,avx2,fma,f16c,amx-tile,amx-bf16"))), apply_to = function)

#include "tiles.h"
#include "tiles_attention.h"

const kindred_kernels kindred_amx =
    VECTOR_KERNELS(KINDRED_ISA_AMX, .pack_tile_row = pack_tile_row, .multiply_tiles = multiply_tiles_of,
                   .pack_key_tiles = pack_key_tiles, .pack_value_tiles = pack_value_tiles,
                   .attend_tiles = attend_tiles, .borrow_tiles = borrow_tiles);

#pragma clang attribute pop
#endif
