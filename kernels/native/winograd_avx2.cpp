// The kernels for AVX2: compiled for it here alone, run only where the processor has it.
#if defined(__x86_64__)

#include "winograd_kernels.h"

#include "avx2_begin.inc"

#define WIDTH 8
#define ROWS 6
#define WINOGRAD_KERNELS kAvx2Winograd
#include "winograd_kernels.inc"

#include "simd_end.inc"

#endif
