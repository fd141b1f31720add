#pragma once

#include <optional>
#include <vector>

#include "jpeg_session.h"

namespace fasttrain {

// Re-encode a JPEG at the same size, as baseline with 4:2:0 sub-sampling (grey stays grey), through its Y, Cb and Cr
// planes: there is no way over RGB, and chroma that is sub-sampled already is neither enlarged nor shrunk.
//
// Empty for what it does not handle: CMYK, RGB-coded streams, 12 bits, unusual sampling factors.
// Throws JpegError when the source is damaged.
std::optional<std::vector<std::uint8_t>> transcode_jpeg(const std::uint8_t* data, std::size_t size, int quality);

}  // namespace fasttrain
