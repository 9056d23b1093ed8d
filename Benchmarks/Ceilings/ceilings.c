// See ceilings.h. Sums are kept in registers, as many as hide the latency of an instruction; an empty `asm` keeps the
// compiler from folding them.
#define _GNU_SOURCE
#include "ceilings.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MOST_THREADS = 256, REPEATS = 5 };

typedef struct {
  void (*body)(void *context, size_t thread, size_t threads);
  void *context;
  size_t thread, threads;
  pthread_barrier_t *start;
} job;

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void *run(void *argument) {
  job *j = argument;
  for (int repeat = 0; repeat < REPEATS; repeat++) {
    pthread_barrier_wait(j->start);
    j->body(j->context, j->thread, j->threads);
    pthread_barrier_wait(j->start);
  }
  return NULL;
}

/// Seconds of the fastest of several runs on all threads; 0 where threads cannot be had.
static double fastest(void (*body)(void *, size_t, size_t), void *context, size_t threads) {
  if (threads == 0 || threads > MOST_THREADS) return 0;
  pthread_barrier_t start;
  pthread_t ids[MOST_THREADS];
  job jobs[MOST_THREADS];
  if (pthread_barrier_init(&start, NULL, (unsigned)threads + 1) != 0) return 0;
  for (size_t t = 0; t < threads; t++) {
    jobs[t] = (job){body, context, t, threads, &start};
    if (pthread_create(&ids[t], NULL, run, &jobs[t]) != 0) abort();
  }
  double best = 0;
  for (int repeat = 0; repeat < REPEATS; repeat++) {
    pthread_barrier_wait(&start);
    double begin = now();
    pthread_barrier_wait(&start);
    double seconds = now() - begin;
    if (repeat == 0 || seconds < best) best = seconds;
  }
  for (size_t t = 0; t < threads; t++) pthread_join(ids[t], NULL);
  pthread_barrier_destroy(&start);
  return best;
}

// MARK: Memory

typedef struct {
  const uint8_t *bytes;
  size_t count;
} memory;

/// Four places by turns: the processor foresees each stream of reads by itself, and keeps more of them under way.
static void read_memory(void *context, size_t thread, size_t threads) {
  enum { STREAMS = 4, LINE = 8 };
  const memory *m = context;
  size_t words = m->count / threads / (STREAMS * LINE * sizeof(uint64_t)) * LINE;
  const uint64_t *first = (const uint64_t *)m->bytes + thread * STREAMS * words;
  uint64_t sums[LINE] = {0};
  for (size_t i = 0; i < words; i += LINE)
    for (size_t stream = 0; stream < STREAMS; stream++)
      for (size_t j = 0; j < LINE; j++) sums[j] ^= first[stream * words + i + j];
  volatile uint64_t sink = sums[0] ^ sums[1] ^ sums[2] ^ sums[3] ^ sums[4] ^ sums[5] ^ sums[6] ^ sums[7];
  (void)sink;
}

double ceiling_read(size_t bytes, size_t threads) {
  void *p = NULL;
  if (posix_memalign(&p, 64, bytes) != 0) return 0;
  memset(p, 1, bytes);
  memory m = {p, bytes};
  double seconds = fastest(read_memory, &m, threads);
  free(p);
  return seconds > 0 ? (double)bytes / seconds : 0;
}

// MARK: Arithmetic

/// A loop of one kind of instruction, with what one of its steps is worth.
typedef struct {
  void (*body)(void *context, size_t thread, size_t threads);
  size_t steps;
  double operations;
} loop;

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>

enum { STEPS = 4000000, SUMS = 12, TILE_STEPS = 1000000, TILE_SUMS = 4 };

/// `SUMS` independent sums of one instruction, `STEPS` times.
#define PEAK(name, features, vector, zero, expression)                            \
  __attribute__((target(features))) static void name(void *c, size_t t, size_t n) { \
    (void)c, (void)t, (void)n;                                                    \
    vector sums[SUMS], x = zero;                                                  \
    __asm__ volatile("" : "+v"(x));                                               \
    for (int j = 0; j < SUMS; j++) sums[j] = x;                                   \
    for (int i = 0; i < STEPS; i++)                                               \
      for (int j = 0; j < SUMS; j++) {                                            \
        sums[j] = expression;                                                     \
        __asm__ volatile("" : "+v"(sums[j]));                                     \
      }                                                                           \
  }

PEAK(fma_256, "avx2,fma", __m256, _mm256_setzero_ps(), _mm256_fmadd_ps(x, x, sums[j]))
PEAK(madd_256, "avx2", __m256i, _mm256_setzero_si256(),
     _mm256_add_epi32(sums[j], _mm256_madd_epi16(_mm256_maddubs_epi16(sums[j], x), x)))
PEAK(vnni_512, "avx512f,avx512vnni", __m512i, _mm512_setzero_si512(), _mm512_dpbusd_epi32(sums[j], x, x))
PEAK(bf16_512, "avx512f,avx512bf16", __m512, _mm512_setzero_ps(),
     _mm512_dpbf16_ps(sums[j], (__m512bh)_mm512_castps_si512(x), (__m512bh)_mm512_castps_si512(x)))

