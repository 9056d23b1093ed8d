// Runs every kernel of every instruction set of this machine over odd sizes and compares it with the generic
// one.
//
// A plain C program, for what the Swift tests cannot have: address and undefined-behaviour sanitizers
// (sanitize.sh) and an emulated processor (neon.sh). Buffers are allocated to the byte, so that a sanitizer
// sees any step beyond them.
#define _GNU_SOURCE  // for posix_memalign()
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "CKindredKernels.h"

static int failures = 0;

static uint32_t random_bits(void) {
  static uint64_t state = 1;
  state = state * 6364136223846793005u + 1442695040888963407u;
  return (uint32_t)(state >> 32);
}

static float random_float(void) { return (float)random_bits() * 0x1p-31f - 1; }

static void *allocate(size_t bytes) {
  void *p = NULL;
  if (posix_memalign(&p, 64, bytes) != 0) abort();
  return p;
}

static float *random_floats(size_t count) {
  float *p = allocate(count * sizeof *p);
  for (size_t i = 0; i < count; i++) p[i] = random_float();
  return p;
}

/// Compares with what the generic kernel gave; `tolerance` is absolute, beside 1e-6 of the value.
static void compare(const char *what, size_t size, const float *found, const float *expected, size_t count,
                    float tolerance) {
  for (size_t i = 0; i < count; i++) {
    if (fabsf(found[i] - expected[i]) <= tolerance + 1e-6f * fabsf(expected[i])) continue;
    if (found[i] == expected[i] || (isnan(found[i]) && isnan(expected[i]))) continue;  // infinities too
    printf("%s of %zu: element %zu is %g, generic %g\n", what, size, i, (double)found[i],
           (double)expected[i]);
    failures++;
    return;
  }
}

// MARK: Products

typedef struct {
  kindred_type type;
  size_t block_columns, block_bytes, factors[2];
} layout;

/// No factor of type f16 at this place.
#define NONE SIZE_MAX

static const layout layouts[] = {
    {KINDRED_F32, 1, 4, {NONE, NONE}},
    {KINDRED_F16, 1, 2, {0, NONE}},
    {KINDRED_BF16, 1, 2, {0, NONE}},
    {KINDRED_Q4_0, 32, 18, {0, NONE}},
    {KINDRED_Q4_1, 32, 20, {0, 2}},
    {KINDRED_Q5_0, 32, 22, {0, NONE}},
    {KINDRED_Q5_1, 32, 24, {0, 2}},
    {KINDRED_Q8_0, 32, 34, {0, NONE}},
    {KINDRED_Q2_K, 256, 84, {80, 82}},
    {KINDRED_Q3_K, 256, 110, {108, NONE}},
    {KINDRED_Q4_K, 256, 144, {0, 2}},
    {KINDRED_Q5_K, 256, 176, {0, 2}},
    {KINDRED_Q6_K, 256, 210, {208, NONE}},
};

static uint8_t *random_weights(layout l, size_t bytes) {
  uint8_t *source = allocate(bytes);
  for (size_t i = 0; i < bytes; i++) source[i] = (uint8_t)random_bits();
  for (size_t start = 0; start < bytes; start += l.block_bytes) {
    if (l.type == KINDRED_F32) {
      float x = random_float();
      memcpy(source + start, &x, sizeof x);
    }
    for (int i = 0; i < 2; i++)
      if (l.factors[i] != NONE) {
        uint8_t *high = source + start + l.factors[i] + 1;
        *high = l.type == KINDRED_BF16 ? (*high & 0x81) | 0x3c : (*high & 0x87) | 0x1c;
      }
  }
  return source;
}

static kindred_activations quantized(const kindred_kernels *k, const float *values, size_t rows, size_t columns,
                                     bool wide) {
  size_t padded = (columns + 63) / 64 * 64;
  int8_t *quants = allocate(rows * padded), *low = wide ? allocate(rows * padded) : NULL;
  kindred_activation_block *blocks = allocate(rows * padded / 32 * sizeof *blocks);
  for (size_t i = 0; i < rows; i++)
    k->quantize(values + i * columns, columns, quants + i * padded, wide ? low + i * padded : NULL,
                blocks + i * padded / 32);
  return (kindred_activations){columns, values, quants, low, blocks};
}

static void release(kindred_activations a) {
  free((void *)a.quants), free((void *)a.low), free((void *)a.blocks);
}

