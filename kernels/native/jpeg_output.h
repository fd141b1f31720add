#pragma once

#include <cstdlib>
#include <memory>

#include "jpeg_session.h"

namespace fasttrain {

// A stream in memory of its own.
struct JpegStream {
  std::unique_ptr<unsigned char, decltype(&std::free)> data{nullptr, &std::free};
  std::size_t size = 0;
};

// libjpeg's destination, growing as needed. Unlike jpeg_mem_dest's, its memory has one owner all the time, so that an
// error in the midst of encoding neither loses it nor frees it twice.
struct Output {
  jpeg_destination_mgr base;
  JpegStream stream;
  std::size_t capacity = 0;
};

// Encode into `output`, `expected` bytes or more. The stream is complete after jpeg_finish_compress.
void write_to(jpeg_compress_struct& encoder, Output& output, std::size_t expected);

}  // namespace fasttrain
