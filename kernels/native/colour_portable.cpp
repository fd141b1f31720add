// The kernels for any processor.
#include "colour_kernels.h"
#include "half.h"

namespace {

inline void convert_halves(const float* values, int count, std::uint16_t* out) {
  for (int i = 0; i < count; ++i) out[i] = fasttrain::rounded_half(values[i]);
}

}  // namespace

#define COLOUR_KERNELS kPortableColour
#define CONVERT_HALVES convert_halves
#include "colour_kernels.inc"

namespace fasttrain {

const ColourKernels& colour_kernels(Simd level) {
#if defined(__x86_64__)
  if (level != Simd::portable) return kAvx2Colour;
#endif
  (void)level;
  return kPortableColour;
}

}  // namespace fasttrain
