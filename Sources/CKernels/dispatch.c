// What this machine can run, and the table of kernels for each instruction set.
#if defined(__linux__)
#define _GNU_SOURCE  // syscall
#endif
#include "kernels.h"

#if defined(__x86_64__)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

/// The bits of XCR0: the register state that the operating system saves.
static uint64_t saved_state(void) {
  uint32_t low, high;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (uint64_t)high << 32 | low;
}

static bool has(uint32_t word, uint32_t bits) { return (word & bits) == bits; }

/// Asks Linux for the tiles' state, which a process must do once.
static bool tiles_allowed(void) {
#if defined(__linux__)
  const long request_state = 0x1023, tile_data = 18;
  return syscall(SYS_arch_prctl, request_state, tile_data) == 0;
#else
  return false;
#endif
}

/// What x86-64 processors have of what the kernels use, each set with all before it.
typedef enum { HAS_NONE, HAS_AVX2, HAS_AVX512, HAS_AMX } x86_level;

static x86_level level_of_x86(void) {
  const uint32_t fma_xsave_avx_f16c = 1u << 12 | 1u << 27 | 1u << 28 | 1u << 29;
  const uint32_t avx2 = 1u << 5;
  const uint32_t f_dq_bw_vl = 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31;
  const uint32_t vnni = 1u << 11, bf16 = 1u << 5;
  const uint32_t amx_bf16_tile = 1u << 22 | 1u << 24;
  const uint64_t ymm = 0x6, zmm = 0xe6, tiles = 0x60000;

  uint32_t a, b, c, d;
  if (!__get_cpuid(1, &a, &b, &c, &d) || !has(c, fma_xsave_avx_f16c)) return HAS_NONE;
  uint64_t saved = saved_state();
  if ((saved & ymm) != ymm) return HAS_NONE;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !has(b, avx2)) return HAS_NONE;
  if ((saved & zmm) != zmm || !has(b, f_dq_bw_vl) || !has(c, vnni)) return HAS_AVX2;
  bool has_tiles = has(d, amx_bf16_tile) && (saved & tiles) == tiles;
  if (!__get_cpuid_count(7, 1, &a, &b, &c, &d) || !has(a, bf16)) return HAS_AVX2;
  return has_tiles ? HAS_AMX : HAS_AVX512;
}

static bool avx2_available(void) { return level_of_x86() >= HAS_AVX2; }
static bool avx512_available(void) { return level_of_x86() >= HAS_AVX512; }
static bool amx_available(void) { return level_of_x86() >= HAS_AMX && tiles_allowed(); }
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>

static bool neon_available(void) {
  const unsigned long asimddp = 1ul << 20;
  return (getauxval(AT_HWCAP) & asimddp) != 0;
}
#elif defined(__aarch64__)
// Every Apple processor of this architecture that runs macOS has the dot product.
static bool neon_available(void) { return true; }
#endif

static bool always_available(void) { return true; }

/// The instruction sets of this architecture, best first.
static const struct {
  kindred_isa isa;
  bool (*available)(void);
  const kindred_kernels *kernels;
} instruction_sets[] = {
#if defined(__x86_64__)
    {KINDRED_ISA_AMX, amx_available, &kindred_amx},
    {KINDRED_ISA_AVX512, avx512_available, &kindred_avx512},
    {KINDRED_ISA_AVX2, avx2_available, &kindred_avx2},
#elif defined(__aarch64__)
    {KINDRED_ISA_NEON, neon_available, &kindred_neon},
#endif
    {KINDRED_ISA_GENERIC, always_available, &kindred_generic},
};

enum { INSTRUCTION_SETS = sizeof instruction_sets / sizeof *instruction_sets };

const kindred_kernels *kindred_kernels_for(kindred_isa isa) {
  for (size_t i = 0; i < INSTRUCTION_SETS; i++)
    if (instruction_sets[i].isa == isa && instruction_sets[i].available()) return instruction_sets[i].kernels;
  return NULL;
}

bool kindred_isa_available(kindred_isa isa) { return kindred_kernels_for(isa) != NULL; }

kindred_isa kindred_isa_best(void) {
  size_t i = 0;
  while (!instruction_sets[i].available()) i++;
  return instruction_sets[i].isa;
}
