#include "augment.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "augment_effects.h"
#include "augment_kernels.h"
#include "augment_random.h"
#include "augment_tables.h"

namespace fasttrain {
namespace {

constexpr float kLargest = 1e6f;  // of an argument: integers made of it do not overflow

}  // namespace

const char* fault_of(const AugmentSteps& steps) {
  bool open = false;
  for (int step = 0; step < steps.count; ++step) {
    const std::int32_t operation = steps.operations[step];
    if (operation < 0 || operation >= static_cast<std::int32_t>(AugmentOp::count)) return "there is no such operation";
    for (int i = 0; i < kAugmentArguments; ++i) {
      // -ffinite-math-only lets no comparison tell of infinities, so the bits are looked at.
      std::uint32_t bits;
      std::memcpy(&bits, steps.arguments_of(step) + i, 4);
      if ((bits & 0x7F800000u) == 0x7F800000u) return "an argument is not a finite number";
      if (std::fabs(steps.arguments_of(step)[i]) > kLargest) return "an argument is larger than a million";
    }
    const auto kind = static_cast<AugmentOp>(operation);
    if (kind == AugmentOp::mix_begin && open) return "a mixture begins within another one";
    if ((kind == AugmentOp::mix_chain || kind == AugmentOp::mix_end) && !open) return "a mixture was never begun";
    open = kind == AugmentOp::mix_begin || (open && kind != AugmentOp::mix_end);
  }
  return open ? "a mixture has no end" : nullptr;
}

std::uint8_t* Augmenter::begin(int height, int width) {
  height_ = height;
  width_ = width;
  masked_ = tabled_ = alone_ = false;
  affine_.clear();
  const std::size_t room = image_bytes() + kReadable;
  if (image_.size() < room) image_.resize(room);
  return image_.data();
}

std::uint8_t* Augmenter::begin_mask() {
  masked_ = true;
  if (mask_.size() < count()) mask_.resize(count());
  return mask_.data();
}

std::uint8_t* Augmenter::begin_mask_alone(int height, int width) {
  height_ = height;
  width_ = width;
  tabled_ = false;
  alone_ = true;
  affine_.clear();
  return begin_mask();
}

std::size_t Augmenter::bytes() const {
  return image_.capacity() + spare_.capacity() + mask_.capacity() + spare_mask_.capacity() + lines_.capacity() +
         origin_.capacity() + mixed_.capacity() * sizeof(float);
}

std::uint8_t* Augmenter::other() {
  const std::size_t room = image_bytes() + kReadable;
  if (spare_.size() < room) spare_.resize(room);
  return spare_.data();
}

void Augmenter::swap() { image_.swap(spare_); }

void Augmenter::run(const AugmentSteps& steps, const AugmentStyle& style) {
  style_ = style;
  for (int step = 0; step < steps.count; ++step) {
    const auto operation = static_cast<AugmentOp>(steps.operations[step]);
    if (operation == AugmentOp::nothing) continue;
    apply(operation, steps.arguments_of(step), steps.seed, static_cast<std::uint32_t>(step) << 8);
  }
  flush_affine();
}

// As `run`: affine operations are composed across the same steps, so that both look at the same places.
void Augmenter::run_mask(const AugmentSteps& steps, const AugmentStyle& style, bool erases) {
  style_ = style;
  bool mixing = false;  // a mixture shows several places at once; its mask is that of the image before
  for (int step = 0; step < steps.count; ++step) {
    const auto operation = static_cast<AugmentOp>(steps.operations[step]);
    const float* arguments = steps.arguments_of(step);
    const auto stream = static_cast<std::uint32_t>(step) << 8;
    if (operation == AugmentOp::nothing) continue;
    if (operation == AugmentOp::mix_end) mixing = false;
    if (mixing) continue;
    if (operation == AugmentOp::affine) {
      compose_affine(arguments);
      continue;
    }
    flush_affine();
    if (operation == AugmentOp::mix_begin) mixing = true;
    if (operation == AugmentOp::grid_shuffle) shuffle_grid(static_cast<int>(arguments[0]), steps.seed, stream);
    if (operation == AugmentOp::erase && erases) erase_mask(arguments);
    if (operation == AugmentOp::elastic) move_mask(mask_.data(), height_, width_, {operation, arguments, steps.seed, stream});
  }
  flush_affine();
}

// A stream of randomness of its own for each step; those of its parts follow it.
void Augmenter::apply(AugmentOp operation, const float* arguments, std::uint64_t seed, std::uint32_t stream) {
  std::uint8_t table[3][256];
  if (fill_table(operation, arguments, table)) {
    flush_affine();
    return map(table);
  }
  if (operation == AugmentOp::affine) {
    flush_table();
    return compose_affine(arguments);
  }
  flush_affine();
  switch (operation) {
    case AugmentOp::equalize:
      return equalize();
    case AugmentOp::autocontrast:
      return autocontrast();
    default:
      break;
  }
  flush_table();
  const AugmentKernels& kernels = augment_kernels(current_simd());
  switch (operation) {
    case AugmentOp::contrast:
      return contrast(arguments[0]);
    case AugmentOp::saturation:
      return kernels.saturate(image_.data(), count(), arguments[0]);
    case AugmentOp::hue:
      return kernels.rotate_hue(image_.data(), count(), arguments[0]);
    case AugmentOp::sharpness:
      return sharpen(arguments[0]);
    case AugmentOp::blur:
      return gaussian_blur(arguments[0]);
    case AugmentOp::noise:
      return add_noise(arguments[0], seed, stream);
    case AugmentOp::erase:
      return erase(arguments, seed, stream);
    case AugmentOp::grid_shuffle:
      return shuffle_grid(static_cast<int>(arguments[0]), seed, stream);
    case AugmentOp::mix_begin:
    case AugmentOp::mix_chain:
    case AugmentOp::mix_end:
      return mixture(operation, arguments);
    default: {
      const EffectImage image{image_.data(), other(), masked_ ? mask_.data() : nullptr, height_, width_};
      const Effect effect{operation, arguments, seed, stream};
      apply_effect(image, effect);
    }
  }
}

// --- geometry --------------------------------------------------------------------------------------------------------

void Augmenter::erase_mask(const float* arguments) {
  const int top = static_cast<int>(arguments[0]), left = static_cast<int>(arguments[1]);
  const int bottom = std::min(top + static_cast<int>(arguments[2]), height_);
  const int right = std::min(left + static_cast<int>(arguments[3]), width_);
  for (int y = std::max(top, 0); y < bottom; ++y) {
    for (int x = std::max(left, 0); x < right; ++x) mask_[std::size_t(width_) * y + x] = style_.mask_fill;
  }
}

void Augmenter::shuffle_grid(int cells, std::uint64_t seed, std::uint32_t stream) {
  const int tall = height_ / std::max(cells, 1), wide = width_ / std::max(cells, 1);
  if (cells < 2 || tall < 1 || wide < 1) return;
  std::vector<int> order(static_cast<std::size_t>(cells) * cells);
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](int a, int b) { return random_bits(seed, stream, a) < random_bits(seed, stream, b); });
  const auto move = [&](const std::uint8_t* from, std::uint8_t* to, int channels) {
    std::memcpy(to, from, count() * channels);  // what is left beside the cells stays
    const std::size_t pitch = std::size_t(channels) * width_;
    for (int cell = 0; cell < cells * cells; ++cell) {
      const int source = order[cell];
      const std::uint8_t* at = from + pitch * (source / cells * tall) + std::size_t(channels) * (source % cells * wide);
      std::uint8_t* there = to + pitch * (cell / cells * tall) + std::size_t(channels) * (cell % cells * wide);
      for (int y = 0; y < tall; ++y) std::memcpy(there + pitch * y, at + pitch * y, std::size_t(channels) * wide);
    }
  };
  if (!alone_) {
    move(image_.data(), other(), 3);
    swap();
  }
  if (!masked_) return;
  if (spare_mask_.size() < count()) spare_mask_.resize(count());
  move(mask_.data(), spare_mask_.data(), 1);
  mask_.swap(spare_mask_);
}

