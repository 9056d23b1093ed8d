// Sleeping and waking on a word of memory (Linux futex), and the pause of a spin loop.
#define _GNU_SOURCE  // for syscall()
#include "CKindredKernels.h"

#if defined(__linux__)
#include <limits.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

void kindred_futex_wait(const uint32_t *word, uint32_t expected) {
  syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, expected, NULL, NULL, 0);
}

void kindred_futex_wake_all(const uint32_t *word) {
  syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}
#else
#include <sched.h>

// Elsewhere a waiter yields and returns, which the contract calls a spurious wake.
void kindred_futex_wait(const uint32_t *word, uint32_t expected) {
  if (__atomic_load_n(word, __ATOMIC_ACQUIRE) == expected) sched_yield();
}

void kindred_futex_wake_all(const uint32_t *word) { (void)word; }
#endif

void kindred_pause(void) {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}
