// The packed layout of weights, one for all instruction sets.
//
// A panel holds 32 weight rows, in two halves of 16. A *vector* is 64 bytes: 16 rows × 4 consecutive columns
// of one half, row-major, one byte each; that is one zmm, and the unsigned operand of `vpdpbusd`. A *block*
// is 32 columns, 8 vectors of quants per half, numbered t = 0…7.
//
// Quants are stored as bit planes, as many bits as in GGUF: a low plane of 2, 4 or 8 bits and, for 3, 5 and 6
// bits, a high plane of 1 or 2. A plane of b bits takes b vectors per block and half; vector t's bits lie in
// its vector t mod b, shifted left by b · (t div b). Quants are unsigned: signed formats carry an offset.
//
//   weight = scale · (quant − offset) + minimum
//
// Formats of 32 columns per GGUF block (`super` false):
//   panel = blocks × [half 0: low plane, high plane][half 1: …][32 × f16 scale]([32 × f16 minimum])
// K-quants (`super` true), superblocks of 256 columns:
//   panel = superblocks × [32 × f16 d]([32 × f16 dmin]) 8 × [half 0: low plane, high plane][half 1: …][64 bytes]
//   scale = d · s, minimum = −dmin · m, both exact in float; the 64 bytes hold
//     Q4_K, Q5_K: 32 × s, 32 × m, one each per 32 columns
//     Q3_K, Q6_K: 32 × s for columns 0…15, 32 × s for columns 16…31, signed
//     Q2_K: 32 × (s | m << 4) for columns 0…15, the same for columns 16…31
//
// Every part is a multiple of 64 bytes. Q6_K, Q2_K and the formats of 32 take GGUF's bytes exactly; Q4_K
// 2.8%, Q5_K 2.3% and Q3_K 3.6% more, for scales of 6 bits widened to 8.
//
// Dense panels (F32, F16, BF16): [columns][32 rows] in the stored type.
#ifndef KINDRED_PANELS_H
#define KINDRED_PANELS_H

#include "CKindredKernels.h"

enum {
  KINDRED_HALF_ROWS = 16,
  /// Bytes of one vector, and of 32 f16.
  KINDRED_VECTOR_BYTES = 64,
  /// Columns of one block.
  KINDRED_BLOCK = 32,
  /// Vectors of quants per block and half.
  KINDRED_BLOCK_VECTORS = 8,
  /// Blocks of a superblock, and of the chunks in which kernels work.
  KINDRED_CHUNK_BLOCKS = 8,
};

typedef struct {
  uint8_t low_bits, high_bits;
  uint8_t offset;
  /// Columns that share a scale: 16 or 32.
  uint8_t scale_columns;
  bool super;
  bool minimum;
} kindred_format;

/// The format of a quantised type; `low_bits` is 0 for a dense or unknown one.
static inline __attribute__((always_inline)) kindred_format kindred_format_of(kindred_type type) {
  switch (type) {
  case KINDRED_Q4_0: return (kindred_format){4, 0, 8, 32, false, false};
  case KINDRED_Q4_1: return (kindred_format){4, 0, 0, 32, false, true};
  case KINDRED_Q5_0: return (kindred_format){4, 1, 16, 32, false, false};
  case KINDRED_Q5_1: return (kindred_format){4, 1, 0, 32, false, true};
  case KINDRED_Q8_0: return (kindred_format){8, 0, 128, 32, false, false};
  case KINDRED_Q2_K: return (kindred_format){2, 0, 0, 16, true, true};
  case KINDRED_Q3_K: return (kindred_format){2, 1, 4, 16, true, false};
  case KINDRED_Q4_K: return (kindred_format){4, 0, 0, 32, true, true};
  case KINDRED_Q5_K: return (kindred_format){4, 1, 0, 32, true, true};
  case KINDRED_Q6_K: return (kindred_format){4, 2, 32, 16, true, false};
  default: return (kindred_format){0, 0, 0, 0, false, false};
  }
}

/// The cases of a switch over quantised types: each calls `function(format, ...)` with a constant format.
#define FOR_EACH_FORMAT(function, ...) \
  case KINDRED_Q4_0: function(kindred_format_of(KINDRED_Q4_0), __VA_ARGS__); break; \
  case KINDRED_Q4_1: function(kindred_format_of(KINDRED_Q4_1), __VA_ARGS__); break; \
  case KINDRED_Q5_0: function(kindred_format_of(KINDRED_Q5_0), __VA_ARGS__); break; \
  case KINDRED_Q5_1: function(kindred_format_of(KINDRED_Q5_1), __VA_ARGS__); break; \
  case KINDRED_Q8_0: function(kindred_format_of(KINDRED_Q8_0), __VA_ARGS__); break; \
  case KINDRED_Q2_K: function(kindred_format_of(KINDRED_Q2_K), __VA_ARGS__); break; \
  case KINDRED_Q3_K: function(kindred_format_of(KINDRED_Q3_K), __VA_ARGS__); break; \
  case KINDRED_Q4_K: function(kindred_format_of(KINDRED_Q4_K), __VA_ARGS__); break; \
  case KINDRED_Q5_K: function(kindred_format_of(KINDRED_Q5_K), __VA_ARGS__); break; \
  case KINDRED_Q6_K: function(kindred_format_of(KINDRED_Q6_K), __VA_ARGS__); break

/// Bytes of one half's planes in one block.
static inline __attribute__((always_inline)) size_t kindred_half_bytes(kindred_format f) {
  return (size_t)(f.low_bits + f.high_bits) * KINDRED_VECTOR_BYTES;
}

/// Bytes of one block: both halves and the scales that follow them.
static inline __attribute__((always_inline)) size_t kindred_block_bytes(kindred_format f) {
  return 2 * kindred_half_bytes(f) + (!f.super && f.minimum ? 2 : 1) * KINDRED_VECTOR_BYTES;
}

/// Bytes of d and dmin before each superblock.
static inline __attribute__((always_inline)) size_t kindred_header_bytes(kindred_format f) {
  return f.super ? (f.minimum ? 2 : 1) * KINDRED_VECTOR_BYTES : 0;
}

#endif
