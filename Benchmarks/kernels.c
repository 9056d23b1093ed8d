// Times `multiply` of every weight type for 1 and 512 activation rows, beside the ceilings measured in the
// same run: reading memory, and for AVX-512 a loop of nothing but `vpdpbusd`.
//
// clang -std=c11 -O2 -ISources/CKernels/include Benchmarks/kernels.c Sources/CKernels/*.c -lm -lpthread -o
// /tmp/kernels /tmp/kernels [isa 0…3] [threads] [rows] [columns] [megabytes of weights for one activation
// row]
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "CKindredKernels.h"

enum { MOST_THREADS = 64, REPEATS = 5 };

static size_t threads = 2;

/// Seconds of processor time of this thread, which other programs disturb less than wall-clock time.
static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

typedef struct {
  void (*body)(void *context, size_t thread);
  void *context;
  size_t thread;
  double seconds;
} job;

static void *run_job(void *argument) {
  job *j = argument;
  double start = now();
  j->body(j->context, j->thread);
  j->seconds = now() - start;
  return NULL;
}

/// Seconds of the slowest thread in the fastest of several parallel runs.
static double fastest(void (*body)(void *, size_t), void *context) {
  double best = 1e9;
  for (int repeat = 0; repeat < REPEATS; repeat++) {
    pthread_t ids[MOST_THREADS];
    job jobs[MOST_THREADS];
    for (size_t t = 0; t < threads; t++) {
      jobs[t] = (job){body, context, t, 0};
      if (t > 0) pthread_create(&ids[t], NULL, run_job, &jobs[t]);
    }
    run_job(&jobs[0]);
    double slowest = jobs[0].seconds;
    for (size_t t = 1; t < threads; t++) {
      pthread_join(ids[t], NULL);
      if (jobs[t].seconds > slowest) slowest = jobs[t].seconds;
    }
    if (slowest < best) best = slowest;
  }
  return best;
}

// MARK: Ceilings

typedef struct {
  const uint8_t *bytes;
  size_t count;
} memory;

static void read_memory(void *context, size_t thread) {
  memory *m = context;
  const uint64_t *words = (const uint64_t *)(m->bytes + m->count / threads / 64 * 64 * thread);
  uint64_t sums[8] = {0};
  for (size_t i = 0; i < m->count / threads / 64 * 8; i += 8) {
    __builtin_prefetch(words + i + 512);
    for (int j = 0; j < 8; j++) sums[j] ^= words[i + (size_t)j];
  }
  volatile uint64_t sink = sums[0] ^ sums[1] ^ sums[2] ^ sums[3] ^ sums[4] ^ sums[5] ^ sums[6] ^ sums[7];
  (void)sink;
}

#if defined(__x86_64__)
enum { PEAK_STEPS = 4000000 };

__attribute__((target("avx512f,avx512vnni"))) static void peak(void *context, size_t thread) {
  (void)context, (void)thread;
  __m512i sums[12] = {0}, x = _mm512_set1_epi32(now() > 0 ? 0x01020304 : 0);
  for (int i = 0; i < PEAK_STEPS; i++)
    for (int j = 0; j < 12; j++) {
      sums[j] = _mm512_dpbusd_epi32(sums[j], x, x);
      __asm__ volatile("" : "+v"(sums[j]));
    }
}
#endif

// MARK: Products

typedef struct {
  const kindred_kernels *kernels;
  kindred_type type;
  const void *panels;
  size_t panel_count, copies, a_rows;
  kindred_activations a;
  float *out;
} product;

static void multiply(void *context, size_t thread) {
  product *p = context;
  size_t begin = p->panel_count * thread / threads, end = p->panel_count * (thread + 1) / threads;
  size_t bytes = p->panel_count * kindred_panel_bytes(p->type, p->a.columns);
  for (size_t copy = 0; copy < p->copies; copy++)
    p->kernels->multiply(p->type, (const uint8_t *)p->panels + copy * bytes, begin, end, p->panel_count * 32,
                         &p->a, p->a_rows, NULL, false, p->out, p->panel_count * 32);
}

