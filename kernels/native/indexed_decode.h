// Decodes a part of a JPEG with a random-access index into planes, a component each, without colour conversion.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "idct_kernels.h"
#include "indexed_scan.h"

namespace fasttrain {

// MCUs [left, right) of the rows [top, bottom).
struct UnitRegion {
  int left, top, right, bottom;
};

// The MCUs come row by row from the top; the last ones are held. All memory is used again for other images, so that a
// thread has one of these.
class IndexedDecoder {
 public:
  // Read the header of an image. It and its index, of `entries` entries, must stay while the image is decoded.
  // Throws JpegError for damaged headers, kinds of images that have no index, and an index of another length.
  void open(const std::uint8_t* data, std::size_t size, const std::uint64_t* index, std::size_t entries);
  const IndexedHeader& header() const { return header_; }

  // Begin at the top of the region; `held` rows of MCUs will be looked at at a time. `eighths` (1, 2, 4 or 8) is the size at
  // which the image is decoded; see block_side.
  void start(const UnitRegion& region, int held, int eighths = 8);
  // Decode up to this row of MCUs. Throws JpegError where the stream or the index is damaged.
  void decode_to(int stop);

  // A row of samples of a component, beginning at the region's left edge. It is there as long as its row of MCUs is one of
  // the last `held` that were decoded, and may be read to the end of the region.
  const std::uint8_t* line(int component, int y) const {
    const Plane& plane = planes_[component];
    return plane.start + static_cast<std::size_t>(y % plane.lines) * plane.pitch;
  }
  // Columns of a component in front of the region.
  int left(int component) const { return planes_[component].side * region_.left * header_.shape.columns[component]; }

  std::size_t bytes() const;

 private:
  struct Plane {
    std::uint8_t* start = nullptr;
    std::size_t pitch = 0;
    int lines = 0;  // that are held
    int side = 8;   // of a block
    Idct idct = nullptr;
    std::int16_t quantisation[64];
  };

  void transform(int row, CoefficientRow& blocks);

  IndexedHeader header_;
  IndexedScan scan_;
  UnitRegion region_{};
  int next_ = 0;  // row of MCUs
  CoefficientRow blocks_[2];
  Plane planes_[3];
  std::vector<std::uint8_t> samples_;
};

}  // namespace fasttrain
