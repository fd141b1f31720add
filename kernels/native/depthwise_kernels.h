// The inner loops of depthwise convolutions. One source (depthwise_kernels.inc) is compiled for each instruction set.
#pragma once

#include <cstddef>

#include "simd.h"

namespace fasttrain {

// Pixels that follow each other `step` floats apart.
template <class Value>
struct Pixels {
  Value* first;
  std::size_t step;
};

struct DepthwiseKernels {
  // out[p][c] = sum of rows[i][p * row_step + c] * weights[i][c] over i, for `pixels` pixels.
  void (*weighted_sums)(const float* const* rows, std::size_t row_step, const float* const* weights, std::size_t count,
                        std::size_t channels, std::size_t pixels, const Pixels<float>& out);
  // sums[w][c] += sum of images[p][w * channels + c] * gradients[p][c] over `pixels` pixels, for `weights` weights.
  void (*add_products)(const Pixels<const float>& images, const Pixels<const float>& gradients, std::size_t pixels,
                       std::size_t channels, std::size_t weights, float* sums);
};

const DepthwiseKernels& depthwise_kernels(Simd level);

extern const DepthwiseKernels kPortableDepthwise;
#if defined(__x86_64__)
extern const DepthwiseKernels kAvx2Depthwise;
extern const DepthwiseKernels kAvx512Depthwise;
#endif

}  // namespace fasttrain
