// The child's side of the sandbox, from fork to exec: only calls that are safe after fork in a process of many threads.
// The filter: seccomp(2). Architectures: x86-64 and AArch64; on others, and on other systems, nothing can be isolated.

#define _GNU_SOURCE
#include "CKindredSandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#if defined(__linux__)
#include <sys/prctl.h>
#include <sys/syscall.h>
#endif

#if defined(__linux__) && (defined(__x86_64__) || defined(__aarch64__))
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/ioctl.h>

#if defined(__x86_64__)
#define THIS_ARCHITECTURE AUDIT_ARCH_X86_64
#else
#define THIS_ARCHITECTURE AUDIT_ARCH_AARCH64
#endif

/// Calls that are admitted whatever their arguments.
static const int admitted[] = {
#ifdef __NR_stat
  __NR_access, __NR_arch_prctl, __NR_getdents, __NR_lstat, __NR_poll, __NR_readlink, __NR_select, __NR_stat, __NR_time,
#endif
  __NR_brk, __NR_clock_getres, __NR_clock_gettime, __NR_clock_nanosleep, __NR_close, __NR_dup, __NR_dup3, __NR_execve,
  __NR_exit, __NR_exit_group, __NR_faccessat, __NR_fstat, __NR_fstatfs, __NR_futex, __NR_getcwd, __NR_getdents64,
  __NR_getegid, __NR_geteuid, __NR_getgid, __NR_getpid, __NR_getppid, __NR_getrandom, __NR_getrusage,
  __NR_gettid, __NR_gettimeofday, __NR_getuid, __NR_lseek, __NR_madvise, __NR_mmap, __NR_mprotect, __NR_mremap,
  __NR_munmap, __NR_nanosleep, __NR_newfstatat, __NR_ppoll, __NR_pread64, __NR_pselect6, __NR_read, __NR_readlinkat,
  __NR_readv, __NR_restart_syscall, __NR_rt_sigaction, __NR_rt_sigprocmask, __NR_rt_sigreturn, __NR_sched_getaffinity,
  __NR_sched_yield, __NR_set_robust_list, __NR_set_tid_address, __NR_sigaltstack, __NR_statfs, __NR_statx,
  __NR_sysinfo, __NR_times, __NR_uname, __NR_write, __NR_writev,
#ifdef __NR_faccessat2
  __NR_faccessat2,
#endif
#ifdef __NR_rseq
  __NR_rseq,
#endif
};

enum { most_instructions = 400 };

typedef struct {
  struct sock_filter code[most_instructions];
  unsigned short count;
} filter;

static void add(filter *f, unsigned short code, unsigned value, unsigned char yes, unsigned char no) {
  f->code[f->count++] = (struct sock_filter)BPF_JUMP(code, value, yes, no);
}

static void load_argument(filter *f, int index) {
  // Both architectures are little-endian: the low half comes first. All arguments that are looked at are `int`s.
  add(f, BPF_LD | BPF_W | BPF_ABS, (unsigned)(offsetof(struct seccomp_data, args) + 8 * (unsigned)index), 0, 0);
}

static void answer(filter *f, unsigned action) { add(f, BPF_RET | BPF_K, action, 0, 0); }

/// Admits `call` if argument `index` is one of `values`.
static void admit_values(filter *f, int call, int index, const unsigned *values, int count) {
  add(f, BPF_JMP | BPF_JEQ | BPF_K, (unsigned)call, 0, (unsigned char)(2 * count + 2));
  load_argument(f, index);
  for (int i = 0; i < count; i++) {
    add(f, BPF_JMP | BPF_JEQ | BPF_K, values[i], 0, 1);
    answer(f, SECCOMP_RET_ALLOW);
  }
  answer(f, SECCOMP_RET_ERRNO | EPERM);
}

/// Admits `call` if of the bits `mask` of argument `index` some are set, or, without `set`, none.
static void admit_bits(filter *f, int call, int index, unsigned mask, bool set) {
  add(f, BPF_JMP | BPF_JEQ | BPF_K, (unsigned)call, 0, 4);
  load_argument(f, index);
  add(f, BPF_JMP | BPF_JSET | BPF_K, mask, set ? 0 : 1, set ? 1 : 0);
  answer(f, SECCOMP_RET_ALLOW);
  answer(f, SECCOMP_RET_ERRNO | EPERM);
}

static void build(filter *f) {
  const unsigned self = (unsigned)getpid();
  const unsigned descriptor_commands[] = {F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_DUPFD_CLOEXEC};
  const unsigned terminal_queries[] = {TCGETS, TIOCGWINSZ, FIOCLEX, FIONCLEX};
  const unsigned nobody_else[] = {0, self};
  const unsigned writing = O_WRONLY | O_RDWR | O_CREAT | O_TRUNC;
  const unsigned clone_thread = 0x10000;
  f->count = 0;
  add(f, BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch), 0, 0);
  add(f, BPF_JMP | BPF_JEQ | BPF_K, THIS_ARCHITECTURE, 1, 0);
  answer(f, SECCOMP_RET_KILL_PROCESS);
  add(f, BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr), 0, 0);
  for (unsigned i = 0; i < sizeof(admitted) / sizeof(admitted[0]); i++) {
    add(f, BPF_JMP | BPF_JEQ | BPF_K, (unsigned)admitted[i], 0, 1);
    answer(f, SECCOMP_RET_ALLOW);
  }
