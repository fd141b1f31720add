// What checking and transcoding share: libjpeg's error handling turned into C++ errors, and its objects owned.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <stdexcept>
#include <string>

#include <csetjmp>

#include <jpeglib.h>
#include <jerror.h>

namespace fasttrain {

// A stream that cannot be used; the message is the reason, as a clause.
class JpegError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// libjpeg's error manager. Errors, and warnings that mean damage, jump back to the caller with a reason; nothing is
// ever printed. No C++ object with a destructor may live between setjmp and the jump, so what runs under it is plain C.
struct ErrorManager {
  jpeg_error_mgr base;
  jpeg_progress_mgr progress;
  std::jmp_buf jump;
  char reason[JMSG_LENGTH_MAX + 64];
};

void install_error_manager(ErrorManager& errors);

// Give up on a stream with more scans than any encoder writes: each costs a few bytes, but a pass over the whole image.
// To be called behind jpeg_create_decompress.
void limit_scans(jpeg_decompress_struct& decoder, ErrorManager& errors);

// Whether a stream of `size` bytes can be as large an image as its header says; else it is truncated, and not worth any
// memory. `decoder` stands behind jpeg_read_header.
bool may_hold_image(const jpeg_decompress_struct& decoder, std::size_t size);
constexpr const char* kTooShort = "it is truncated: it has fewer bits than its image has blocks";

// Whether none of the scans had the means of one of the components, so that libjpeg makes them up. To be asked when all
// scans have been read, by jpeg_read_coefficients.
bool lacks_scan(const jpeg_decompress_struct& decoder);
constexpr const char* kLacksScan = "it is truncated: a component has no scan";

constexpr std::uint64_t kMaxPixels = 178'956'970;  // a header may claim any size; Pillow refuses what is beyond as well

}  // namespace fasttrain
