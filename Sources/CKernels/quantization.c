// GGUF's quantised blocks: read back as float, and repacked into panels (panels.h).
//
// One reader per block layout, written from the layouts of ggml's block formats; both paths go through it.
// Checked against gguf.quants of PyPI `gguf` (Tests/CKernelsTests/make_fixtures.py).
#include <string.h>

#include "floats.h"
#include "panels.h"

// Each product and sum is rounded on its own, as in the reference.
#pragma STDC FP_CONTRACT OFF

enum { MAX_COLUMNS = 256, MAX_SCALES = 16 };

/// One GGUF block of one row. With scale group g = column / scale_columns of the format:
/// scale = d · scales[g] and minimum = −dmin · minimums[g] in K-quants, else scale = d and minimum = dmin.
typedef struct {
  uint8_t quants[MAX_COLUMNS];
  int8_t scales[MAX_SCALES];
  uint8_t minimums[MAX_SCALES];
  uint16_t d, dmin;
} block;

static uint16_t read_u16(const uint8_t *p) { return (uint16_t)(p[0] | p[1] << 8); }

// MARK: Formats of 32 columns

/// Element j lies in the low half of byte j for j < 16, in the high half of byte j − 16 from there.
static void read_nibbles(const uint8_t *qs, block *b) {
  for (int j = 0; j < 16; j++) {
    b->quants[j] = qs[j] & 15;
    b->quants[j + 16] = qs[j] >> 4;
  }
}

static void read_fifth_bits(const uint8_t *qh, block *b) {
  for (int j = 0; j < 32; j++) b->quants[j] |= (uint8_t)((qh[j / 8] >> j % 8 & 1) << 4);
}

static void read_q4_0(const uint8_t *p, block *b) {
  b->d = read_u16(p);
  read_nibbles(p + 2, b);
}

static void read_q4_1(const uint8_t *p, block *b) {
  b->d = read_u16(p);
  b->dmin = read_u16(p + 2);
  read_nibbles(p + 4, b);
}

static void read_q5_0(const uint8_t *p, block *b) {
  b->d = read_u16(p);
  read_nibbles(p + 6, b);
  read_fifth_bits(p + 2, b);
}

static void read_q5_1(const uint8_t *p, block *b) {
  b->d = read_u16(p);
  b->dmin = read_u16(p + 2);
  read_nibbles(p + 8, b);
  read_fifth_bits(p + 4, b);
}

static void read_q8_0(const uint8_t *p, block *b) {
  b->d = read_u16(p);
  for (int j = 0; j < 32; j++) b->quants[j] = p[2 + j] ^ 0x80;
}

// MARK: K-quants, 256 columns

/// Two bits each: element 128n + 32j + l in bits 2j of byte 32n + l.
static void read_crumbs(const uint8_t *qs, block *b) {
  for (int n = 0; n < 2; n++)
    for (int j = 0; j < 4; j++)
      for (int l = 0; l < 32; l++) b->quants[128 * n + 32 * j + l] = qs[32 * n + l] >> 2 * j & 3;
}

/// Six-bit scales and minimums of Q4_K and Q5_K: 8 of each in 12 bytes.
static void read_six_bit_scales(const uint8_t *s, block *b) {
  for (int j = 0; j < 4; j++) {
    b->scales[j] = s[j] & 63;
    b->minimums[j] = s[j + 4] & 63;
    b->scales[j + 4] = (int8_t)((s[j + 8] & 15) | s[j] >> 6 << 4);
    b->minimums[j + 4] = (uint8_t)(s[j + 8] >> 4 | s[j + 4] >> 6 << 4);
  }
}

/// Four bits each: elements 64p + l in the low half of byte 32p + l, 64p + 32 + l in its high half.
static void read_nibble_pairs(const uint8_t *qs, block *b) {
  for (int p = 0; p < 4; p++)
    for (int l = 0; l < 32; l++) {
      b->quants[64 * p + l] = qs[32 * p + l] & 15;
      b->quants[64 * p + 32 + l] = qs[32 * p + l] >> 4;
    }
}

static void read_q2_k(const uint8_t *p, block *b) {
  for (int j = 0; j < 16; j++) {
    b->scales[j] = p[j] & 15;
    b->minimums[j] = p[j] >> 4;
  }
  read_crumbs(p + 16, b);
  b->d = read_u16(p + 80);
  b->dmin = read_u16(p + 82);
}

