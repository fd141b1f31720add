// The kernels for AVX2: compiled for it here alone, run only where the processor has it.
#if defined(__x86_64__)

#include <immintrin.h>

#include "colour_kernels.h"

#include "avx2_begin.inc"

#include "half.h"

namespace {

inline void convert_halves(const float* values, int count, std::uint16_t* out) {
  int i = 0;
  for (; i + 8 <= count; i += 8) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + i), _mm256_cvtps_ph(_mm256_loadu_ps(values + i), 0));
  }
  for (; i < count; ++i) out[i] = fasttrain::rounded_half(values[i]);
}

}  // namespace

#define COLOUR_KERNELS kAvx2Colour
#define CONVERT_HALVES convert_halves
#include "colour_kernels.inc"

#include "simd_end.inc"

#endif
