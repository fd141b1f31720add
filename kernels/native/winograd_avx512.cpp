// The kernels for AVX512: compiled for it here alone, run only where the processor has it.
#if defined(__x86_64__)

#include "winograd_kernels.h"

#include "avx512_begin.inc"

#define WIDTH 16
#define ROWS 12
#define WINOGRAD_KERNELS kAvx512Winograd
#include "winograd_kernels.inc"

#include "simd_end.inc"

#endif
