// The kernels for any processor.
#include "augment_kernels.h"
#include "augment_random.h"

#define AUGMENT_KERNELS kPortableAugment
#include "augment_kernels.inc"

namespace fasttrain {

const AugmentKernels& augment_kernels(Simd level) {
#if defined(__x86_64__)
  if (level != Simd::portable) return kAvx2Augment;
#endif
  (void)level;
  return kPortableAugment;
}

}  // namespace fasttrain
