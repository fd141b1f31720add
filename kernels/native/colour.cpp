#include "colour.h"

#include <algorithm>
#include <atomic>
#include <thread>
#include <vector>

namespace fasttrain {
namespace {

struct Recipe {
  const std::int32_t* operations;
  const float* factors;
  int turn_of_contrast;  // 4 without
};

Recipe recipe_of(const ColourBatch& batch, std::size_t sample) {
  Recipe recipe{batch.operations + 4 * sample, batch.factors + 4 * sample, 0};
  while (recipe.turn_of_contrast < 4 && recipe.operations[recipe.turn_of_contrast] != kContrast) ++recipe.turn_of_contrast;
  return recipe;
}

void apply(const ColourKernels& kernels, const Recipe& recipe, int turns, float mean, ColourBlock& block) {
  for (int turn = 0; turn < turns; ++turn) {
    kernels.apply(block, static_cast<ColourOperation>(recipe.operations[turn]), recipe.factors[turn], mean);
  }
}

// Contrast looks at the whole image after the operations before it, so these are done twice.
float mean_luma(const ColourKernels& kernels, const Recipe& recipe, const std::uint8_t* pixels, std::size_t count) {
  ColourBlock block;
  double sum = 0.0;
  for (std::size_t done = 0; done < count; done += kColourBlock) {
    const int some = static_cast<int>(std::min<std::size_t>(kColourBlock, count - done));
    kernels.load(pixels + 3 * done, some, block);
    apply(kernels, recipe, recipe.turn_of_contrast, 0.0f, block);
    sum += kernels.luma(block, some);
  }
  return static_cast<float>(sum / static_cast<double>(count));
}

void finish_sample(const ColourBatch& batch, std::size_t sample) {
  const ColourKernels& kernels = colour_kernels(current_simd());
  const auto kind = static_cast<std::size_t>(batch.kind);
  const std::size_t item = batch.kind == FloatKind::float32 ? 4 : 2;
  const std::uint8_t* pixels = batch.pixels + 3 * batch.pixels_each * sample;
  auto* out = static_cast<std::uint8_t*>(batch.out) + 3 * batch.pixels_each * sample * item;
  if (batch.operations == nullptr) return kernels.normalise[kind](pixels, batch.pixels_each, batch.scale, out);
  const Recipe recipe = recipe_of(batch, sample);
  const bool contrast = recipe.turn_of_contrast < 4;
  const float mean = contrast ? mean_luma(kernels, recipe, pixels, batch.pixels_each) : 0.0f;
  ColourScale scale = batch.scale;  // values are 0 to 1 here
  for (float& value : scale.scale) value *= 255.0f;
  ColourBlock block;
  for (std::size_t done = 0; done < batch.pixels_each; done += kColourBlock) {
    const int some = static_cast<int>(std::min<std::size_t>(kColourBlock, batch.pixels_each - done));
    kernels.load(pixels + 3 * done, some, block);
    apply(kernels, recipe, 4, mean, block);
    kernels.store[kind](block, some, scale, out + 3 * done * item);
  }
}

}  // namespace

void finish_batch(const ColourBatch& batch, int threads) {
  std::atomic<std::size_t> next{0};
  const auto work = [&] {
    for (std::size_t sample = next++; sample < batch.samples; sample = next++) finish_sample(batch, sample);
  };
  // Starting threads takes some 20 us each, where a batch takes milliseconds: a pool would gain nothing.
  std::vector<std::thread> others;
  const std::size_t wanted = std::min<std::size_t>(static_cast<std::size_t>(std::max(threads, 1)), batch.samples);
  try {
    while (others.size() + 1 < wanted) others.emplace_back(work);
  } catch (...) {  // no more threads to be had: those that there are do the work
  }
  work();
  for (std::thread& other : others) other.join();
}

}  // namespace fasttrain
