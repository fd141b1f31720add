#include "augment_jpeg.h"

#include <algorithm>
#include <cstdlib>

#include "jpeg_session.h"

namespace fasttrain {
namespace {

// What libjpeg works on; released by whoever called `run`.
struct Session {
  jpeg_compress_struct encoder{};
  jpeg_decompress_struct decoder{};
  ErrorManager errors{};
  unsigned char* bytes = nullptr;
  unsigned long size = 0;

  Session() { install_error_manager(errors); }
  ~Session() {
    jpeg_destroy_compress(&encoder);
    jpeg_destroy_decompress(&decoder);
    std::free(bytes);
  }
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;
};

// Under setjmp: no objects with destructors here.
bool run(Session& session, std::uint8_t* pixels, int height, int width, int quality) {
  jpeg_compress_struct& encoder = session.encoder;
  jpeg_decompress_struct& decoder = session.decoder;
  encoder.err = decoder.err = &session.errors.base;
  if (setjmp(session.errors.jump)) return false;
  const std::size_t pitch = std::size_t{3} * width;
  jpeg_create_compress(&encoder);
  jpeg_mem_dest(&encoder, &session.bytes, &session.size);
  encoder.image_height = height;
  encoder.image_width = width;
  encoder.input_components = 3;
  encoder.in_color_space = JCS_RGB;
  jpeg_set_defaults(&encoder);
  jpeg_set_quality(&encoder, quality, TRUE);
  jpeg_start_compress(&encoder, TRUE);
  while (encoder.next_scanline < encoder.image_height) {
    JSAMPROW row = pixels + pitch * encoder.next_scanline;
    jpeg_write_scanlines(&encoder, &row, 1);
  }
  jpeg_finish_compress(&encoder);
  jpeg_create_decompress(&decoder);
  jpeg_mem_src(&decoder, session.bytes, session.size);
  jpeg_read_header(&decoder, TRUE);
  decoder.out_color_space = JCS_RGB;
  jpeg_start_decompress(&decoder);
  while (decoder.output_scanline < decoder.output_height) {
    JSAMPROW row = pixels + pitch * decoder.output_scanline;
    jpeg_read_scanlines(&decoder, &row, 1);
  }
  jpeg_finish_decompress(&decoder);
  return true;
}

}  // namespace

void compress_jpeg(std::uint8_t* pixels, int height, int width, int quality) {
  Session session;
  if (!run(session, pixels, height, width, std::min(std::max(quality, 1), 100))) throw JpegError(session.errors.reason);
}

}  // namespace fasttrain
