// Colour jitter, normalisation and cast of a batch of uint8 pixels, in one pass over them.
#pragma once

#include <cstddef>
#include <cstdint>

#include "colour_kernels.h"

namespace fasttrain {

enum class FloatKind { float32, float16, bfloat16 };

struct ColourBatch {
  const std::uint8_t* pixels;  // samples x pixels_each x RGB
  std::size_t samples, pixels_each;
  const std::int32_t* operations;  // samples x 4 of ColourOperation in the order they are applied; null without jitter
  const float* factors;            // samples x 4, in the same order
  ColourScale scale;               // of bytes
  FloatKind kind;
  void* out;
};

// Work with as many threads, a sample at a time each.
void finish_batch(const ColourBatch& batch, int threads);

}  // namespace fasttrain
