#pragma once

#include <optional>

#include "jpeg_output.h"

namespace fasttrain {

// Re-encode a JPEG at the same size, as baseline with 4:2:0 sub-sampling (grey stays grey), without ever making pixels
// of it: the coefficients are quantised anew, and chroma that is not sub-sampled yet is halved as coefficients.
//
// Empty for what it does not handle: CMYK, RGB-coded streams, 12 bits, unusual sampling factors.
// Throws JpegError when the source is damaged.
std::optional<JpegStream> transcode_jpeg(const std::uint8_t* data, std::size_t size, int quality);

}  // namespace fasttrain
