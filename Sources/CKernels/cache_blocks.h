// Keys and values of Q8_0 and Q4_0: blocks of 32 elements of a head with one scale, as GGUF has them. What is here is
// plain C, which every instruction set compiles for itself; reading by vectors is in vector_attention.h.
//
// The blocks of 16 positions for the same columns lie together: first the scales, which are then a vector, too, and
// then the quants, of values block after block. Of keys, where lanes are positions, they are transposed: for each byte
// that a block has, those of the 16 positions. Either way n positions, a multiple of 16, take the bytes of n rows of
// GGUF's blocks.
#ifndef KINDRED_CACHE_BLOCKS_H
#define KINDRED_CACHE_BLOCKS_H

#include "floats.h"
#include "panels.h"

enum {
  /// Bytes of a block's scale, F16.
  CACHE_SCALE_BYTES = 2,
  /// Bytes of the largest block.
  CACHE_BLOCK_BYTES = CACHE_SCALE_BYTES + KINDRED_BLOCK,
};

static inline bool is_blocks(kindred_type type) { return type == KINDRED_Q8_0 || type == KINDRED_Q4_0; }

/// Bytes of a block's quants: byte i is element i, or elements i and i + 16 in its low and high half.
static inline size_t quant_bytes(kindred_type type) { return type == KINDRED_Q8_0 ? KINDRED_BLOCK : KINDRED_BLOCK / 2; }

/// Bytes of `count` stored elements, a multiple of what a block holds.
static inline size_t cached_bytes(kindred_type type, size_t count) {
  if (is_blocks(type)) return count / KINDRED_BLOCK * (CACHE_SCALE_BYTES + quant_bytes(type));
  return count * (type == KINDRED_F32 ? 4 : 2);
}

/// The 16 blocks among which is that of column `c` at the position `slot` of a page.
static inline const uint8_t *blocks_at(kindred_type type, const void *page, size_t d, size_t slot, size_t c) {
  size_t column = slot / KINDRED_KEY_BLOCK * d + c / KINDRED_BLOCK * KINDRED_BLOCK;
  return (const uint8_t *)page + cached_bytes(type, column * KINDRED_KEY_BLOCK);
}

/// The scale, in `blocks_at`, of the position `slot`.
static inline const uint8_t *block_scale(const uint8_t *blocks, size_t slot) {
  return blocks + CACHE_SCALE_BYTES * (slot % KINDRED_KEY_BLOCK);
}

/// The quant, in `blocks_at`, of column `c` of the key at `slot`; those of the next positions follow.
static inline const uint8_t *key_quant(kindred_type type, const uint8_t *blocks, size_t slot, size_t c) {
  return blocks + (CACHE_SCALE_BYTES + c % quant_bytes(type)) * KINDRED_KEY_BLOCK + slot % KINDRED_KEY_BLOCK;
}

/// The quant, in `blocks_at`, of column `c` of the value at `slot`; those of the next columns follow.
static inline const uint8_t *value_quant(kindred_type type, const uint8_t *blocks, size_t slot, size_t c) {
  return blocks + (CACHE_SCALE_BYTES * KINDRED_KEY_BLOCK) + slot % KINDRED_KEY_BLOCK * quant_bytes(type) +
         c % quant_bytes(type);
}

/// How far a quant of column `c` lies from its byte's lowest bit.
static inline int quant_shift(kindred_type type, size_t c) {
  return type == KINDRED_Q4_0 && c % KINDRED_BLOCK >= KINDRED_BLOCK / 2 ? 4 : 0;
}

// MARK: Storing

/// What quants are multiples of before they are rounded, and the factor that makes them of elements; 0 where there are
/// no multiples: all elements are almost 0, or one is not finite and makes the scale so, too.
static inline float inverse_scale(float scale) {
  float magnitude = kindred_float(kindred_bits(scale) & 0x7fffffff);
  return magnitude >= 0x1p-126f && magnitude <= 0x1p127f ? 1 / scale : 0;
}

