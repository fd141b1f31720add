// The kernels for AVX2: compiled for it here alone, run only where the processor has it.
#if defined(__x86_64__)

#include "augment_kernels.h"

#include "avx2_unfused_begin.inc"

#include "augment_random.h"

#define AUGMENT_KERNELS kAvx2Augment
#include "augment_kernels.inc"

#include "simd_end.inc"

#endif