// --- tables ----------------------------------------------------------------------------------------------------------

void Augmenter::map(const std::uint8_t (&table)[3][256]) {
  for (int channel = 0; channel < 3; ++channel) {
    for (int value = 0; value < 256; ++value) {
      table_[channel][value] = table[channel][tabled_ ? table_[channel][value] : value];
    }
  }
  tabled_ = true;
}

void Augmenter::flush_table() {
  if (!tabled_) return;
  tabled_ = false;
  std::uint8_t* pixels = image_.data();
  for (std::size_t i = 0, end = image_bytes(); i < end; i += 3) {
    pixels[i] = table_[0][pixels[i]];
    pixels[i + 1] = table_[1][pixels[i + 1]];
    pixels[i + 2] = table_[2][pixels[i + 2]];
  }
}

// Of the image as the table makes it, which need not have been applied for that.
void Augmenter::histogram(std::uint32_t (&counts)[3][256]) const {
  std::uint32_t even[3][256] = {}, odd[3][256] = {};  // by turns: equal neighbours do not wait for each other
  const std::uint8_t* pixels = image_.data();
  const std::size_t pairs = count() / 2;
  for (std::size_t i = 0; i < pairs; ++i, pixels += 6) {
    ++even[0][pixels[0]];
    ++even[1][pixels[1]];
    ++even[2][pixels[2]];
    ++odd[0][pixels[3]];
    ++odd[1][pixels[4]];
    ++odd[2][pixels[5]];
  }
  if (count() % 2 != 0) {
    for (int channel = 0; channel < 3; ++channel) ++even[channel][pixels[channel]];
  }
  for (int channel = 0; channel < 3; ++channel) {
    std::fill(counts[channel], counts[channel] + 256, 0);
    for (int value = 0; value < 256; ++value) {
      counts[channel][tabled_ ? table_[channel][value] : value] += even[channel][value] + odd[channel][value];
    }
  }
}

