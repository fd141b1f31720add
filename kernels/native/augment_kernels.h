// The inner loops of augmentation. One source (augment_kernels.inc) is compiled for each instruction set, without fused
// multiply-add, so that all of them give the same bytes.
#pragma once

#include <cstddef>
#include <cstdint>

#include "simd.h"

namespace fasttrain {

constexpr int kReadable = 8;  // bytes behind an image that may be read

// A stretch of one row of an affine resample. Positions are in pixels of the source, 0 at the centre of the first one.
struct AffineRow {
  const std::uint8_t* source;  // height x width RGB
  int width, height;
  double x, y;            // where output pixel 0 of the row looks
  double step_x, step_y;  // from pixel to pixel
  int first, last;        // pixels [first, last) of the row look into the image
};

struct AugmentKernels {
  // Fill a row's pixels [first, last) by bilinear interpolation, truncated as Pillow does, or from the nearest pixel.
  void (*bilinear_row)(const AffineRow& row, std::uint8_t* out);
  void (*nearest_row)(const AffineRow& row, std::uint8_t* out);
  // Sum of Pillow's luma, (19595 R + 38470 G + 7471 B + 32768) >> 16.
  std::uint64_t (*luma_sum)(const std::uint8_t* pixels, std::size_t count);
  // Blend with the luma: 0 is grey, 1 leaves pixels alone.
  void (*saturate)(std::uint8_t* pixels, std::size_t count, float factor);
  void (*rotate_hue)(std::uint8_t* pixels, std::size_t count, float turns);
  // Blend `count` bytes of a row with Pillow's SMOOTH filter; rows above and below, one pixel readable to both sides.
  void (*sharpen_row)(const std::uint8_t* above, const std::uint8_t* row, const std::uint8_t* below, int count,
                      float factor, std::uint8_t* out);
  // One line of an extended box blur: (sum of 2 * radius + 1 taps * weight + both next ones * far) >> 24, rounded. Taps lie
  // `step` bytes apart for a row; `columns` does the same with the taps in different rows.
  void (*blur_row)(const std::uint8_t* row, int count, int step, int radius, std::uint32_t weight, std::uint32_t far,
                   std::uint8_t* out);
  void (*blur_columns)(const std::uint8_t* const* rows, int count, int radius, std::uint32_t weight, std::uint32_t far,
                       std::uint8_t* out);
  // `count` values, mean + deviation * z each, z nearly normal (see augment_random.h); value i is of counter first + i.
  void (*normals)(std::uint64_t seed, std::uint32_t stream, std::uint32_t first, int count, float mean, float deviation,
                  float* out);
  // pixel + addend, rounded and clamped.
  void (*add)(std::uint8_t* pixels, const float* addends, std::size_t count);
};

const AugmentKernels& augment_kernels(Simd level);

extern const AugmentKernels kPortableAugment;
#if defined(__x86_64__)
extern const AugmentKernels kAvx2Augment;
#endif

}  // namespace fasttrain
