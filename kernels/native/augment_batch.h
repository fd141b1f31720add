// The operations of a batch's images, held by whoever carries them out.
#pragma once

#include <cstdint>
#include <vector>

#include "augment.h"

namespace fasttrain {

struct AugmentBatch {
  std::vector<std::int32_t> operations;  // images x steps
  std::vector<float> arguments;          // images x steps x kAugmentArguments
  std::vector<std::uint64_t> seeds;
  int steps = 0;
  AugmentStyle style;

  AugmentSteps of(std::size_t image) const {
    const std::size_t first = image * static_cast<std::size_t>(steps);
    return {operations.data() + first, arguments.data() + kAugmentArguments * first, steps, seeds[image]};
  }
};

// A batch of images of one size, and where the results go.
struct AugmentWork {
  const AugmentBatch* batch;
  const std::uint8_t* pixels;  // images x height x width x RGB
  const std::uint8_t* masks;   // images x height x width, or null
  int height, width;
  Pixel kind;
  ColourScale scale;
  void* out;
  std::uint8_t* out_masks;
};

// A batch of masks of one size, changed in place.
struct MaskWork {
  const AugmentBatch* batch;
  std::uint8_t* masks;  // images x height x width
  int height, width;
  bool erases;  // what is erased of an image gets the fill value
};

void augment_masks(const MaskWork& work, int threads);

// Work with as many threads, an image at a time each.
void augment_batch(const AugmentWork& work, int threads);

}  // namespace fasttrain
