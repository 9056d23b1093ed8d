// The inner loops of Kindred, and the one place that chooses among instruction sets.
//
// Only raw pointers cross this boundary, never SIMD values. Every function may be called from any thread; none
// allocates, none keeps state. Layouts that Swift must know are stated here and nowhere else.
//
// Batch invariance: for a given instruction set the result for one activation row, one query or one output
// element never depends on how many other rows, queries or panels the same call handles. Each output is summed
// in one fixed order, so prefill in chunks of any size, decode and batches agree bit for bit. `multiply_rescaled`,
// `multiply_tiles`, `attend_tiles` and `borrow_tiles` keep this among their own calls.
#ifndef CKINDRED_KERNELS_H
#define CKINDRED_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/// Element types of stored tensors; the numbers are GGUF's.
typedef enum {
  KINDRED_F32 = 0,
  KINDRED_F16 = 1,
  KINDRED_Q4_0 = 2,
  KINDRED_Q4_1 = 3,
  KINDRED_Q5_0 = 6,
  KINDRED_Q5_1 = 7,
  KINDRED_Q8_0 = 8,
  KINDRED_Q2_K = 10,
  KINDRED_Q3_K = 11,
  KINDRED_Q4_K = 12,
  KINDRED_Q5_K = 13,
  KINDRED_Q6_K = 14,
  KINDRED_BF16 = 30
} kindred_type;

typedef enum {
  KINDRED_ISA_GENERIC = 0,
  KINDRED_ISA_AVX2 = 1,    // AVX2, FMA, F16C
  KINDRED_ISA_AVX512 = 2,  // AVX-512 F, BW, VL, DQ, VNNI, BF16
  KINDRED_ISA_NEON = 3,    // AArch64 with dot product
  KINDRED_ISA_AMX = 4      // AVX-512 as above, and AMX tiles with BF16
} kindred_isa;

enum {
  /// Weight rows in one panel of a packed matrix.
  KINDRED_PANEL_ROWS = 32,
  /// Activations that share one int8 scale.
  KINDRED_ACTIVATION_BLOCK = 32,
  /// Positions in one page of keys or values.
  KINDRED_PAGE_POSITIONS = 64,
  /// Positions interleaved in a key page.
  KINDRED_KEY_BLOCK = 16,
  /// Activation rows in one tile.
  KINDRED_TILE_ROWS = 16,
  /// Bytes that each of the operations on tiles works in.
  KINDRED_TILE_SCRATCH_BYTES = 1 << 20,
  /// Attention of many rows: pages of one step of the softmax; the most queries (rows × heads, or rows × borrowers, each
  /// rounded up to 32) of one call; the most columns of a head.
  KINDRED_TILE_SPAN_PAGES = 4,
  KINDRED_TILE_QUERIES = 384,
  KINDRED_TILE_COLUMNS = 256
};

// MARK: Weights

/// Writes `count` elements of `type`, stored in GGUF's layout at `source`, as float.
/// `count` is a multiple of the type's block (1, 32 or 256). Slow and obviously right: the twin of the packed path.
void kindred_dequantize(kindred_type type, const void *source, size_t count, float *destination);

/// Bytes of one packed panel of `KINDRED_PANEL_ROWS` rows and `columns` columns, a multiple of 64; 0 where
/// `columns` is not a multiple of the type's block.
size_t kindred_panel_bytes(kindred_type type, size_t columns);

/// Packs `rows` (1…32) consecutive rows in GGUF's layout into one 64-byte-aligned panel; missing rows are zero.
void kindred_pack_panel(kindred_type type, const void *source, size_t rows, size_t columns, void *panel);

// MARK: Activations

/// What 32 integer activations have in common: their scale and the sums that products with offsets and minimums need.
typedef struct {
  float scale;
  /// Of all 32 integers.
  int32_t sum;
  /// Of the first and the last 16: of 16 bits their sums; of 8 bits two each, of those in columns whose number divided
  /// by 4 leaves 0 or 1, and of the others.
  union {
    int32_t halves[2];
    int16_t pairs[2][2];
  };
} kindred_activation_block;

/// Rows of activations, ready to be multiplied: as float, and as integers of 8 or of 16 bits in blocks of 32 with one
/// scale each. Dense weights read `values`, quantised weights read the rest. Element (i, k) is `values[i * columns + k]`,
/// about `blocks[i * padded / 32 + k / 32].scale * q`, where `padded` is `columns` rounded up to a multiple of 64. The
/// integer q is `quants[i * padded + k]`, or with `low`, of 16 bits, `256 * quants[i * padded + k] + low[i * padded + k]`;
/// those of the padding are 0.
typedef struct {
  size_t columns;
  const float *values;                     // [rows, columns]
  const int8_t *quants;                    // [rows, padded]
  const int8_t *low;                       // [rows, padded], or NULL: −127 to 127
  const kindred_activation_block *blocks;  // [rows, padded / 32]
} kindred_activations;

