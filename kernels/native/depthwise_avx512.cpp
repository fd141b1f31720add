// The kernels for AVX512: compiled for it here alone, run only where the processor has it.
#if defined(__x86_64__)

#include "depthwise_kernels.h"

#include "avx512_begin.inc"

#define WIDTH 16
#define DEPTHWISE_KERNELS kAvx512Depthwise
#include "depthwise_kernels.inc"

#include "simd_end.inc"

#endif
