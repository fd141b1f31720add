// The kernels for any processor: four floats at a time, which is SSE2 on x86-64 and NEON on ARM.
#include "winograd_kernels.h"

#define WIDTH 4
#define ROWS 6
#define WINOGRAD_KERNELS kPortableWinograd
#include "winograd_kernels.inc"

namespace fasttrain {

const WinogradKernels& winograd_kernels(Simd level) {
#if defined(__x86_64__)
  if (level == Simd::avx512) return kAvx512Winograd;
  if (level == Simd::avx2) return kAvx2Winograd;
#endif
  (void)level;
  return kPortableWinograd;
}

}  // namespace fasttrain