static uint8_t *packed_weights(layout l, const uint8_t *source, size_t rows, size_t columns) {
  const size_t row_bytes = columns / l.block_columns * l.block_bytes;
  const size_t panel_bytes = kindred_panel_bytes(l.type, columns), panels = (rows + 31) / 32;
  uint8_t *packed = allocate(panels * panel_bytes);
  for (size_t p = 0; p < panels; p++) {
    size_t left = rows - p * 32;
    kindred_pack_panel(l.type, source + p * 32 * row_bytes, left < 32 ? left : 32, columns, packed + p * panel_bytes);
  }
  return packed;
}

static void check_multiply(const kindred_kernels *k, const kindred_kernels *generic, layout l, size_t columns,
                           size_t rows, size_t a_rows) {
  const size_t panels = (rows + 31) / 32;
  uint8_t *source = random_weights(l, rows * (columns / l.block_columns * l.block_bytes));
  uint8_t *packed = packed_weights(l, source, rows, columns);
  float *values = random_floats(a_rows * columns), *bias = random_floats(rows);
  float *found = random_floats(a_rows * rows), *expected = allocate(a_rows * rows * sizeof *expected);
  for (int wide = 0; wide < 2; wide++) {
    kindred_activations a = quantized(k, values, a_rows, columns, wide);
    kindred_activations b = quantized(generic, values, a_rows, columns, wide);
    memcpy(expected, found, a_rows * rows * sizeof *expected);
    k->multiply(l.type, packed, 0, panels, rows, &a, a_rows, bias, true, found, rows);
    generic->multiply(l.type, packed, 0, panels, rows, &b, a_rows, bias, true, expected, rows);
    compare("multiply", (size_t)l.type * 1000000 + columns * 1000 + a_rows, found, expected, a_rows * rows,
            2e-5f * sqrtf((float)columns));
    release(a), release(b);
  }
  free(source), free(packed), free(values), free(bias), free(found), free(expected);
}

/// Products with weights that are rounded once more, to steps of the largest of 256 / 127, where the set has them.
static void check_rescaled(const kindred_kernels *k, layout l, size_t columns, size_t rows, size_t a_rows) {
  if (k->multiply_rescaled == NULL || l.block_columns == 1) return;
  const size_t panels = (rows + 31) / 32;
  uint8_t *source = random_weights(l, rows * (columns / l.block_columns * l.block_bytes));
  uint8_t *packed = packed_weights(l, source, rows, columns);
  float *values = random_floats(a_rows * columns), *weights = allocate(rows * columns * sizeof *weights);
  kindred_activations a = quantized(k, values, a_rows, columns, false);
  float *found = random_floats(a_rows * rows), *exact = allocate(a_rows * rows * sizeof *exact);
  kindred_dequantize(l.type, source, rows * columns, weights);
  k->multiply(l.type, packed, 0, panels, rows, &a, a_rows, NULL, false, exact, rows);
  k->multiply_rescaled(l.type, packed, 0, panels, rows, &a, a_rows, NULL, false, found, rows);
  for (size_t i = 0; i < a_rows; i++)
    for (size_t r = 0; r < rows; r++) {
      float limit = 1e-3f;
      for (size_t first = 0; first < columns; first += 256) {
        float most = 0, sum = 0;
        for (size_t c = first; c < columns && c < first + 256; c++) {
          most = fmaxf(most, fabsf(weights[r * columns + c]));
          sum += fabsf(values[i * columns + c]);
        }
        limit += most / 127 * sum;
      }
      compare("multiply_rescaled", (size_t)l.type * 1000000 + columns * 1000 + a_rows, &found[i * rows + r],
              &exact[i * rows + r], 1, limit);
    }
  release(a);
  free(source), free(packed), free(values), free(weights), free(found), free(exact);
}

