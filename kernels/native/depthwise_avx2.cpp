// The kernels for AVX2: compiled for it here alone, run only where the processor has it.
#if defined(__x86_64__)

#include "depthwise_kernels.h"

#include "avx2_begin.inc"

#define WIDTH 8
#define DEPTHWISE_KERNELS kAvx2Depthwise
#include "depthwise_kernels.inc"

#include "simd_end.inc"

#endif
