// The kernels for any processor: four floats at a time, which is SSE2 on x86-64 and NEON on ARM.
#include "resample_kernels.h"

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
#else
struct Four {
  float value[4];
};

inline Four widen(const std::uint8_t* bytes) {
  return {{static_cast<float>(bytes[0]), static_cast<float>(bytes[1]), static_cast<float>(bytes[2]),
           static_cast<float>(bytes[3])}};
}
#endif

}  // namespace

#define WIDTH 4
#define KERNELS kPortableResample
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

}  // namespace fasttrain