#ifdef __NR_open
  admit_bits(f, __NR_open, 1, writing, false);
#endif
  admit_bits(f, __NR_openat, 2, writing, false);
  admit_bits(f, __NR_clone, 0, clone_thread, true);
  admit_values(f, __NR_fcntl, 1, descriptor_commands, 5);
  admit_values(f, __NR_ioctl, 1, terminal_queries, 4);
  admit_values(f, __NR_prlimit64, 0, nobody_else, 2);
  // Not 0, which for kill is the whole group, though that is the child alone.
  admit_values(f, __NR_kill, 0, nobody_else + 1, 1);
  admit_values(f, __NR_tgkill, 0, nobody_else + 1, 1);
#ifdef __NR_clone3
  // Its flags are behind a pointer. The C library then falls back to clone.
  add(f, BPF_JMP | BPF_JEQ | BPF_K, __NR_clone3, 0, 1);
  answer(f, SECCOMP_RET_ERRNO | ENOSYS);
#endif
  answer(f, SECCOMP_RET_ERRNO | EPERM);
}

/// Holds this process by the filter, for good.
static const char *isolate(void) {
  filter f;
  build(&f);
  struct sock_fprog program = {.len = f.count, .filter = f.code};
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return "isolation: no_new_privs";
  if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0) != 0) return "isolation: no seccomp filters";
  return NULL;
}
#else
static const char *isolate(void) { return "isolation: only on Linux for x86-64 and AArch64"; }
#endif

static bool limit(int resource, rlim_t most) {
  struct rlimit value = {.rlim_cur = most, .rlim_max = most};
  return setrlimit(resource, &value) == 0;
}

/// Signals as they are at the start of a program: whatever the parent ignores or blocks.
static void reset_signals(void) {
  sigset_t none;
  sigemptyset(&none);
  for (int number = 1; number < NSIG; number++) signal(number, SIG_DFL);
  sigprocmask(SIG_SETMASK, &none, NULL);
}

static void close_from(int first) {
#if defined(__linux__) && defined(__NR_close_range)
  if (syscall(__NR_close_range, first, ~0U, 0) == 0) return;
#endif
  struct rlimit files;
  const int most = getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur < 1 << 20 ? (int)files.rlim_cur : 1 << 20;
  for (int descriptor = first; descriptor < most; descriptor++) close(descriptor);
}

/// Everything before exec; returns what failed.
static const char *prepare(const kindred_sandbox *sandbox) {
  reset_signals();
  setsid();
#if defined(__linux__)
  prctl(PR_SET_PDEATHSIG, SIGKILL);
#endif
  const int nowhere = open("/dev/null", O_WRONLY);
  if (nowhere < 0 || dup2(nowhere, 1) < 0 || dup2(nowhere, 2) < 0) return "isolation: no /dev/null";
  close_from(4);
  if (chdir("/") != 0) return "isolation: no root folder";
  const bool limited = limit(RLIMIT_CPU, sandbox->cpu_seconds) && limit(RLIMIT_AS, sandbox->memory_bytes) &&
                       limit(RLIMIT_FSIZE, 0) && limit(RLIMIT_CORE, 0) && limit(RLIMIT_NOFILE, 64);
  if (!limited) return "isolation: no resource limits";
  return sandbox->isolated ? isolate() : NULL;
}

pid_t kindred_sandbox_start(const kindred_sandbox *sandbox, int *verdict) {
  int ends[2];
#if defined(__linux__)
  if (pipe2(ends, O_CLOEXEC) != 0) return -errno;
#else
  if (pipe(ends) != 0) return -errno;
#endif
  const pid_t child = fork();
  if (child == 0) {
    // Above 0 and 3, so that neither is overwritten before it is duplicated.
    const int input = fcntl(sandbox->input, F_DUPFD, 10), output = fcntl(ends[1], F_DUPFD, 10);
    if (input < 0 || output < 0 || dup2(input, 0) < 0 || dup2(output, 3) < 0) _exit(126);
    const char *problem = prepare(sandbox);
    if (!problem) {
      execve(sandbox->path, sandbox->arguments, sandbox->environment);
      problem = "isolation: the program cannot be started";
    }
    (void)!write(3, problem, strlen(problem));
    _exit(126);
  }
  const int error = errno;
  close(ends[1]);
  if (child < 0) {
    close(ends[0]);
    return -error;
  }
  *verdict = ends[0];
  return child;
}