static void *aligned(size_t bytes) {
  void *p = NULL;
  if (posix_memalign(&p, 64, bytes) != 0) exit(1);
  memset(p, 0x3c, bytes);  // as a float or half a number of ordinary size
  return p;
}

static kindred_activations activations(const kindred_kernels *kernels, size_t rows, size_t columns) {
  size_t padded = (columns + 63) / 64 * 64;
  float *values = aligned(rows * columns * sizeof *values), *scales = aligned(rows * padded / 8);
  int8_t *quants = aligned(rows * padded);
  int32_t *sums = aligned(rows * padded / 4);
  for (size_t i = 0; i < rows * columns; i++) values[i] = (float)(rand() % 2001 - 1000) / 1000;
  for (size_t i = 0; i < rows; i++)
    kernels->quantize(values + i * columns, columns, quants + i * padded, scales + i * padded / 32,
                      sums + i * padded / 16);
  return (kindred_activations){columns, values, quants, scales, sums};
}

int main(int count, char **arguments) {
  kindred_isa isa = count > 1 ? (kindred_isa)atoi(arguments[1]) : kindred_isa_best();
  threads = count > 2 ? (size_t)atoi(arguments[2]) : 2;
  size_t rows = count > 3 ? (size_t)atoi(arguments[3]) : 8960;
  size_t columns = count > 4 ? (size_t)atoi(arguments[4]) : 1536;
  memory weights = {NULL, (count > 5 ? (size_t)atoi(arguments[5]) : 512) << 20};
  const kindred_kernels *kernels = kindred_kernels_for(isa);
  if (kernels == NULL || threads == 0 || threads > MOST_THREADS) return 1;
  weights.bytes = aligned(weights.count);
  kindred_activations a = activations(kernels, 512, columns);
  float *out = aligned(512 * rows * sizeof *out);

  printf("read %.1f GB/s\n", (double)weights.count / fastest(read_memory, &weights) / 1e9);
#if defined(__x86_64__)
  if (isa == KINDRED_ISA_AVX512)
    printf("int8 peak %.0f GOP/s\n", (double)threads * PEAK_STEPS * 12 * 128 / fastest(peak, NULL) / 1e9);
#endif
  struct {
    const char *name;
    kindred_type type;
  } types[] = {{"Q4_0", KINDRED_Q4_0}, {"Q4_1", KINDRED_Q4_1}, {"Q5_0", KINDRED_Q5_0}, {"Q5_1", KINDRED_Q5_1},
               {"Q8_0", KINDRED_Q8_0}, {"Q2_K", KINDRED_Q2_K}, {"Q3_K", KINDRED_Q3_K}, {"Q4_K", KINDRED_Q4_K},
               {"Q5_K", KINDRED_Q5_K}, {"Q6_K", KINDRED_Q6_K}, {"F32", KINDRED_F32},   {"F16", KINDRED_F16},
               {"BF16", KINDRED_BF16}};
  for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
    size_t bytes = rows / 32 * kindred_panel_bytes(types[i].type, columns);
    if (bytes == 0 || bytes > weights.count) continue;
    product p = {kernels, types[i].type, weights.bytes, rows / 32, weights.count / bytes, 1, a, out};
    double read = (double)weights.count / fastest(read_memory, &weights) / 1e9;
    double one = fastest(multiply, &p) / (double)p.copies;
    printf("%-5s M=1 %6.1f GB/s (%3.0f%% of %.1f)", types[i].name, (double)bytes / one / 1e9,
           100 * (double)bytes / one / 1e9 / read, read);
    // Many rows are bound by arithmetic; once over the matrix suffices.
    for (size_t m = 2; m <= 512; m = m == 8 ? 512 : m * 2) {
      p.a_rows = m;
      if (m == 512) p.copies = 1;
      double seconds = fastest(multiply, &p) / (double)p.copies;
      if (m < 512) printf("  M=%zu ×%.2f", m, seconds / one);
      else printf("  M=%zu %6.0f GOP/s\n", m, 2.0 * (double)(m * rows / 32 * 32 * columns) / seconds / 1e9);
      fflush(stdout);
    }
  }
}
