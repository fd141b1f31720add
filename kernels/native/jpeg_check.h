#pragma once

#include <array>

#include "jpeg_session.h"
#include "scan_index.h"

namespace fasttrain {

struct JpegFacts {
  std::size_t length = 0;  // bytes up to and including the end marker
  int width = 0, height = 0, components = 0;
  int process = 0;  // second byte of the frame's marker (ITU-T T.81, table B.1)
  int precision = 0;
  int colour_space = 0;  // libjpeg's J_COLOR_SPACE
  bool restarts = false;
  bool has_metadata = false;  // an APP1 segment: EXIF or XMP
  bool has_profile = false;   // an APP2 segment with an ICC profile
  std::array<std::array<int, 2>, 4> factors{};  // horizontal, vertical sampling factor of each component
};

// Decode the whole entropy code of a JPEG, without making pixels of it. With `index`, which must be new, its random-access
// index is made on the way; it is not complete afterwards if the image is of a kind that has none.
//
// Throws JpegError when the stream is damaged, ends early, or is not a JPEG that libjpeg knows.
JpegFacts check_jpeg(const std::uint8_t* data, std::size_t size, ScanIndex* index = nullptr);

}  // namespace fasttrain