/// Products in tiles, where the set has them: bf16 rounds each factor by up to 2^-9.
static void check_tiles(const kindred_kernels *k, layout l, size_t columns, size_t rows, size_t a_rows) {
  if (k->multiply_tiles == NULL || l.type == KINDRED_F32 || l.type == KINDRED_F16) return;
  const size_t panels = (rows + 31) / 32;
  uint8_t *source = random_weights(l, rows * (columns / l.block_columns * l.block_bytes));
  uint8_t *packed = packed_weights(l, source, rows, columns);
  float *values = random_floats(a_rows * columns), *bias = random_floats(rows);
  size_t tile_bytes = (a_rows + 15) / 16 * ((columns + 31) / 32) * 1024;
  uint16_t *tiles = memset(allocate(tile_bytes), 0, tile_bytes), *rest = memset(allocate(tile_bytes), 0, tile_bytes);
  for (size_t i = 0; i < a_rows; i++) k->pack_tile_row(values + i * columns, 0, columns, columns, i, tiles, rest);
  kindred_tiles a = {columns, tiles, l.type == KINDRED_BF16 ? rest : NULL};
  float *found = random_floats(a_rows * rows), *weights = allocate(rows * columns * sizeof *weights);
  void *scratch = allocate(KINDRED_TILE_SCRATCH_BYTES);
  kindred_dequantize(l.type, source, rows * columns, weights);
  k->multiply_tiles(l.type, packed, 0, panels, rows, &a, a_rows, bias, false, found, rows, scratch);
  for (size_t i = 0; i < a_rows; i++)
    for (size_t r = 0; r < rows; r++) {
      float expected = bias[r], magnitude = 1e-3f;
      for (size_t c = 0; c < columns; c++) {
        float term = values[i * columns + c] * weights[r * columns + c];
        expected += term;
        magnitude += fabsf(term);
      }
      compare("multiply_tiles", (size_t)l.type * 1000000 + columns * 1000 + a_rows, &found[i * rows + r], &expected, 1,
              magnitude * (l.type == KINDRED_BF16 ? 0x1p-15f : 0x1p-8f));
    }
  free(scratch), free(tiles), free(rest), free(weights);
  free(source), free(packed), free(values), free(bias), free(found);
}

static void check_multiplies(const kindred_kernels *k, const kindred_kernels *generic) {
  const size_t a_rows[] = {1, 2, 3, 4, 5, 6, 7, 9, 13, 33};
  for (size_t i = 0; i < sizeof layouts / sizeof *layouts; i++)
    for (size_t j = 0; j < sizeof a_rows / sizeof *a_rows; j++) {
      size_t unit = layouts[i].block_columns;
      check_multiply(k, generic, layouts[i], unit == 1 ? 17 : unit * 3, 33, a_rows[j]);
      check_multiply(k, generic, layouts[i], unit == 1 ? 64 : unit == 32 ? 320 : 256, 100, a_rows[j]);
      check_rescaled(k, layouts[i], unit * 3, 33, a_rows[j]);
      check_tiles(k, layouts[i], unit == 1 ? 17 : unit * 3, 33, a_rows[j]);
      check_tiles(k, layouts[i], unit == 1 ? 600 : unit == 32 ? 544 : 768, 300, a_rows[j]);
    }
  check_multiply(k, generic, layouts[3], 32, 1, 520);
}

// MARK: Rows

static void check_row(const kindred_kernels *k, const kindred_kernels *generic, size_t n) {
  float *x = random_floats(n), *y = random_floats(n), *found = allocate(n * sizeof *found);
  float *expected = allocate(n * sizeof *expected);
  k->rms_norm(x, y, 1e-5f, n, found);
  generic->rms_norm(x, y, 1e-5f, n, expected);
  compare("rms_norm", n, found, expected, n, 1e-6f);
  k->silu_multiply(x, y, n, found);
  generic->silu_multiply(x, y, n, expected);
  compare("silu_multiply", n, found, expected, n, 1e-7f);
  k->scale(found, n, 0.7f);
  generic->scale(expected, n, 0.7f);
  compare("scale", n, found, expected, n, 1e-7f);
  for (int interleaved = 0; interleaved < 2; interleaved++) {
    k->rotate(found, n / 2 * 2, x, y, interleaved);
    generic->rotate(expected, n / 2 * 2, x, y, interleaved);
    compare("rotate", n, found, expected, n / 2 * 2, 1e-6f);
  }
  const float bad[] = {INFINITY, NAN, 1e-40f, -3e38f};
  for (int i = 0; i < 10; i++) {
    if (i > 1) x[n / 2] = bad[i / 2 - 1];
    const bool wide = i % 2;
    kindred_activations a = quantized(k, x, 1, n, wide), b = quantized(generic, x, 1, n, wide);
    size_t padded = (n + 63) / 64 * 64;
    bool same = memcmp(a.quants, b.quants, padded) == 0 && (!wide || memcmp(a.low, b.low, padded) == 0);
    for (size_t j = 0; j < padded / 32; j++) {
      const kindred_activation_block *found = &a.blocks[j], *expected = &b.blocks[j];
      compare("scale", n, &found->scale, &expected->scale, 1, 0);
      same &= found->sum == expected->sum && memcmp(found->halves, expected->halves, sizeof found->halves) == 0;
    }
    if (!same) {
      printf("quantize of %zu differs\n", n);
      failures++;
    }
    release(a), release(b);
  }
  free(x), free(y), free(found), free(expected);
}