/// Rows of activations as bf16 tiles, [rows / 16][columns / 32][16][32], both rounded up: element (i, k) is the sum of
/// those of `tiles` and `rest`, which may be NULL.
typedef struct {
  size_t columns;
  const uint16_t *tiles;
  const uint16_t *rest;
} kindred_tiles;

/// Ordinary attention of consecutive rows of one sequence, for the query heads of one KV head. Keys and values are
/// pages as `pack_key_tiles` and `pack_value_tiles` write them, one behind the other from position 0.
typedef struct {
  size_t d, heads, rows, first_position;
  float scale;
  const float *query;  // [rows][heads · d], rows `query_stride` apart
  size_t query_stride;
  const uint16_t *keys, *values;
  float *output;  // [rows][heads · d], rows `output_stride` apart
  size_t output_stride;
  float *log_sum_exp;  // [rows][heads], rows `log_sum_exp_stride` apart; may be NULL
  size_t log_sum_exp_stride;
} kindred_tile_attention;

/// The product of one lent head's rows with the values of `borrowers` KV heads.
typedef struct {
  size_t lent_d, d, rows, first_position, borrowers;
  float scale;
  const float *query;  // [rows][lent_d], rows `query_stride` apart
  size_t query_stride;
  const float *log_sum_exp;  // of each row, `log_sum_exp_stride` apart
  size_t log_sum_exp_stride;
  const uint16_t *keys;           // of the lending model
  const uint16_t *const *values;  // of each borrower
  float *const *outputs;          // of each borrower [rows][d], rows `output_stride` apart
  size_t output_stride;
} kindred_tile_loan;

/// Ordinary attention of a few queries of one KV head over consecutive pages, by the online softmax.
typedef struct {
  kindred_type type;
  size_t d, queries;
  /// Query i is at position first_position + i / heads.
  size_t heads, first_position;
  float scale;
  const float *query;  // [queries][d]
  /// The first page's position in units of pages, and the pages. Positions past the last query's are not read.
  size_t first_page, page_count;
  const void *const *keys, *const *values;  // [page_count]
  float *logits;                            // scratch, [queries][64]
  float *output;                            // [queries][d]: sums of weighted values
  float *maximum, *sum;                     // [queries]: the largest logit, and the sum of weights relative to it
  /// Where logits are kept, of query i and the request's page p at kept[i] + p · page_stride, 64 of which those past
  /// the query's position mean nothing; NULL for a query whose logits are not wanted, or for all.
  float *const *kept;
  size_t page_stride;
} kindred_attention;

/// Kept rows of some lent heads, times the values of one KV head.
typedef struct {
  kindred_type type;
  size_t d, loans, rows;
  /// Positions, from 0 on.
  size_t count;
  /// Of each loan, weights of page p at weights + p · page_stride: [rows][64].
  const float *const *weights;
  size_t page_stride;
  const void *const *values;  // pages
  float *tile;                // scratch, [loans · rows][64]
  float *output;              // [loans · rows][d]
} kindred_kept_loan;

// MARK: The kernels of one instruction set

