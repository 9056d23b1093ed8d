// The kernel table of each instruction set; dispatch.c chooses among them.
#ifndef KINDRED_KERNELS_H
#define KINDRED_KERNELS_H

#include "CKindredKernels.h"

#pragma GCC visibility push(hidden)
extern const kindred_kernels kindred_generic;
#if defined(__x86_64__)
extern const kindred_kernels kindred_avx2;
extern const kindred_kernels kindred_avx512;
extern const kindred_kernels kindred_amx;
#elif defined(__aarch64__)
extern const kindred_kernels kindred_neon;
#endif
#pragma GCC visibility pop

#endif
