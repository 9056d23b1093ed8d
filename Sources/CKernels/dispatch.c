// What this machine can run, and the table of kernels for each instruction set.
#include "kernels.h"

bool kindred_isa_available(kindred_isa isa) { return isa == KINDRED_ISA_GENERIC; }

kindred_isa kindred_isa_best(void) { return KINDRED_ISA_GENERIC; }

const kindred_kernels *kindred_kernels_for(kindred_isa isa) {
  return kindred_isa_available(isa) ? &kindred_generic : NULL;
}