#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>

static bool tiles_allowed(void) { return syscall(SYS_arch_prctl, 0x1023, 18) == 0; }

__attribute__((target("amx-tile"))) static void load_tiles(void) {
  uint8_t configuration[64] = {1};
  for (int tile = 0; tile < 8; tile++) {
    configuration[16 + 2 * tile] = 64;  // bytes of a row
    configuration[48 + tile] = 16;      // rows
  }
  _tile_loadconfig(configuration);
  _tile_zero(0), _tile_zero(1), _tile_zero(2), _tile_zero(3), _tile_zero(4), _tile_zero(5);
}

/// Four independent sums of products of two tiles.
#define TILE_PEAK(name, features, instruction)                                    \
  __attribute__((target(features))) static void name(void *c, size_t t, size_t n) { \
    (void)c, (void)t, (void)n;                                                    \
    load_tiles();                                                                 \
    for (int i = 0; i < TILE_STEPS; i++) {                                        \
      instruction(0, 4, 5);                                                       \
      instruction(1, 4, 5);                                                       \
      instruction(2, 4, 5);                                                       \
      instruction(3, 4, 5);                                                       \
    }                                                                             \
    _tile_release();                                                              \
  }

TILE_PEAK(tile_bf16, "amx-tile,amx-bf16", _tile_dpbf16ps)
TILE_PEAK(tile_int8, "amx-tile,amx-int8", _tile_dpbusd)
#else
static bool tiles_allowed(void) { return false; }
static void tile_bf16(void *c, size_t t, size_t n) { (void)c, (void)t, (void)n; }
static void tile_int8(void *c, size_t t, size_t n) { (void)c, (void)t, (void)n; }
#endif

static loop loop_of(ceiling kind) {
  unsigned a, b = 0, c = 0, d = 0, bf16 = 0;
  const loop none = {NULL, 0, 0};
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return none;
  unsigned e, f, g;
  __get_cpuid_count(7, 1, &bf16, &e, &f, &g);
  bool vectors = __builtin_cpu_supports("avx512f");
  switch (kind) {
  case CEILING_FMA_256:
    return __builtin_cpu_supports("fma") ? (loop){fma_256, STEPS, SUMS * 16} : none;
  case CEILING_MADD_256:
    return __builtin_cpu_supports("avx2") ? (loop){madd_256, STEPS, SUMS * 64} : none;
  case CEILING_BF16_512: return vectors && (bf16 & 1u << 5) ? (loop){bf16_512, STEPS, SUMS * 64} : none;
  case CEILING_VNNI_512: return vectors && (c & 1u << 11) ? (loop){vnni_512, STEPS, SUMS * 128} : none;
  case CEILING_TILE_BF16:
    return (d & 1u << 22) && tiles_allowed() ? (loop){tile_bf16, TILE_STEPS, TILE_SUMS * 16384} : none;
  case CEILING_TILE_INT8:
    return (d & 1u << 25) && tiles_allowed() ? (loop){tile_int8, TILE_STEPS, TILE_SUMS * 32768} : none;
  default: return none;
  }
}

#elif defined(__aarch64__)
#include <arm_neon.h>

enum { STEPS = 4000000, SUMS = 12 };

static void fmla_128(void *c, size_t t, size_t n) {
  (void)c, (void)t, (void)n;
  float32x4_t sums[SUMS], x = vdupq_n_f32(0);
  for (int j = 0; j < SUMS; j++) sums[j] = x;
  for (int i = 0; i < STEPS; i++)
    for (int j = 0; j < SUMS; j++) {
      sums[j] = vfmaq_f32(sums[j], x, x);
      __asm__ volatile("" : "+w"(sums[j]));
    }
}

__attribute__((target("dotprod"))) static void dot_128(void *c, size_t t, size_t n) {
  (void)c, (void)t, (void)n;
  int32x4_t sums[SUMS];
  int8x16_t x = vdupq_n_s8(0);
  for (int j = 0; j < SUMS; j++) sums[j] = vdupq_n_s32(0);
  for (int i = 0; i < STEPS; i++)
    for (int j = 0; j < SUMS; j++) {
      sums[j] = vdotq_s32(sums[j], x, x);
      __asm__ volatile("" : "+w"(sums[j]));
    }
}

static loop loop_of(ceiling kind) {
  switch (kind) {
  case CEILING_FMLA_128: return (loop){fmla_128, STEPS, SUMS * 8};
  case CEILING_DOT_128: return (loop){dot_128, STEPS, SUMS * 32};
  default: return (loop){NULL, 0, 0};
  }
}
#else
static loop loop_of(ceiling kind) {
  (void)kind;
  return (loop){NULL, 0, 0};
}
#endif

double ceiling_operations(ceiling kind, size_t threads) {
  loop l = loop_of(kind);
  double seconds = l.body == NULL ? 0 : fastest(l.body, NULL, threads);
  return seconds > 0 ? (double)threads * (double)l.steps * l.operations / seconds : 0;
}
