// The kernels for any processor: four floats at a time, which is SSE2 on x86-64 and NEON on ARM.
#include "depthwise_kernels.h"

#define WIDTH 4
#define DEPTHWISE_KERNELS kPortableDepthwise
#include "depthwise_kernels.inc"

namespace fasttrain {

const DepthwiseKernels& depthwise_kernels(Simd level) {
#if defined(__x86_64__)
  if (level == Simd::avx512) return kAvx512Depthwise;
  if (level == Simd::avx2) return kAvx2Depthwise;
#endif
  (void)level;
  return kPortableDepthwise;
}

}  // namespace fasttrain
