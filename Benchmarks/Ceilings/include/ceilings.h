// What a machine can do at most: loops of nothing but one kind of instruction, and reads of nothing but memory, timed by
// the wall clock on all threads together.
#ifndef KINDRED_CEILINGS_H
#define KINDRED_CEILINGS_H

#include <stddef.h>

/// Instructions whose peak can be measured.
typedef enum {
  CEILING_FMA_256,     // AVX2: float
  CEILING_MADD_256,    // AVX2: int8, `vpmaddubsw`, `vpmaddwd`, `vpaddd`
  CEILING_BF16_512,    // AVX-512: `vdpbf16ps`
  CEILING_VNNI_512,    // AVX-512: int8, `vpdpbusd`
  CEILING_TILE_BF16,   // AMX: `tdpbf16ps`
  CEILING_TILE_INT8,   // AMX: `tdpbusd`
  CEILING_FMLA_128,    // NEON: float
  CEILING_DOT_128,     // NEON: int8, `sdot`
} ceiling;

/// Additions and multiplications per second; 0 where the machine or this build lacks the instructions.
double ceiling_operations(ceiling kind, size_t threads);

/// Bytes read per second from `bytes` of memory, which should be more than the caches hold; 0 where memory lacks.
double ceiling_read(size_t bytes, size_t threads);

#endif
