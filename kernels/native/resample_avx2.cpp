// The kernels for AVX2: compiled for it here alone, run only where the processor has it.
#if defined(__x86_64__)

#include <immintrin.h>

#include "resample_kernels.h"

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")
#endif

namespace {
inline __m256 widen(const std::uint8_t* bytes) {
  return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(bytes))));
}
}  // namespace

#define WIDTH 8
#define KERNELS kAvx2Resample
#define WIDEN widen
#define HAS_F16C 1
#include "resample_kernels.inc"

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#endif
