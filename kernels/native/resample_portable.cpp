// The kernels for any processor: four floats at a time, which is SSE2 on x86-64 and NEON on ARM.
#include "plane_kernels.h"

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#include <cstring>

namespace {

#if defined(__SSE2__)
inline __m128 widen(const std::uint8_t* bytes) {
  std::int32_t four;
  std::memcpy(&four, bytes, sizeof four);
  const __m128i zero = _mm_setzero_si128();
  return _mm_cvtepi32_ps(_mm_unpacklo_epi16(_mm_unpacklo_epi8(_mm_cvtsi32_si128(four), zero), zero));
}

inline __m128 limit(__m128 value) { return _mm_min_ps(_mm_max_ps(value, _mm_setzero_ps()), _mm_set1_ps(255.0f)); }
#define UNPACK_LOW(a, b) _mm_unpacklo_ps(a, b)
#define UNPACK_HIGH(a, b) _mm_unpackhi_ps(a, b)
#define UNPACK_LOW_PAIRS(a, b) _mm_movelh_ps(a, b)
#define UNPACK_HIGH_PAIRS(a, b) _mm_movehl_ps(b, a)
#else
struct Four {
  float value[4];
};

inline Four widen(const std::uint8_t* bytes) {
  return {{static_cast<float>(bytes[0]), static_cast<float>(bytes[1]), static_cast<float>(bytes[2]),
           static_cast<float>(bytes[3])}};
}

typedef float Vector __attribute__((vector_size(16)));

inline Vector limit(Vector value) {
  for (int i = 0; i < 4; ++i) value[i] = value[i] < 0.0f ? 0.0f : value[i] > 255.0f ? 255.0f : value[i];
  return value;
}
#define UNPACK_LOW(a, b) Vector{(a)[0], (b)[0], (a)[1], (b)[1]}
#define UNPACK_HIGH(a, b) Vector{(a)[2], (b)[2], (a)[3], (b)[3]}
#define UNPACK_LOW_PAIRS(a, b) Vector{(a)[0], (a)[1], (b)[0], (b)[1]}
#define UNPACK_HIGH_PAIRS(a, b) Vector{(a)[2], (a)[3], (b)[2], (b)[3]}
#endif

}  // namespace

#define WIDTH 4
#define KERNELS kPortableResample
#define PLANE_KERNELS kPortablePlanes
#define LIMIT limit
#define WIDEN widen
#define HAS_F16C 0
#include "resample_kernels.inc"

namespace fasttrain {

const ResampleKernels& resample_kernels(Simd level) {
#if defined(__x86_64__)
  if (level == Simd::avx512) return kAvx512Resample;
  if (level == Simd::avx2) return kAvx2Resample;
#endif
  (void)level;
  return kPortableResample;
}

const PlaneKernels& plane_kernels(Simd level) {
#if defined(__x86_64__)
  if (level == Simd::avx512) return kAvx512Planes;
  if (level == Simd::avx2) return kAvx2Planes;
#endif
  (void)level;
  return kPortablePlanes;
}

}  // namespace fasttrain
