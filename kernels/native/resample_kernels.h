// The inner loops of resampling. One source (resample_kernels.inc) is compiled for each instruction set.
#pragma once

#include <cstddef>
#include <cstdint>

#include "simd.h"

namespace fasttrain {

enum class Pixel { uint8, float32, float16, bfloat16 };

constexpr int kBlockRows = 4;  // rows that are filtered at a time

struct HorizontalPass {
  const float* in[kBlockRows];  // packed RGB pixels, with one float more that may be read
  const int* starts;            // first pixel of each output
  const float* weights;         // outputs x taps
  int taps, outputs;
  float scale[4], shift[4];  // of each channel, applied to the clamped value (0-255)
  void* out[kBlockRows];     // where each row of pixels goes
};

struct ResampleKernels {
  // out[i] = sum over k of weights[k] * rows[k][i] for `count` bytes.
  void (*vertical)(const std::uint8_t* const* rows, const float* weights, int taps, std::size_t count, float* out);
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