/// Quantises 32 elements as GGUF's reference does, except that Q8_0 rounds halves to even.
static inline void write_block(kindred_type type, const float *x, uint8_t *block) {
  // Each product and sum is rounded on its own, as in the reference: pages are the same on every instruction set.
#pragma STDC FP_CONTRACT OFF
  uint8_t codes[KINDRED_BLOCK];
  uint32_t most = 0;  // as bits, which put NaN above infinity
  for (size_t i = 0; i < KINDRED_BLOCK; i++) {
    uint32_t magnitude = kindred_bits(x[i]) & 0x7fffffff;
    most = magnitude > most ? magnitude : most;
  }
  float scale = kindred_float(most) / 127;
  if (type == KINDRED_Q4_0) {
    size_t largest = 0;
    while ((kindred_bits(x[largest]) & 0x7fffffff) != most) largest++;
    scale = x[largest] / -8;  // the largest magnitude becomes −8, of which there is no positive
  }
  uint16_t half = kindred_to_f16(scale);
  float inverse = inverse_scale(scale);
  __builtin_memcpy(block, &half, sizeof half);
  uint8_t *quants = block + CACHE_SCALE_BYTES;
  if (inverse == 0) {
    __builtin_memset(quants, type == KINDRED_Q4_0 ? 0x88 : 0, quant_bytes(type));
    return;
  }
  if (type == KINDRED_Q8_0) {
    for (size_t i = 0; i < KINDRED_BLOCK; i++) quants[i] = (uint8_t)(int8_t)__builtin_nearbyintf(x[i] * inverse);
    return;
  }
  for (size_t i = 0; i < KINDRED_BLOCK; i++) {
    int code = (int)(x[i] * inverse + 8.5f);
    codes[i] = (uint8_t)(code < 15 ? code : 15);
  }
  for (size_t i = 0; i < KINDRED_BLOCK / 2; i++) quants[i] = (uint8_t)(codes[i] | codes[i + KINDRED_BLOCK / 2] << 4);
}

static inline void store_key_blocks(kindred_type type, const float *key, size_t d, size_t slot, void *page) {
  for (size_t c = 0; c < d; c += KINDRED_BLOCK) {
    uint8_t block[CACHE_BLOCK_BYTES];
    write_block(type, key + c, block);
    const uint8_t *blocks = blocks_at(type, page, d, slot, c);
    __builtin_memcpy((uint8_t *)block_scale(blocks, slot), block, CACHE_SCALE_BYTES);
    uint8_t *quants = (uint8_t *)key_quant(type, blocks, slot, c);
    for (size_t i = 0; i < quant_bytes(type); i++) quants[i * KINDRED_KEY_BLOCK] = block[CACHE_SCALE_BYTES + i];
  }
}

static inline void store_value_blocks(kindred_type type, const float *value, size_t d, size_t slot, void *page) {
  for (size_t c = 0; c < d; c += KINDRED_BLOCK) {
    uint8_t block[CACHE_BLOCK_BYTES];
    write_block(type, value + c, block);
    const uint8_t *blocks = blocks_at(type, page, d, slot, c);
    __builtin_memcpy((uint8_t *)block_scale(blocks, slot), block, CACHE_SCALE_BYTES);
    __builtin_memcpy((uint8_t *)value_quant(type, blocks, slot, c), block + CACHE_SCALE_BYTES, quant_bytes(type));
  }
}

// MARK: Reading one element

static inline float block_element(kindred_type type, const uint8_t *scale, uint8_t byte, size_t c) {
  uint16_t half;
  __builtin_memcpy(&half, scale, sizeof half);
  int quant = type == KINDRED_Q8_0 ? (int8_t)byte : (byte >> quant_shift(type, c) & 15) - 8;
  return kindred_from_f16(half) * (float)quant;
}

static inline float key_block_element(kindred_type type, const void *page, size_t d, size_t slot, size_t c) {
  const uint8_t *blocks = blocks_at(type, page, d, slot, c);
  return block_element(type, block_scale(blocks, slot), *key_quant(type, blocks, slot, c), c);
}

static inline float value_block_element(kindred_type type, const void *page, size_t d, size_t slot, size_t c) {
  const uint8_t *blocks = blocks_at(type, page, d, slot, c);
  return block_element(type, block_scale(blocks, slot), *value_quant(type, blocks, slot, c), c);
}

#endif
