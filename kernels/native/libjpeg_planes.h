// What libjpeg itself makes of a JPEG, as the measure of our own decoder.
#pragma once

#include <cstdint>
#include <vector>

#include "jpeg_session.h"

namespace fasttrain {

struct LibjpegPlane {
  int columns = 0, rows = 0;           // blocks in whole MCUs
  std::vector<std::int16_t> blocks;    // rows x columns x 64, in natural order; empty where samples were wanted
  int side = 8;                        // of a block of samples
  std::vector<std::uint8_t> samples;   // side * rows x side * columns
};

// The quantised coefficients, or the samples (accurate integer method) at `eighths` of the size, of each component. Throws
// JpegError.
std::vector<LibjpegPlane> read_libjpeg_planes(const std::uint8_t* data, std::size_t size, bool wants_samples,
                                              int eighths);

}  // namespace fasttrain
