// The kernels for AVX512: compiled for it here alone, run only where the processor has it.
#if defined(__x86_64__)

#include <immintrin.h>

#include "plane_kernels.h"

#include "avx512_begin.inc"

namespace {
inline __m512 widen(const std::uint8_t* bytes) {
  constexpr __mmask16 all = 0xFFFF;  // the forms without a mask make GCC warn of its own header
  const __m128i packed = _mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes));
  return _mm512_maskz_cvtepi32_ps(all, _mm512_maskz_cvtepu8_epi32(all, packed));
}
inline __m512 limit(__m512 value) {
  constexpr __mmask16 all = 0xFFFF;
  return _mm512_maskz_min_ps(all, _mm512_maskz_max_ps(all, value, _mm512_setzero_ps()), _mm512_set1_ps(255.0f));
}
}  // namespace

#define WIDTH 16
#define KERNELS kAvx512Resample
#define PLANE_KERNELS kAvx512Planes
#define WIDEN widen
#define LIMIT limit
#define UNPACK_LOW(a, b) _mm512_maskz_unpacklo_ps(0xFFFF, a, b)
#define UNPACK_HIGH(a, b) _mm512_maskz_unpackhi_ps(0xFFFF, a, b)
#define PAIRS(a) _mm512_castps_pd(a)
#define UNPACK_LOW_PAIRS(a, b) _mm512_castpd_ps(_mm512_maskz_unpacklo_pd(0xFF, PAIRS(a), PAIRS(b)))
#define UNPACK_HIGH_PAIRS(a, b) _mm512_castpd_ps(_mm512_maskz_unpackhi_pd(0xFF, PAIRS(a), PAIRS(b)))
#define HAS_F16C 1
#include "resample_kernels.inc"

#include "simd_end.inc"

#endif
