// Convolutions of 3 x 3 with stride 1 and padding 1 by Winograd's way, for training on a CPU: Lavin & Gray, "Fast Algorithms
// for Convolutional Neural Networks", arXiv 1509.09308.
//
// A tile of 4 x 4 outputs takes 36 multiplications a pair of channels where the direct way takes 144; with the rests of
// sides that 4 does not divide (see kPointsOf), a side of 7 takes 121 instead of 441, and one of 15 529 instead of 2,025.
// The floor is the products of the points alone, done at the processor's rate of multiplications: 3.6 to 4 times
// the direct way's speed. Transforms cost some 2 vector operations an input or output at a point, against
// channels / 2 for the products: with 64 channels a fifth on top, so 3 times the direct way's speed is the prediction where
// that is at the floor itself. Blocks of tiles stay in the caches between the three steps, so memory sees inputs and outputs
// once, as with the direct way.
#pragma once

#include <cstddef>

#include "winograd_kernels.h"

namespace fasttrain {

// Images or their gradients, (images, height, width, channels) without gaps.
struct ImageBatch {
  std::size_t images, height, width;
};

// Weights (outputs, inputs, 3, 3).
template <class Value>
struct Filters {
  Value* data;
  std::size_t outputs, inputs;
  Steps steps;
};

// Each output depends on its own tile alone: results are the same bits with any number of threads.
// The gradient by the images is that of the gradients with the weights turned about.
void winograd_convolve(const ImageBatch& batch, const float* images, const Filters<const float>& weights, float* out,
                       int threads);

// Blocks of tiles, whose size depends on the shapes alone, are added up in order: again the same bits with any number of
// threads, which share each block.
void winograd_weight_gradient(const ImageBatch& batch, const float* images, const float* gradients,
                              const Filters<float>& out, int threads);

}  // namespace fasttrain
