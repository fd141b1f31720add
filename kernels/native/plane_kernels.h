// The inner loops that make views of planes. One source (plane_kernels.inc) is compiled for each instruction set, together
// with those of resample_kernels.h.
#pragma once

#include <cstddef>

#include "resample_kernels.h"

namespace fasttrain {

constexpr int kMaxLines = 16;  // that are filtered at a time

// How three planes become three channels; `grey` reads the first plane alone.
enum class Mixing { ycc, rgb, grey };

// One plane's part in a block of lines.
struct PlaneLines {
  const std::uint8_t* const* rows = nullptr;    // kMaxLines x row_taps; kMaxLines bytes behind the columns may be read
  const float* row_weights[kMaxLines] = {};     // row_taps of each line
  int row_taps = 0;
  int columns = 0;
  const int* starts = nullptr;     // first column of each output
  const float* weights = nullptr;  // outputs x taps
  int taps = 0;
};

struct PlanePass {
  PlaneLines planes[3];
  int outputs = 0;
  Mixing mixing = Mixing::ycc;
  float scale[3], shift[3];         // of each channel, applied to the clamped value (0-255)
  float* transposed = nullptr;      // room for kMaxLines x (the most columns + kMaxLines)
  float* filtered[3] = {};          // room for kMaxLines x outputs each
  void* out[kMaxLines];             // where the pixels of each line go
};

struct PlaneKernels {
  int lines;  // of a block: 4, 8 or 16
  // Filters, mixes, clamps, scales, shifts, rounds and stores. By Pixel.
  void (*finish[4])(const PlanePass& pass);
};

const PlaneKernels& plane_kernels(Simd level);

extern const PlaneKernels kPortablePlanes;
#if defined(__x86_64__)
extern const PlaneKernels kAvx2Planes;
extern const PlaneKernels kAvx512Planes;
#endif

}  // namespace fasttrain
