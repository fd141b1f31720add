// Augmentation of one uint8 image (and its mask): a list of operations, carried out while the image is in the cache.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "colour_kernels.h"
#include "resample_kernels.h"

namespace fasttrain {

// Numbers as in fasttrain/kernels/augment_program.py, which says what they do and what their arguments are.
enum class AugmentOp : std::int32_t {
  nothing,
  affine,
  brightness,
  contrast,
  saturation,
  sharpness,
  posterize,
  solarize,
  solarize_add,
  invert,
  autocontrast,
  equalize,
  gamma,
  hue,
  blur,
  noise,
  erase,
  grid_shuffle,
  mix_begin,
  mix_chain,
  mix_end,
  fade,
  lighten,
  saturate,
  pixelate,
  jpeg,
  elastic,
  fog,
  frost,
  snow,
  spatter,
  count
};

constexpr int kAugmentArguments = 8;

// The nearest byte below.
inline std::uint8_t clamped_byte(double value) { return static_cast<std::uint8_t>(std::min(std::max(value, 0.0), 255.0)); }

// What all samples of a batch have in common.
struct AugmentStyle {
  std::uint8_t fill[3] = {};  // beyond the image
  std::uint8_t mask_fill = 0;
  bool bilinear = true;       // else affine operations take the nearest pixel; masks always do
  float noise_mean[3] = {}, noise_deviation[3] = {};  // of pixels that are erased by noise
};

// The operations of one image, in order.
struct AugmentSteps {
  const std::int32_t* operations;
  const float* arguments;  // kAugmentArguments of each
  int count;
  std::uint64_t seed;

  const float* arguments_of(int step) const { return arguments + kAugmentArguments * step; }
};

// Whether the operations can be carried out: numbers that are known, chains of mixtures that begin and end. Null, or what is wrong.
const char* fault_of(const AugmentSteps& steps);

// One thread's memory and work.
class Augmenter {
 public:
  // Room for height x width RGB pixels to be augmented, to be filled.
  std::uint8_t* begin(int height, int width);
  // The same for its mask, if it has one.
  std::uint8_t* begin_mask();

  void run(const AugmentSteps& steps, const AugmentStyle& style);

  // A mask by itself: room for it, and the operations that move pixels. What is erased gets the fill value, if it is to.
  std::uint8_t* begin_mask_alone(int height, int width);
  void run_mask(const AugmentSteps& steps, const AugmentStyle& style, bool erases);

  // Store the result: bytes as they are, anything else by value * scale + shift.
  void store(Pixel kind, const ColourScale& scale, void* out);
  void store_mask(std::uint8_t* out) const;

  std::size_t bytes() const;  // of memory held

 private:
  struct Affine {
    double m[6];
  };

  std::size_t count() const { return static_cast<std::size_t>(height_) * width_; }
  std::size_t image_bytes() const { return 3 * count(); }
  std::uint8_t* other();  // the buffer that the next image goes to
  void swap();

  void apply(AugmentOp operation, const float* arguments, std::uint64_t seed, std::uint32_t stream);
  void mixture(AugmentOp operation, const float* arguments);
  void compose_affine(const float* arguments);
  void flush_affine();
  void warp(std::uint8_t* out);
  void warp_mask();
  void erase_mask(const float* arguments);
  void stretch_of(int y, int& first, int& last) const;
  void map(const std::uint8_t (&table)[3][256]);
  void flush_table();
  void histogram(std::uint32_t (&counts)[3][256]) const;
  void equalize();
  void autocontrast();
  void contrast(float factor);
  void sharpen(float factor);
  void box_blur(float radius);
  void gaussian_blur(float radius);
  void add_noise(float deviation, std::uint64_t seed, std::uint32_t stream);
  void erase(const float* arguments, std::uint64_t seed, std::uint32_t stream);
  void shuffle_grid(int cells, std::uint64_t seed, std::uint32_t stream);

  int height_ = 0, width_ = 0;
  bool masked_ = false;
  bool alone_ = false;  // the mask, without an image
  AugmentStyle style_;
  std::vector<std::uint8_t> image_, spare_, mask_, spare_mask_, lines_;
  // Affine operations that are not carried out yet, the first of them first; and a table after them.
  std::vector<Affine> affine_;
  bool tabled_ = false;
  std::uint8_t table_[3][256];
  // Of a mixture of chains: what they begin with, and their weighted sum. The mask is that of what they begin with.
  bool was_masked_ = false;
  std::vector<std::uint8_t> origin_;
  std::vector<float> mixed_;
};

}  // namespace fasttrain