static void read_q3_k(const uint8_t *p, block *b) {
  read_crumbs(p + 32, b);
  for (int j = 0; j < 8; j++)
    for (int l = 0; l < 32; l++) b->quants[32 * j + l] |= (uint8_t)((p[l] >> j & 1) << 2);
  const uint8_t *s = p + 96;
  for (int j = 0; j < 16; j++) {
    int low = j < 8 ? s[j] & 15 : s[j - 8] >> 4;
    int high = s[8 + j % 4] >> 2 * (j / 4) & 3;
    b->scales[j] = (int8_t)((low | high << 4) - 32);
  }
  b->d = read_u16(p + 108);
}

static void read_q4_k(const uint8_t *p, block *b) {
  b->d = read_u16(p);
  b->dmin = read_u16(p + 2);
  read_six_bit_scales(p + 4, b);
  read_nibble_pairs(p + 16, b);
}

static void read_q5_k(const uint8_t *p, block *b) {
  b->d = read_u16(p);
  b->dmin = read_u16(p + 2);
  read_six_bit_scales(p + 4, b);
  read_nibble_pairs(p + 48, b);
  for (int j = 0; j < 8; j++)
    for (int l = 0; l < 32; l++) b->quants[32 * j + l] |= (uint8_t)((p[16 + l] >> j & 1) << 4);
}

static void read_q6_k(const uint8_t *p, block *b) {
  for (int n = 0; n < 2; n++)
    for (int j = 0; j < 4; j++)
      for (int l = 0; l < 32; l++) {
        int low = p[64 * n + 32 * (j & 1) + l] >> 4 * (j >> 1) & 15;
        int high = p[128 + 32 * n + l] >> 2 * j & 3;
        b->quants[128 * n + 32 * j + l] = (uint8_t)(low | high << 4);
      }
  memcpy(b->scales, p + 192, 16);
  b->d = read_u16(p + 208);
}

typedef struct {
  /// Columns and bytes of one GGUF block; 0 for an unknown type.
  size_t columns, bytes;
  void (*read)(const uint8_t *, block *);
} reader;

static reader reader_of(kindred_type type) {
  switch (type) {
  case KINDRED_Q4_0: return (reader){32, 18, read_q4_0};
  case KINDRED_Q4_1: return (reader){32, 20, read_q4_1};
  case KINDRED_Q5_0: return (reader){32, 22, read_q5_0};
  case KINDRED_Q5_1: return (reader){32, 24, read_q5_1};
  case KINDRED_Q8_0: return (reader){32, 34, read_q8_0};
  case KINDRED_Q2_K: return (reader){256, 84, read_q2_k};
  case KINDRED_Q3_K: return (reader){256, 110, read_q3_k};
  case KINDRED_Q4_K: return (reader){256, 144, read_q4_k};
  case KINDRED_Q5_K: return (reader){256, 176, read_q5_k};
  case KINDRED_Q6_K: return (reader){256, 210, read_q6_k};
  case KINDRED_F32: return (reader){1, 4, NULL};
  case KINDRED_F16:
  case KINDRED_BF16: return (reader){1, 2, NULL};
  }
  return (reader){0, 0, NULL};
}

// MARK: To float

static void dequantize_block(kindred_format f, size_t columns, const block *b, float *destination) {
  float d = kindred_from_f16(b->d), dmin = kindred_from_f16(b->dmin);
  for (size_t k = 0; k < columns; k++) {
    size_t group = k / f.scale_columns;
    float scale = f.super ? d * b->scales[group] : d;
    float minimum = !f.minimum ? 0 : f.super ? -(dmin * b->minimums[group]) : dmin;
    destination[k] = scale * (float)(b->quants[k] - f.offset) + minimum;
  }
}

void kindred_dequantize(kindred_type type, const void *source, size_t count, float *destination) {
  const uint8_t *bytes = source;
  reader r = reader_of(type);
  if (r.columns == 0) return;
  if (type == KINDRED_F32) {
    memcpy(destination, source, count * sizeof(float));
  } else if (r.read == NULL) {
    for (size_t k = 0; k < count; k++) {
      uint16_t x = read_u16(bytes + 2 * k);
      destination[k] = type == KINDRED_F16 ? kindred_from_f16(x) : kindred_from_bf16(x);
    }
  } else {
    kindred_format f = kindred_format_of(type);
    block b = {0};
    for (size_t k = 0; k < count; k += r.columns, bytes += r.bytes) {
      r.read(bytes, &b);
      dequantize_block(f, r.columns, &b, destination + k);
    }
  }
}

// MARK: To panels

size_t kindred_panel_bytes(kindred_type type, size_t columns) {
  reader r = reader_of(type);
  if (r.columns == 0 || columns % r.columns != 0) return 0;
  if (r.read == NULL) return columns * r.bytes * KINDRED_PANEL_ROWS;
  kindred_format f = kindred_format_of(type);
  size_t blocks = columns / KINDRED_BLOCK;
  return blocks * kindred_block_bytes(f) + blocks / KINDRED_CHUNK_BLOCKS * kindred_header_bytes(f);
}

