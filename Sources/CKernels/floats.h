// Half-precision and bfloat16 numbers as bits. In plain integer arithmetic, because a baseline x86-64 build
// has no instruction for them. Both roundings are to nearest even, and NaN stays NaN.
#ifndef KINDRED_FLOATS_H
#define KINDRED_FLOATS_H

#include <stdint.h>

static inline uint32_t kindred_bits(float x) {
  union {
    float value;
    uint32_t bits;
  } u = {x};
  return u.bits;
}

static inline float kindred_float(uint32_t bits) {
  union {
    uint32_t bits;
    float value;
  } u = {bits};
  return u.value;
}

static inline float kindred_from_bf16(uint16_t x) { return kindred_float((uint32_t)x << 16); }

static inline uint16_t kindred_to_bf16(float x) {
  uint32_t bits = kindred_bits(x);
  if ((bits & 0x7fffffff) > 0x7f800000) return (uint16_t)(bits >> 16 | 0x40);
  return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

static inline float kindred_from_f16(uint16_t x) {
  uint32_t sign = (uint32_t)(x & 0x8000) << 16;
  uint32_t magnitude = x & 0x7fff;
  if (magnitude >= 0x7c00) return kindred_float(sign | 0x7f800000 | (magnitude & 0x3ff) << 13);
  // As a float's bits the magnitude is 2^-112 of its value, subnormals included.
  return kindred_float(kindred_bits(kindred_float(magnitude << 13) * 0x1p112f) | sign);
}

static inline uint16_t kindred_to_f16(float x) {
  uint32_t bits = kindred_bits(x);
  uint16_t sign = (uint16_t)(bits >> 16 & 0x8000);
  uint32_t magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return sign | 0x7e00;
  if (magnitude >= 0x477ff000) return sign | 0x7c00;  // 65,520 and more round to infinity
  if (magnitude < 0x38800000) {
    // Below 2^-14: adding 0.5 leaves multiples of 2^-24, the subnormal step, in the low bits.
    return sign | (uint16_t)(kindred_bits(kindred_float(magnitude) + 0.5f) - 0x3f000000);
  }
  magnitude += 0xfff + (magnitude >> 13 & 1);
  return sign | (uint16_t)((magnitude - 0x38000000) >> 13);
}

/// The largest magnitude of a 16-bit activation, 256 · high + low; one of 8 bits has 127. A low part of −128 becomes −127:
/// products take no larger one.
enum { KINDRED_LARGEST_WIDE = 127 * 256 };

#endif
