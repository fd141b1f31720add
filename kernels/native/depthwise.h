// The gradients of depthwise convolutions (each channel with a filter of its own), for training on a CPU.
//
// Each value of an image meets kernel x kernel weights and gradients in each of the two passes. A multiplication loads one
// of its factors and shares the other (pixels of a block their weights, weights of a block their gradients), so what a core
// loads in a cycle, and for large images what memory yields, is the floor, not the multiplications. Both passes go over one
// image after the other, so that its gradients come out of the cache the second time.
#pragma once

#include <cstddef>

namespace fasttrain {

// A convolution along one side of images: output o sees inputs o * stride - padding to o * stride - padding + kernel - 1.
struct Side {
  std::size_t inputs, outputs, kernel, stride, padding;
};

struct DepthwiseShape {
  std::size_t images, channels;
  Side down, across;
};

// Fills `by_images` (images, down.inputs, across.inputs, channels) and `by_weights` (down.kernel, across.kernel, channels)
// from `gradients` (images, down.outputs, across.outputs, channels); each may be null. `images` is for the latter alone,
// `weights`, laid out as its gradients, for the former. Sums are formed in an order that depends on the shapes alone: the
// same bits with any number of threads.
void depthwise_gradients(const DepthwiseShape& shape, const float* images, const float* gradients, const float* weights,
                         float* by_images, float* by_weights, int threads);

}  // namespace fasttrain
