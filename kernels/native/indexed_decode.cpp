#include "indexed_decode.h"

#include <algorithm>

#include "jpeg_session.h"
#include "zigzag.h"

namespace fasttrain {
namespace {

constexpr std::size_t kPad = 64;  // bytes behind each line: blocks are transformed several at a time

}  // namespace

void IndexedDecoder::open(const std::uint8_t* data, std::size_t size, const std::uint64_t* index, std::size_t entries) {
  read_indexed_header(data, size, header_);
  if (entries != header_.shape.entries()) throw JpegError("its random-access index has another length than its image");
  scan_.open(header_, index);
}

void IndexedDecoder::start(const UnitRegion& region, int held, int eighths) {
  region_ = region;
  next_ = region.top;
  const ScanShape& shape = header_.shape;
  const int units = region.right - region.left;
  for (CoefficientRow& row : blocks_) row.shape(shape, units);
  const int slots = held + 1;  // two rows are decoded at a time
  std::size_t bytes = 0;
  for (int i = 0; i < shape.components; ++i) {
    Plane& plane = planes_[i];
    plane.side = block_side(header_, i, eighths);
    plane.idct = idct_kernel(current_simd(), plane.side);
    plane.pitch = static_cast<std::size_t>(plane.side * units * shape.columns[i]) + kPad;
    plane.lines = plane.side * shape.rows[i] * slots;
    bytes += plane.pitch * static_cast<std::size_t>(plane.lines);
    const std::uint16_t* steps = header_.quantisation[header_.components[i].quantisation];
    for (int k = 0; k < 64; ++k) plane.quantisation[kZigzag.places[k]] = static_cast<std::int16_t>(steps[k]);
  }
  if (samples_.size() < bytes) samples_.resize(bytes);
  std::uint8_t* start = samples_.data();
  for (int i = 0; i < shape.components; ++i) {
    planes_[i].start = start;
    start += planes_[i].pitch * static_cast<std::size_t>(planes_[i].lines);
  }
}

void IndexedDecoder::decode_to(int stop) {
  while (next_ < stop) {
    const bool two = next_ + 1 < region_.bottom;
    scan_.decode(next_, region_.left, region_.right, blocks_[0], two ? &blocks_[1] : nullptr);
    transform(next_++, blocks_[0]);
    if (two) transform(next_++, blocks_[1]);
  }
}

void IndexedDecoder::transform(int row, CoefficientRow& blocks) {
  const ScanShape& shape = header_.shape;
  for (int i = 0; i < shape.components; ++i) {
    const Plane& plane = planes_[i];
    const int count = (region_.right - region_.left) * shape.columns[i];
    for (int r = 0; r < shape.rows[i]; ++r) {
      const std::size_t place = blocks.place(i, r);
      const int line = plane.side * (row * shape.rows[i] + r) % plane.lines;
      plane.idct(blocks.block(place), blocks.extent(place), count, plane.quantisation,
                 plane.start + static_cast<std::size_t>(line) * plane.pitch, plane.pitch);
    }
  }
}

std::size_t IndexedDecoder::bytes() const {
  return scan_.bytes() + blocks_[0].bytes() + blocks_[1].bytes() + samples_.capacity();
}

}  // namespace fasttrain