// MARK: Attention

static bool is_blocks(kindred_type type) { return type == KINDRED_Q8_0 || type == KINDRED_Q4_0; }

static size_t page_bytes_of(kindred_type type, size_t d) {
  if (is_blocks(type)) return KINDRED_PAGE_POSITIONS * d / 32 * (type == KINDRED_Q8_0 ? 34 : 18);
  return KINDRED_PAGE_POSITIONS * d * (type == KINDRED_F32 ? 4 : 2);
}

static void check_attention(const kindred_kernels *k, const kindred_kernels *generic, kindred_type type,
                            size_t d, size_t m, size_t count) {
  size_t page_bytes = page_bytes_of(type, d);
  uint8_t *pages[4];
  for (int i = 0; i < 4; i++) pages[i] = memset(allocate(page_bytes), 0, page_bytes);
  float *x = random_floats(d), *q = random_floats(m * d);
  for (size_t slot = 0; slot < KINDRED_PAGE_POSITIONS; slot++) {
    for (size_t c = 0; c < d; c++) x[c] = random_float();
    k->store_key(type, x, d, slot, pages[0]);
    generic->store_key(type, x, d, slot, pages[1]);
    k->store_value(type, x, d, slot, pages[2]);
    generic->store_value(type, x, d, slot, pages[3]);
  }
  if (memcmp(pages[0], pages[1], page_bytes) != 0 || memcmp(pages[2], pages[3], page_bytes) != 0) {
    printf("stored keys or values of %zu differ\n", d);
    failures++;
  }
  float *s = random_floats(m * 64), *t = allocate(m * 64 * sizeof *t), *o = random_floats(m * d);
  float *u = allocate(m * d * sizeof *u);
  memcpy(t, s, m * 64 * sizeof *t);
  memcpy(u, o, m * d * sizeof *u);
  k->scores(type, q, d, m, d, pages[0], count, 0.3f, s);
  generic->scores(type, q, d, m, d, pages[1], count, 0.3f, t);
  for (size_t i = 0; i < m; i++) {
    compare("scores", d, s + i * 64, t + i * 64, count, 1e-5f);
    float most[2] = {-INFINITY, -INFINITY}, sums[2] = {0, 0};
    float f = k->softmax_step(s + i * 64, count, &most[0], &sums[0]);
    float g = generic->softmax_step(t + i * 64, count, &most[1], &sums[1]);
    compare("softmax factor", count, &f, &g, 1, 0);
    compare("softmax sum", count, &sums[0], &sums[1], 1, 1e-4f);
    compare("softmax", count, s + i * 64, t + i * 64, 64, 1e-5f);
    k->exp_shifted(s + i * 64, count, 1.5f);
    generic->exp_shifted(t + i * 64, count, 1.5f);
    compare("exp_shifted", count, s + i * 64, t + i * 64, 64, 1e-5f);
  }
  k->accumulate(type, s, m, pages[2], count, d, o, d);
  generic->accumulate(type, t, m, pages[3], count, d, u, d);
  compare("accumulate", d, o, u, m * d, 1e-4f);
  for (int i = 0; i < 4; i++) free(pages[i]);
  free(x), free(q), free(s), free(t), free(o), free(u);
}