/// One plane of one row of a block: `bits` bits of each of 32 quants, from bit `shift` up. `half` is the
/// plane.
static void pack_plane(const uint8_t *quants, int bits, int shift, size_t row, uint8_t *half) {
  uint32_t words[KINDRED_BLOCK_VECTORS];
  memcpy(words, quants, sizeof words);
  uint32_t mask = ((1u << bits) - 1) * 0x01010101u;
  for (int j = 0; j < bits; j++) {
    uint32_t word = 0;
    for (int t = j; t < KINDRED_BLOCK_VECTORS; t += bits)
      word |= (words[t] >> shift & mask) << bits * (t / bits);
    memcpy(half + (size_t)j * KINDRED_VECTOR_BYTES + row * sizeof word, &word, sizeof word);
  }
}

static void pack_quants(kindred_format f, const uint8_t *quants, size_t row, uint8_t *packed) {
  uint8_t *half = packed + row / KINDRED_HALF_ROWS * kindred_half_bytes(f);
  pack_plane(quants, f.low_bits, 0, row % KINDRED_HALF_ROWS, half);
  if (f.high_bits == 0) return;
  uint8_t *high = half + (size_t)f.low_bits * KINDRED_VECTOR_BYTES;
  pack_plane(quants, f.high_bits, f.low_bits, row % KINDRED_HALF_ROWS, high);
}

/// The 64 bytes of scales after block `i` of a superblock: one row's two bytes.
static void pack_scales(kindred_format f, const block *b, size_t i, size_t row, uint8_t *line) {
  for (size_t part = 0; part < 2; part++) {
    uint8_t *byte = line + part * KINDRED_PANEL_ROWS + row;
    if (f.scale_columns == 32) {
      *byte = part == 0 ? (uint8_t)b->scales[i] : b->minimums[i];
    } else {
      *byte = (uint8_t)b->scales[2 * i + part];
      if (f.minimum) *byte |= (uint8_t)(b->minimums[2 * i + part] << 4);
    }
  }
}

static void pack_block(kindred_format f, const block *b, size_t row, uint8_t *packed) {
  if (!f.super) {
    uint8_t *line = packed + 2 * kindred_half_bytes(f);
    pack_quants(f, b->quants, row, packed);
    memcpy(line + 2 * row, &b->d, 2);
    if (f.minimum) memcpy(line + KINDRED_VECTOR_BYTES + 2 * row, &b->dmin, 2);
    return;
  }
  memcpy(packed + 2 * row, &b->d, 2);
  if (f.minimum) memcpy(packed + KINDRED_VECTOR_BYTES + 2 * row, &b->dmin, 2);
  packed += kindred_header_bytes(f);
  for (size_t i = 0; i < KINDRED_CHUNK_BLOCKS; i++, packed += kindred_block_bytes(f)) {
    pack_quants(f, b->quants + i * KINDRED_BLOCK, row, packed);
    pack_scales(f, b, i, row, packed + 2 * kindred_half_bytes(f));
  }
}

/// Copies elements of `size` bytes from [rows][columns] to [columns][32].
static void pack_dense(const uint8_t *source, size_t rows, size_t columns, size_t size, uint8_t *panel) {
  if (rows < KINDRED_PANEL_ROWS) memset(panel, 0, columns * KINDRED_PANEL_ROWS * size);
  for (size_t k = 0; k < columns; k++)
    for (size_t row = 0; row < rows; row++)
      memcpy(panel + (k * KINDRED_PANEL_ROWS + row) * size, source + (row * columns + k) * size, size);
}

void kindred_pack_panel(kindred_type type, const void *source, size_t rows, size_t columns, void *panel) {
  reader r = reader_of(type);
  if (r.columns == 0) return;
  if (r.read == NULL) {
    // A constant size lets the compiler turn the copies into plain moves.
    if (r.bytes == 4) pack_dense(source, rows, columns, 4, panel);
    else pack_dense(source, rows, columns, 2, panel);
    return;
  }
  kindred_format f = kindred_format_of(type);
  size_t blocks = columns / r.columns;
  size_t packed_bytes = kindred_panel_bytes(type, r.columns);
  if (rows < KINDRED_PANEL_ROWS) memset(panel, 0, kindred_panel_bytes(type, columns));
  block b = {0};
  for (size_t i = 0; i < blocks; i++)
    for (size_t row = 0; row < rows; row++) {
      r.read((const uint8_t *)source + (row * blocks + i) * r.bytes, &b);
      pack_block(f, &b, row, (uint8_t *)panel + i * packed_bytes);
    }
}
