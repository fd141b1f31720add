#pragma once

#include <optional>

#include "jpeg_output.h"

namespace fasttrain {

// Code a JPEG's coefficients anew, in a single sequential scan with Huffman codes and without restart markers, so that it
// can be indexed. Its application and comment segments stay as they are.
//
// Empty for what is of this kind already, and for what cannot be made so: see repack_jpeg in jpeg.py.
// Throws JpegError when the source is damaged, as check_jpeg does.
std::optional<JpegStream> repack_jpeg(const std::uint8_t* data, std::size_t size);

}  // namespace fasttrain
