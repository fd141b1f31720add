// Decodes a box of a JPEG stream on libjpeg-turbo, row by row and no further than the box reaches.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "jpeg_session.h"
#include "resample.h"

namespace fasttrain {

// A sound image, perhaps, but of a kind that is left to the caller.
class NotHandled : public std::exception {
 public:
  const char* what() const noexcept override { return "this kind of image is not decoded natively"; }
};

// The rows of a box of a JPEG, as RGB. Grey and three-component images of 8 bits; others are NotHandled, as are streams
// without an end marker, of which no look at a box could tell whether they are whole, and progressive ones whose later
// scans are missing. Damage within the rows that are
// read is a JpegError; what lies below them is not looked at.
class JpegRows final : public RowSource {
 public:
  // `memory` holds the rows that are needed at a time, and must outlive this.
  JpegRows(const std::uint8_t* data, std::size_t size, std::vector<std::uint8_t>& memory);
  ~JpegRows() override;
  JpegRows(const JpegRows&) = delete;
  JpegRows& operator=(const JpegRows&) = delete;

  int width() const { return static_cast<int>(decoder_.image_width); }
  int height() const { return static_cast<int>(decoder_.image_height); }

  // Decode at eighths / 8 of the size (8, 4, 2 or 1: others have no SIMD code), in ways that are fast rather than exact.
  void shrink(int eighths);
  int shrunk_width() const { return static_cast<int>(decoder_.output_width); }
  int shrunk_height() const { return static_cast<int>(decoder_.output_height); }

  // Go to the region; at most `at_once` rows will be asked for at a time.
  void start(const Region& region, int at_once);

  const std::uint8_t* const* rows(int first, int count) override;

 private:
  bool read_header(const std::uint8_t* data, std::size_t size);
  bool shrink_under_jump(int eighths);
  bool start_under_jump(const Region& region);
  bool read_under_jump(int stop);
  bool is_handled() const;
  // Whether scans are missing, so that libjpeg makes details up: in a crop other ones than in the whole image.
  bool is_smoothed() const;
  std::uint8_t* slot(int row) { return memory_.data() + static_cast<std::size_t>(row % slots_) * pitch_; }

  jpeg_decompress_struct decoder_{};
  ErrorManager errors_;
  std::vector<std::uint8_t>& memory_;
  std::vector<const std::uint8_t*> pointers_;
  std::size_t pitch_ = 0;   // bytes of a row
  std::size_t indent_ = 0;  // bytes before the region's left edge
  int at_once_ = 0;         // rows that may be asked for at a time
  int slots_ = 0;           // rows that are held
  int kept_from_ = 0;       // first row that is still needed
};

}  // namespace fasttrain
