// Attention of a few rows over runs of pages, for every instruction set: built of its `scores_ahead`, `softmax_step`,
// `accumulate_ahead` and `scale`, whose file includes this one behind them. While one page is worked on the next one
// is fetched: pages are read once, and at 16 KB each the processor does not foresee the next one.
#ifndef KINDRED_ATTENTION_PAGES_H
#define KINDRED_ATTENTION_PAGES_H

#include "CKindredKernels.h"

static void attend(const kindred_attention *r) {
  const size_t width = KINDRED_PAGE_POSITIONS;
  size_t end = r->first_position + (r->queries - 1) / r->heads + 1;
  for (size_t page = 0; page < r->page_count; page++) {
    size_t start = (r->first_page + page) * width;
    size_t count = end - start < width ? end - start : width;
    const void *next = page + 1 < r->page_count ? r->keys[page + 1] : r->values[page];
    scores_ahead(r->type, r->query, r->d, r->queries, r->d, r->keys[page], count, r->scale, r->logits, r->values[page]);
    for (size_t i = 0; i < r->queries; i++) {
      float *logits = r->logits + i * width;
      size_t seen = r->first_position + i / r->heads + 1;
      if (seen <= start) {
        __builtin_memset(logits, 0, width * sizeof *logits);
        continue;
      }
      if (r->kept && r->kept[i]) __builtin_memcpy(r->kept[i] + page * r->page_stride, logits, width * sizeof *logits);
      size_t valid = seen - start < width ? seen - start : width;
      float factor = softmax_step(logits, valid, r->maximum + i, r->sum + i);
      if (factor != 1) scale(r->output + i * r->d, r->d, factor);
    }
    accumulate_ahead(r->type, r->logits, r->queries, r->values[page], count, r->d, r->output, r->d, next);
  }
}

static void weigh_values(const kindred_kept_loan *r) {
  const size_t width = KINDRED_PAGE_POSITIONS, m = r->loans * r->rows;
  for (size_t page = 0; page * width < r->count; page++) {
    size_t left = r->count - page * width;
    for (size_t loan = 0; loan < r->loans; loan++)
      __builtin_memcpy(r->tile + loan * r->rows * width, r->weights[loan] + page * r->page_stride,
                       r->rows * width * sizeof *r->tile);
    const void *next = r->values[left > width ? page + 1 : page];
    accumulate_ahead(r->type, r->tile, m, r->values[page], left < width ? left : width, r->d, r->output, r->d, next);
  }
}

#endif
