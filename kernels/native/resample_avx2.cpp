// The kernels for AVX2: compiled for it here alone, run only where the processor has it.
#if defined(__x86_64__)

#include <immintrin.h>

#include "plane_kernels.h"

#include "avx2_begin.inc"

namespace {
inline __m256 widen(const std::uint8_t* bytes) {
  return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(bytes))));
}
inline __m256 limit(__m256 value) {
  return _mm256_min_ps(_mm256_max_ps(value, _mm256_setzero_ps()), _mm256_set1_ps(255.0f));
}
}  // namespace

#define WIDTH 8
#define KERNELS kAvx2Resample
#define PLANE_KERNELS kAvx2Planes
#define WIDEN widen
#define LIMIT limit
#define UNPACK_LOW(a, b) _mm256_unpacklo_ps(a, b)
#define UNPACK_HIGH(a, b) _mm256_unpackhi_ps(a, b)
#define UNPACK_LOW_PAIRS(a, b) _mm256_castpd_ps(_mm256_unpacklo_pd(_mm256_castps_pd(a), _mm256_castps_pd(b)))
#define UNPACK_HIGH_PAIRS(a, b) _mm256_castpd_ps(_mm256_unpackhi_pd(_mm256_castps_pd(a), _mm256_castps_pd(b)))
#define HAS_F16C 1
#include "resample_kernels.inc"

#include "simd_end.inc"

#endif
