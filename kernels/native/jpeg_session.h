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
  std::jmp_buf jump;
  char reason[JMSG_LENGTH_MAX + 64];
};

void install_error_manager(ErrorManager& errors);

}  // namespace fasttrain
