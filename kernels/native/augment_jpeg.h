// An image as it comes back from JPEG.
#pragma once

#include <cstdint>

namespace fasttrain {

// Compress height x width RGB pixels with libjpeg's tables of a quality (1 to 100), chroma at half the size, and decode
// them in their place. Throws JpegError where libjpeg gives up.
void compress_jpeg(std::uint8_t* pixels, int height, int width, int quality);

}  // namespace fasttrain
