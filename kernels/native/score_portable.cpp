// The kernels for any processor: four floats at a time, which is SSE2 on x86-64 and NEON on ARM.
#include "half.h"
#include "score_kernels.h"

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace {

typedef float Four __attribute__((vector_size(16)));
typedef std::int32_t FourInts __attribute__((vector_size(16)));

// Exponent and fraction go to where a float has them; a multiplication mends the exponent and makes denormals normal.
inline Four widen_halves(const std::uint16_t* from) {
  const FourInts bits = {from[0], from[1], from[2], from[3]};
  FourInts moved = (bits & 0x7FFF) << 13;
  const FourInts infinite = moved >= (0x7C00 << 13);
  Four value;
  __builtin_memcpy(&value, &moved, sizeof value);
  value *= 0x1p112f;
  __builtin_memcpy(&moved, &value, sizeof value);
  moved |= (infinite & 0x7F800000) | (bits & 0x8000) << 16;
  __builtin_memcpy(&value, &moved, sizeof value);
  return value;
}

inline void store_halves(const float* from, std::uint16_t* to) {
  for (int i = 0; i < 4; ++i) to[i] = fasttrain::rounded_half(from[i]);
}

#if defined(__SSE2__)
inline Four maximum(Four a, Four b) { return _mm_max_ps(a, b); }
inline Four minimum(Four a, Four b) { return _mm_min_ps(a, b); }
#else
inline Four maximum(Four a, Four b) { return a > b ? a : b; }
inline Four minimum(Four a, Four b) { return a < b ? a : b; }
#endif

inline bool any(FourInts found) { return (found[0] | found[1] | found[2] | found[3]) != 0; }

}  // namespace

#define WIDTH 4
#define SCORE_KERNELS kPortableScores
#define WIDEN_HALVES widen_halves
#define STORE_HALVES store_halves
#define MAXIMUM maximum
#define MINIMUM minimum
#define MINIMUM_OF_INTS(a, b) ((a) < (b) ? (a) : (b))
#define ANY any
#define PREFETCH(address) __builtin_prefetch(address)
#include "score_kernels.inc"

namespace fasttrain {

const ScoreKernels& score_kernels(Simd level) {
#if defined(__x86_64__)
  if (level == Simd::avx512) return kAvx512Scores;
  if (level == Simd::avx2) return kAvx2Scores;
#endif
  (void)level;
  return kPortableScores;
}

}  // namespace fasttrain
