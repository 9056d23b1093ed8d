#include "CKindredKernels.h"