/// Attention of many rows of a sequence, own and borrowed, against scores and softmax by definition.
static void check_tile_attention(const kindred_kernels *k, kindred_type type, size_t d, size_t rows, size_t first) {
  if (k->attend_tiles == NULL) return;
  enum { HEADS = 3 };
  const size_t length = first + rows, pages = (length + 63) / 64, columns = (d + 31) / 32 * 32;
  const size_t page_bytes = page_bytes_of(type, d);
  uint16_t *keys = allocate(pages * 128 * columns * 2), *values = allocate(pages * 64 * columns * 2);
  uint8_t *key_page = allocate(page_bytes), *value_page = allocate(page_bytes);
  float *key = random_floats(length * d), *value = random_floats(length * d), *query = random_floats(rows * HEADS * d);
  for (size_t p = 0; p < pages; p++) {
    const size_t count = length - p * 64 < 64 ? length - p * 64 : 64;
    memset(key_page, 0, page_bytes), memset(value_page, 0xff, page_bytes);  // what is not stored is NaN
    for (size_t j = 0; j < count; j++) {
      k->store_key(type, key + (p * 64 + j) * d, d, j, key_page);
      k->store_value(type, value + (p * 64 + j) * d, d, j, value_page);
    }
    k->pack_key_tiles(type, key_page, d, keys + p * 128 * columns);
    k->pack_value_tiles(type, value_page, count, d, values + p * 64 * columns);
  }
  float *found = random_floats(rows * HEADS * d), *statistic = random_floats(rows * HEADS), *weights = allocate(length * 4);
  float *borrowed = random_floats(rows * HEADS * d), *expected = allocate(d * sizeof *expected);
  void *scratch = allocate(KINDRED_TILE_SCRATCH_BYTES);
  const float scale = 0.3f;
  k->attend_tiles(&(kindred_tile_attention){d, HEADS, rows, first, scale, query, HEADS * d, keys, values, found,
                                            HEADS * d, statistic, HEADS}, scratch);
  for (size_t head = 0; head < HEADS; head++) {
    float *target = borrowed + head * d;
    k->borrow_tiles(&(kindred_tile_loan){d, d, rows, first, 1, scale, query + head * d, HEADS * d, statistic + head,
                                         HEADS, keys, (const uint16_t *const[]){values}, (float *const[]){target},
                                         HEADS * d}, scratch);
    for (size_t i = 0; i < rows; i++) {
      double sum = 0;
      for (size_t j = 0; j <= first + i; j++) {
        double logit = 0;
        for (size_t c = 0; c < d; c++) logit += query[(i * HEADS + head) * d + c] * key[j * d + c];
        sum += weights[j] = (float)exp(logit * scale);
      }
      memset(expected, 0, d * sizeof *expected);
      for (size_t j = 0; j <= first + i; j++)
        for (size_t c = 0; c < d; c++) expected[c] += (float)(weights[j] / sum) * value[j * d + c];
      compare("attend_tiles", d * 1000 + rows, found + (i * HEADS + head) * d, expected, d, 2e-2f);
      compare("borrow_tiles", d * 1000 + rows, borrowed + (i * HEADS + head) * d, expected, d, 2e-2f);
      float logarithm = (float)log(sum);
      compare("log-sum-exp", d * 1000 + rows, &statistic[i * HEADS + head], &logarithm, 1, 2e-2f);
    }
  }
  free(keys), free(values), free(key_page), free(value_page), free(key), free(value), free(query), free(found);
  free(statistic), free(weights), free(borrowed), free(expected), free(scratch);
}

static void check_attentions(const kindred_kernels *k, const kindred_kernels *generic) {
  const kindred_type types[] = {KINDRED_F32, KINDRED_F16, KINDRED_BF16, KINDRED_Q8_0, KINDRED_Q4_0};
  const size_t sizes[] = {1, 15, 20, 32, 48, 64, 96, 100, 128}, batches[] = {1, 2, 3, 4, 5, 6, 7, 9, 13};
  const size_t counts[] = {1, 16, 17, 50, 64};
  for (size_t t = 0; t < sizeof types / sizeof *types; t++)
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
      for (size_t j = 0; j < sizeof batches / sizeof *batches; j++)
        for (size_t c = 0; c < sizeof counts / sizeof *counts; c++)
          if (!is_blocks(types[t]) || sizes[i] % 32 == 0)
            check_attention(k, generic, types[t], sizes[i], batches[j], counts[c]);
  const size_t tile_sizes[] = {1, 15, 33, 64, 128, 256}, rows[] = {1, 15, 16, 17, 31, 33, 128};
  for (size_t i = 0; i < sizeof tile_sizes / sizeof *tile_sizes; i++)
    for (size_t j = 0; j < sizeof rows / sizeof *rows; j++)
      for (size_t first = 0; first < 600; first += 299) {
        check_tile_attention(k, j % 2 == 0 ? KINDRED_F16 : KINDRED_BF16, tile_sizes[i], rows[j], first);
        if (tile_sizes[i] % 32 == 0) check_tile_attention(k, KINDRED_Q8_0, tile_sizes[i], rows[j], first);
      }
}

int main(void) {
  const kindred_kernels *generic = kindred_kernels_for(KINDRED_ISA_GENERIC);
  const char *names[] = {"generic", "avx2", "avx512", "neon", "amx"};
  for (int isa = KINDRED_ISA_GENERIC; isa <= KINDRED_ISA_AMX; isa++) {
    const kindred_kernels *k = kindred_kernels_for((kindred_isa)isa);
    if (k == NULL) continue;
    check_multiplies(k, generic);
    for (size_t n = 1; n <= 132; n++) check_row(k, generic, n);
    check_attentions(k, generic);
    printf("%s: %d failures\n", names[isa], failures);
  }
  return failures == 0 ? 0 : 1;
}
