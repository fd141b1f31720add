// The kernels for AVX2: compiled for it here alone, run only where the processor has it.
#if defined(__x86_64__)

#include <immintrin.h>

#include "score_kernels.h"

#include "avx2_begin.inc"

namespace {
inline __m256 widen_halves(const std::uint16_t* from) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
}
inline void store_halves(const float* from, std::uint16_t* to) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm256_cvtps_ph(_mm256_loadu_ps(from), 0));
}
}  // namespace

#define WIDTH 8
#define SCORE_KERNELS kAvx2Scores
#define WIDEN_HALVES widen_halves
#define STORE_HALVES store_halves
#define MAXIMUM(a, b) _mm256_max_ps(a, b)
#define MINIMUM(a, b) _mm256_min_ps(a, b)
#define MINIMUM_OF_INTS(a, b) same_bits<Ints>(_mm256_min_epi32(same_bits<__m256i>(a), same_bits<__m256i>(b)))
#define ANY(found) _mm256_movemask_ps(same_bits<__m256>(found))
#define PREFETCH(address) _mm_prefetch(address, _MM_HINT_T0)
#include "score_kernels.inc"

#include "simd_end.inc"

#endif
