// The kernels for AVX512: compiled for it here alone, run only where the processor has it.
#if defined(__x86_64__)

#include <immintrin.h>

#include "score_kernels.h"

#include "avx512_begin.inc"

namespace {
constexpr __mmask16 kAll = 0xFFFF;  // the forms without a mask make GCC warn of its own header
inline __m512 widen_halves(const std::uint16_t* from) {
  return _mm512_maskz_cvtph_ps(kAll, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
}
inline void store_halves(const float* from, std::uint16_t* to) {
  const __m256i halves = _mm512_maskz_cvtps_ph(kAll, _mm512_loadu_ps(from), 0);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), halves);
}
}  // namespace

#define WIDTH 16
#define SCORE_KERNELS kAvx512Scores
#define WIDEN_HALVES widen_halves
#define STORE_HALVES store_halves
#define MAXIMUM(a, b) _mm512_maskz_max_ps(kAll, a, b)
#define MINIMUM(a, b) _mm512_maskz_min_ps(kAll, a, b)
#define MINIMUM_OF_INTS(a, b) \
  same_bits<Ints>(_mm512_maskz_min_epi32(kAll, same_bits<__m512i>(a), same_bits<__m512i>(b)))
#define ANY(found) _mm512_movepi32_mask(same_bits<__m512i>(found))
#define PREFETCH(address) _mm_prefetch(address, _MM_HINT_T0)
#include "score_kernels.inc"

#include "simd_end.inc"

#endif
