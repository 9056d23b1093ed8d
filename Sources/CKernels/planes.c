// The two int8 planes of activations. These loops are a few percent of a product; compilers vectorise them for any
// processor, so they have no variants.
#include "CKindredKernels.h"

void kindred_residual(const float *x, size_t count, const int8_t *quants, const kindred_activation_block *blocks,
                      float *rest) {
  for (size_t start = 0; start < count; start += KINDRED_ACTIVATION_BLOCK) {
    size_t end = start + KINDRED_ACTIVATION_BLOCK < count ? start + KINDRED_ACTIVATION_BLOCK : count;
    float scale = blocks[start / KINDRED_ACTIVATION_BLOCK].scale;
    for (size_t k = start; k < end; k++) rest[k] = x[k] - scale * (float)quants[k];
  }
}

void kindred_add_planes(const float *first, const float *second, const float *bias, bool accumulate, size_t count,
                        float *out) {
  for (size_t r = 0; r < count; r++) {
    // In the order of two calls of `multiply`, the second of which adds to the first.
    float sum = first[r] + (bias ? bias[r] : 0);
    out[r] = (accumulate ? out[r] + sum : sum) + second[r];
  }
}