typedef struct {
  kindred_isa isa;

  /// y = x / sqrt(mean(x²) + epsilon) · weight, over `n` elements. `weight` may be NULL (ones). y may be x.
  void (*rms_norm)(const float *x, const float *weight, float epsilon, size_t n, float *y);

  /// Quantises one row of `n` values; writes the `padded` quants and the blocks of `kindred_activations`, of 16 bits
  /// where `low` is not NULL.
  void (*quantize)(const float *x, size_t n, int8_t *quants, int8_t *low, kindred_activation_block *blocks);

  /// out[i · out_stride + r] (+)= Σ_k a[i, k] · w[r, k] + bias[r], for i < a_rows and the rows r < rows of
  /// panels panel_begin..<panel_end. `bias` may be NULL; with `accumulate` the result is added to `out`.
  void (*multiply)(kindred_type type, const void *panels, size_t panel_begin, size_t panel_end, size_t rows,
                   const kindred_activations *a, size_t a_rows, const float *bias, bool accumulate, float *out,
                   size_t out_stride);

  /// `multiply` for many rows, of quantised weights, for sets where it is faster, NULL for others: weights are rounded
  /// once more, to 8 bits with one scale for 256 columns of a row. Other results than `multiply`'s, but the same for any
  /// number of rows and panels.
  void (*multiply_rescaled)(kindred_type type, const void *panels, size_t panel_begin, size_t panel_end, size_t rows,
                            const kindred_activations *a, size_t a_rows, const float *bias, bool accumulate, float *out,
                            size_t out_stride);

  /// For sets with matrix tiles, NULL for others: writes `count` elements from column `first`, a multiple of 32, of one
  /// row of `kindred_tiles`. `rest` may be NULL.
  void (*pack_tile_row)(const float *x, size_t first, size_t count, size_t columns, size_t row, uint16_t *tiles,
                        uint16_t *rest);

  /// `multiply` for many rows, of quantised and bf16 weights, in bf16: other results than `multiply`'s, but the same
  /// for any number of rows and panels. `scratch` is KINDRED_TILE_SCRATCH_BYTES, aligned to 64, of this thread's own.
  void (*multiply_tiles)(kindred_type type, const void *panels, size_t panel_begin, size_t panel_end, size_t rows,
                         const kindred_tiles *a, size_t a_rows, const float *bias, bool accumulate, float *out,
                         size_t out_stride, void *scratch);

  /// Attention of many rows, for sets with dot products of pairs of 16-bit elements, NULL for others. A page of keys, or
  /// the first `count` values of a page and zeros, in the layout of the same table's two operations below: of keys
  /// 128 · d elements, of values 64 · d, d rounded up to a multiple of 32, aligned to 64.
  void (*pack_key_tiles)(kindred_type type, const void *page, size_t d, uint16_t *tiles);
  void (*pack_value_tiles)(kindred_type type, const void *page, size_t count, size_t d, uint16_t *tiles);
  void (*attend_tiles)(const kindred_tile_attention *request, void *scratch);
  void (*borrow_tiles)(const kindred_tile_loan *loan, void *scratch);

  /// Rotates one head vector in place: pairs (x[i], x[i + n/2]), or (x[2i], x[2i + 1]) where `interleaved`,
  /// by the angle whose cosine and sine are given for each i < n/2.
  void (*rotate)(float *x, size_t n, const float *cosines, const float *sines, bool interleaved);

  /// out = silu(gate) · up, over n elements. out may be gate or up.
  void (*silu_multiply)(const float *gate, const float *up, size_t n, float *out);

  /// Keys of one page: [page / 16][d][16]; `slot` < 64. Types F32, F16, BF16 (round to nearest even). Q8_0 and Q4_0, where
  /// d is a multiple of 32: [page / 16][d / 32] times the F16 scales of 16 keys and their quants, [32][16], or, of columns
  /// i and i + 16 in the low and the high half of a byte, [16][16].
  void (*store_key)(kindred_type type, const float *key, size_t d, size_t slot, void *page);
  /// Values of one page: [page][d]; or [page / 16][d / 32] times the F16 scales of 16 values and their quants, [16][32] or
  /// [16][16]. Of keys and of values, 16 positions from a multiple of 16 on lie together.
  void (*store_value)(kindred_type type, const float *value, size_t d, size_t slot, void *page);

  /// s[i · 64 + j] = scale · ⟨q_i, key_j⟩ for i < m, j < count (positions past `count` in its block of 16 may be
  /// computed too). q_i starts at q + i · q_stride. `s` is [m, 64].
  void (*scores)(kindred_type type, const float *q, size_t q_stride, size_t m, size_t d, const void *key_page,
                 size_t count, float scale, float *s);

  /// One page of an online softmax for one query: with M the larger of *maximum and max s[0..<valid],
  /// s[j] = exp(s[j] − M) for j < valid and 0 for the rest of 64; *sum = *sum · f + Σ s; *maximum = M.
  /// Returns f = exp(old maximum − M), 0 where the old maximum is −∞. valid ≥ 1.
  float (*softmax_step)(float *s, size_t valid, float *maximum, float *sum);

  /// s[j] = exp(s[j] − log_sum_exp) for j < valid, and 0 for the rest of 64.
  void (*exp_shifted)(float *s, size_t valid, float log_sum_exp);

  /// o[i · o_stride + c] += Σ_{j < count} p[i · 64 + j] · value[j][c], for i < m, c < d; j in rising order.
  void (*accumulate)(kindred_type type, const float *p, size_t m, const void *value_page, size_t count, size_t d,
                     float *o, size_t o_stride);

  /// Adds pages to what `output`, `maximum` and `sum` hold; at first 0, −∞ and 0.
  void (*attend)(const kindred_attention *request);
  /// Adds to `output`.
  void (*weigh_values)(const kindred_kept_loan *loan);

  /// Σ exp((x[i] − shift) / divisor) over n elements, NaN counted as 0; within 1e-6 of the true sum.
  double (*sum_exponentials)(const float *x, size_t n, float shift, float divisor);

  /// x *= factor, over n elements.
  void (*scale)(float *x, size_t n, float factor);
} kindred_kernels;

/// Whether this machine and this build can run `isa`.
bool kindred_isa_available(kindred_isa isa);

/// The best instruction set of this machine.
kindred_isa kindred_isa_best(void);

/// The kernels of `isa`, or NULL where it is not available.
const kindred_kernels *kindred_kernels_for(kindred_isa isa);

// MARK: Waiting

/// Sleeps while *word == expected, until woken (Linux futex; may wake spuriously).
void kindred_futex_wait(const uint32_t *word, uint32_t expected);
/// Wakes every thread that waits on `word`.
void kindred_futex_wake_all(const uint32_t *word);
/// One spin-loop pause.
void kindred_pause(void);

#ifdef __cplusplus
}
#endif

#endif
