// What this machine can run, and the table of kernels for each instruction set. A new one is a row here.
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

static bool x86_available(kindred_isa isa) {
  const uint32_t fma_xsave_avx_f16c = 1u << 12 | 1u << 27 | 1u << 28 | 1u << 29;
  const uint32_t avx2 = 1u << 5;
  const uint32_t f_dq_bw_vl = 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31;
  const uint32_t vnni = 1u << 11, bf16 = 1u << 5;
  const uint32_t amx_bf16_tile = 1u << 22 | 1u << 24;
  const uint64_t ymm = 0x6, zmm = 0xe6, tiles = 0x60000;

  uint32_t a, b, c, d;
  if (!__get_cpuid(1, &a, &b, &c, &d) || !has(c, fma_xsave_avx_f16c)) return false;
  uint64_t saved = saved_state();
  if ((saved & ymm) != ymm) return false;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !has(b, avx2)) return false;
  if (isa == KINDRED_ISA_AVX2) return true;
  if ((saved & zmm) != zmm || !has(b, f_dq_bw_vl) || !has(c, vnni)) return false;
  bool has_tiles = has(d, amx_bf16_tile) && (saved & tiles) == tiles;
  if (!__get_cpuid_count(7, 1, &a, &b, &c, &d) || !has(a, bf16)) return false;
  return isa == KINDRED_ISA_AVX512 || (has_tiles && tiles_allowed());
}
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

bool kindred_isa_available(kindred_isa isa) {
  switch (isa) {
  case KINDRED_ISA_GENERIC: return true;
#if defined(__x86_64__)
  case KINDRED_ISA_AVX2:
  case KINDRED_ISA_AVX512:
  case KINDRED_ISA_AMX: return x86_available(isa);
#elif defined(__aarch64__)
  case KINDRED_ISA_NEON: return neon_available();
#endif
  default: return false;
  }
}

kindred_isa kindred_isa_best(void) {
  const kindred_isa preference[] = {KINDRED_ISA_AMX, KINDRED_ISA_AVX512, KINDRED_ISA_AVX2, KINDRED_ISA_NEON};
  for (size_t i = 0; i < sizeof preference / sizeof *preference; i++)
    if (kindred_isa_available(preference[i])) return preference[i];
  return KINDRED_ISA_GENERIC;
}

const kindred_kernels *kindred_kernels_for(kindred_isa isa) {
  if (!kindred_isa_available(isa)) return NULL;
  switch (isa) {
  case KINDRED_ISA_GENERIC: return &kindred_generic;
#if defined(__x86_64__)
  case KINDRED_ISA_AVX2: return &kindred_avx2;
  case KINDRED_ISA_AVX512: return &kindred_avx512;
  case KINDRED_ISA_AMX: return &kindred_amx;
#elif defined(__aarch64__)
  case KINDRED_ISA_NEON: return &kindred_neon;
#endif
  default: return NULL;
  }
}
