// Starts a program that nobody vouches for: a language model wrote it.
//
// On Linux the child is held by a seccomp filter that admits only the system calls of computing and of reading files:
// it has no socket, starts no process, writes, makes and removes no file, and signals no other process. Resource limits
// bound its processor time, its memory and its open files.
#ifndef CKINDRED_SANDBOX_H
#define CKINDRED_SANDBOX_H

#include <stdbool.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct {
  /// The program, its arguments and its environment; the last two end with a null pointer.
  const char *path;
  char *const *arguments;
  char *const *environment;
  /// The file that becomes standard input. Standard output and error lead nowhere.
  int input;
  /// Seconds of processor time.
  unsigned cpu_seconds;
  /// Bytes of address space.
  unsigned long memory_bytes;
  /// Whether the child is held by the filter. If it cannot be, nothing is run.
  bool isolated;
} kindred_sandbox;

/// Starts the child, in a process group of its own, which ends with the calling thread.
///
/// What the child writes to file descriptor 3 can be read from `*verdict`; it begins with `isolation:` where the child
/// could not be prepared, and no line of the program was run.
///
/// Returns the child's process id, or the negative `errno`.
pid_t kindred_sandbox_start(const kindred_sandbox *sandbox, int *verdict);

#ifdef __cplusplus
}
#endif
#endif
