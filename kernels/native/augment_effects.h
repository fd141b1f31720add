// Corruptions that images are trained to withstand (Hendrycks and Dietterich, "Benchmarking neural network robustness to
// common corruptions and perturbations", ICLR 2019), each of one image.
#pragma once

#include <cstdint>

#include "augment.h"

namespace fasttrain {

struct EffectImage {
  std::uint8_t* pixels;  // height x width RGB, changed in place
  std::uint8_t* spare;   // room for as many
  std::uint8_t* mask;    // null without; moved where the pixels are
  int height, width;
};

struct Effect {
  AugmentOp operation;
  const float* arguments;
  std::uint64_t seed;
  std::uint32_t stream;  // and the 255 after it
};

void apply_effect(const EffectImage& image, const Effect& effect);

// What a geometric one (elastic) does to a mask.
void move_mask(std::uint8_t* mask, int height, int width, const Effect& effect);

}  // namespace fasttrain
