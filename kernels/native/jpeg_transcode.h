#pragma once

#include <cstdlib>
#include <memory>
#include <optional>

#include "jpeg_session.h"

namespace fasttrain {

// A stream in the memory that libjpeg gave it.
struct JpegStream {
  std::unique_ptr<unsigned char, decltype(&std::free)> data{nullptr, &std::free};
  std::size_t size = 0;
};

// Re-encode a JPEG at the same size, as baseline with 4:2:0 sub-sampling (grey stays grey), without ever making pixels
// of it: the coefficients are quantised anew, and chroma that is not sub-sampled yet is halved as coefficients.
//
// Empty for what it does not handle: CMYK, RGB-coded streams, 12 bits, unusual sampling factors.
// Throws JpegError when the source is damaged.
std::optional<JpegStream> transcode_jpeg(const std::uint8_t* data, std::size_t size, int quality);

}  // namespace fasttrain
