#include "augment_effects.h"

namespace fasttrain {

void apply_effect(const EffectImage& image, const Effect& effect) {
  (void)image;
  (void)effect;
}

}  // namespace fasttrain
