// The inner loops of resampling. One source (resample_kernels.inc) is compiled for each instruction set.
#pragma once

#include <cstddef>
#include <cstdint>

#include "simd.h"

namespace fasttrain {

enum class Pixel { uint8, float32, float16, bfloat16 };

// Four rows of pixels with all channels of a column next to each other: value of column x, row r, channel c at
// 16 x + 4 r + c. The fourth channel is not used.
constexpr int kBlockRows = 4;
constexpr int kBlockColumn = 4 * kBlockRows;

struct HorizontalPass {
  const float* block;
  const int* starts;     // first column of each output
  const float* weights;  // outputs x taps
  int taps, outputs;
  float scale[4], shift[4];  // of each channel, applied to the clamped value (0-255)
  void* rows[kBlockRows];    // where each row of pixels goes, null for none
};

struct ResampleKernels {
  // out[i] = sum over k of weights[k] * rows[k][i] for `count` bytes.
  void (*vertical)(const std::uint8_t* const* rows, const float* weights, int taps, std::size_t count, float* out);
  // Puts `columns` packed RGB pixels into one row of a block; reads one float behind the last.
  void (*expand)(const float* packed, std::size_t columns, float* block_row);
  // Filters, clamps, scales, shifts, rounds and stores. By Pixel.
  void (*horizontal[4])(const HorizontalPass& pass);
};

const ResampleKernels& resample_kernels(Simd level);

// One for each instruction set that the build has.
extern const ResampleKernels kPortableResample;
#if defined(__x86_64__)
extern const ResampleKernels kAvx2Resample;
extern const ResampleKernels kAvx512Resample;
#endif

}  // namespace fasttrain