void Augmenter::equalize() {
  std::uint32_t counts[3][256];
  std::uint8_t table[3][256];
  histogram(counts);
  for (int channel = 0; channel < 3; ++channel) equalize_table(counts[channel], table[channel]);
  map(table);
}

void Augmenter::autocontrast() {
  std::uint32_t counts[3][256];
  std::uint8_t table[3][256];
  histogram(counts);
  for (int channel = 0; channel < 3; ++channel) autocontrast_table(counts[channel], table[channel]);
  map(table);
}

void Augmenter::contrast(float factor) {
  const std::uint64_t sum = augment_kernels(current_simd()).luma_sum(image_.data(), count());
  const int mean = static_cast<int>(static_cast<double>(sum) / static_cast<double>(count()) + 0.5);
  std::uint8_t table[3][256];
  blend_table(mean, factor, table);
  map(table);
}

// --- mixtures --------------------------------------------------------------------------------------------------------

// AugMix (Hendrycks et al., arXiv 1912.02781), as timm rounds it: chains that begin with the same image are added with
// weights, and the sum is blended with that image.
void Augmenter::mixture(AugmentOp operation, const float* arguments) {
  std::uint8_t* pixels = image_.data();
  const std::size_t size = image_bytes();
  if (operation == AugmentOp::mix_begin) {
    origin_.assign(pixels, pixels + size);
    mixed_.assign(size, 0.0f);
    was_masked_ = masked_;
    masked_ = false;
    return;
  }
  if (operation == AugmentOp::mix_chain) {
    const float weight = arguments[0];
    for (std::size_t i = 0; i < size; ++i) mixed_[i] += weight * static_cast<float>(pixels[i]);
    std::memcpy(pixels, origin_.data(), size);
    return;
  }
  masked_ = was_masked_;
  for (std::size_t i = 0; i < size; ++i) {
    const int mixed = clamped_byte(mixed_[i]);
    pixels[i] = clamped_byte(static_cast<float>(origin_[i]) + arguments[0] * static_cast<float>(mixed - origin_[i]));
  }
}

// --- storing ---------------------------------------------------------------------------------------------------------

namespace {

template <class Element>
void look_up(const std::uint8_t* pixels, std::size_t bytes, const Element* table, Element* out) {
  for (std::size_t i = 0; i < bytes; i += 3) {
    out[i] = table[3 * pixels[i]];
    out[i + 1] = table[3 * pixels[i + 1] + 1];
    out[i + 2] = table[3 * pixels[i + 2] + 2];
  }
}

}  // namespace

void Augmenter::store(Pixel kind, const ColourScale& scale, void* out) {
  if (kind == Pixel::uint8) {
    flush_table();
    std::memcpy(out, image_.data(), image_bytes());
    return;
  }
  const ColourKernels& kernels = colour_kernels(current_simd());
  const int number = kind == Pixel::float32 ? 0 : kind == Pixel::float16 ? 1 : 2;
  if (!tabled_) return kernels.normalise[number](image_.data(), count(), scale, out);
  // The table's values, normalised like an image of 256 pixels: nothing is left but to look up.
  std::uint8_t ramp[3 * 256];
  float table[3 * 256];
  for (int value = 0; value < 256; ++value) {
    for (int channel = 0; channel < 3; ++channel) ramp[3 * value + channel] = table_[channel][value];
  }
  kernels.normalise[number](ramp, 256, scale, table);
  if (number == 0) return look_up(image_.data(), image_bytes(), table, static_cast<float*>(out));
  std::uint16_t halves[3 * 256];
  std::memcpy(halves, table, sizeof halves);
  look_up(image_.data(), image_bytes(), halves, static_cast<std::uint16_t*>(out));
}

void Augmenter::store_mask(std::uint8_t* out) const { std::memcpy(out, mask_.data(), count()); }

}  // namespace fasttrain
