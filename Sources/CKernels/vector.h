// What the vector kernels share: vector types of LANES floats, loads and stores, widening and narrowing.
//
// The vector kernels are written once (vector_*.h) in clang's vector types and compiled by each
// instruction-set file under its own target, which clang turns into that set's instructions. Such a file
// defines, before it includes them:
//   LANES          floats in a vector: 16, 8 or 4
//   TILE_HALVES    panel halves (16 rows) in one tile: 1 or 2
//   DENSE_COLUMNS  activation rows in the largest tile of dense products: 6 or 12
//   KEY_BLOCKS     key blocks in a tile of 6 queries: 4, or 1 where registers are few
//   VALUE_VECTORS  vectors of output in a tile of 6 queries
//   SIGNED_BYTES   whether 8-bit quants are turned to signed before the dot product
//   FEW_REGISTERS  whether the order of a product's steps must be kept lest registers run out
//   run_length(bits) steps of `dot` that a `partial` can take, for quants of so many bits
//   partial, begin, dot, finish: the integer dot product, see vector_multiply.h
#ifndef KINDRED_VECTOR_H
#define KINDRED_VECTOR_H

#include "floats.h"
#include "kernels.h"
#include "panels.h"

#define INLINE static inline __attribute__((always_inline))
/// Before a loop whose bounds are constant once its function is inlined: only unrolled do arrays become
/// registers. Sanitizer builds define it as nothing, since instrumenting unrolled code takes minutes.
#ifndef UNROLL
#define UNROLL _Pragma("clang loop unroll(full)")
#endif

enum { VECTOR_BYTES = 4 * LANES, PAGE = KINDRED_PAGE_POSITIONS };

typedef float vf __attribute__((ext_vector_type(LANES)));
typedef int32_t vi __attribute__((ext_vector_type(LANES)));
typedef uint32_t vu __attribute__((ext_vector_type(LANES)));
typedef _Float16 vhalf __attribute__((ext_vector_type(LANES)));
typedef uint16_t vshort __attribute__((ext_vector_type(LANES)));
typedef int8_t vchar __attribute__((ext_vector_type(LANES)));
typedef uint8_t vuchar __attribute__((ext_vector_type(LANES)));
/// All bytes of a vector: 4 quants of each of LANES rows.
typedef uint8_t vbytes __attribute__((ext_vector_type(VECTOR_BYTES)));
typedef uint16_t vwords __attribute__((ext_vector_type(VECTOR_BYTES / 2)));

enum { LARGEST_TILE = 6 };

INLINE size_t smaller(size_t a, size_t b) { return a < b ? a : b; }

/// Calls `function(columns, ...)` with a constant `columns` ≥ left, of 6, 4, 2 and 1, or 6 where more is
/// left: a tile of rows or queries, whose last few may be empty.
#define WITH_TILE(left, function, ...) \
  do { \
    if ((left) >= 5) function(6, __VA_ARGS__); \
    else if ((left) >= 3) function(4, __VA_ARGS__); \
    else if ((left) == 2) function(2, __VA_ARGS__); \
    else function(1, __VA_ARGS__); \
  } while (0)

// Loads and stores go through memcpy, which takes any alignment; the compiler makes one instruction of it.

INLINE vf load(const float *p) {
  vf x;
  __builtin_memcpy(&x, p, sizeof x);
  return x;
}

INLINE void store(float *p, vf x) { __builtin_memcpy(p, &x, sizeof x); }

INLINE vbytes load_bytes(const uint8_t *p) {
  vbytes x;
  __builtin_memcpy(&x, p, sizeof x);
  return x;
}

INLINE vf fused(vf a, vf b, vf c) { return __builtin_elementwise_fma(a, b, c); }

INLINE vf widen_f16(const void *p) {
  vhalf x;
  __builtin_memcpy(&x, p, sizeof x);
  return __builtin_convertvector(x, vf);
}

INLINE vf widen_bf16(const void *p) {
  vshort x;
  __builtin_memcpy(&x, p, sizeof x);
  return (vf)(__builtin_convertvector(x, vu) << 16);
}

/// LANES elements of a dense type, `i` elements behind `base`.
INLINE vf widen(kindred_type type, const void *base, size_t i) {
  if (type == KINDRED_F32) return load((const float *)base + i);
  const uint16_t *p = (const uint16_t *)base + i;
  return type == KINDRED_F16 ? widen_f16(p) : widen_bf16(p);
}

INLINE float widen_one(kindred_type type, const void *base, size_t i) {
  if (type == KINDRED_F32) return ((const float *)base)[i];
  uint16_t x = ((const uint16_t *)base)[i];
  return type == KINDRED_F16 ? kindred_from_f16(x) : kindred_from_bf16(x);
}

/// Rounds to F16 or BF16, to nearest even.
INLINE vshort narrow(kindred_type type, vf x) {
  if (type == KINDRED_F16) return (vshort)__builtin_convertvector(x, vhalf);
  vu bits = (vu)x;
  vu rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
  vu quiet = bits >> 16 | 0x40;
  return __builtin_convertvector((bits & 0x7fffffff) > 0x7f800000 ? quiet : rounded, vshort);
}

/// The arguments of one `multiply`.
typedef struct {
  const uint8_t *panels;
  size_t panel_begin, panel_end, rows;
  const kindred_activations *a;
  size_t a_rows;
  const float *bias;
  bool accumulate;
  float *out;
  size_t out_stride;
} product;

/// `write_out` where fewer than LANES rows are left.
static __attribute__((noinline)) void write_rest(const product *p, size_t i, size_t row, const float *sums) {
  for (size_t r = row; r < p->rows; r++) {
    float *out = p->out + i * p->out_stride + r;
    float sum = sums[r - row] + (p->bias ? p->bias[r] : 0);
    *out = p->accumulate ? *out + sum : sum;
  }
}

/// Writes LANES finished sums of activation row `i`, from weight row `row`.
INLINE void write_out(const product *p, size_t i, size_t row, vf sum) {
  if (row + LANES <= p->rows) {
    float *out = p->out + i * p->out_stride + row;
    sum += p->bias ? load(p->bias + row) : (vf)0;
    store(out, p->accumulate ? load(out) + sum : sum);
  } else {
    float sums[LANES];
    store(sums, sum);
    write_rest(p, i, row, sums);
  }
}

/// Sum of the lanes, always in the same order.
INLINE float sum_lanes(vf x) {
  float lanes[LANES];
  store(lanes, x);
  for (int width = LANES / 2; width > 0; width /= 2)
    for (int i = 0; i < width; i++) lanes[i] += lanes[i + width];
  return lanes[0];
}

/// The table of an instruction set, whose file includes all of vector_*.h, with what it has of its own.
#define VECTOR_KERNELS(set, ...) \
  { \
    .isa = set, .rms_norm = rms_norm, .quantize = quantize, .multiply = multiply, .rotate = rotate, \
    .silu_multiply = silu_multiply, .store_key = store_key, .store_value = store_value, .scores = scores, \
    .softmax_step = softmax_step, .exp_shifted = exp_shifted, .accumulate = accumulate, .scale = scale, \
    .sum_exponentials = sum_exponentials, .attend = attend, .weigh_values = weigh_values, \
    __VA_ARGS__ \
  }

#endif
