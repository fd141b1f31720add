// The random-access index of a JPEG's scan: where its entropy code can be entered.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace fasttrain {

constexpr int kEntryPixels = 128;  // columns of the image from one entry to the next within a row of MCUs

// Blocks and MCUs of a scan. A single component is coded block by block, whatever its factors: they are 1 here.
struct ScanShape {
  int components = 0;
  int across = 0, down = 0;  // MCUs
  int columns[3] = {}, rows[3] = {};  // blocks of one MCU

  int step() const { return kEntryPixels / (8 * columns[0]); }  // MCUs from one entry to the next
  int entries_across() const { return (across + step() - 1) / step(); }
  std::size_t entries() const { return static_cast<std::size_t>(entries_across()) * static_cast<std::size_t>(down); }
};

// The shape of an image of one or three components with these sampling factors; no components if the index knows nothing
// of such: the first component must have the largest factors, and the others divisors of them.
ScanShape scan_shape(int width, int height, int components, const int* horizontal, const int* vertical);

// Where the decoder stands in front of an MCU: the bit's number from the first byte of the scan on, zeros stuffed behind
// each 0xFF counted, and the quantised mean of the last block of each component.
struct EntryPoint {
  std::uint64_t bit = 0;
  int means[3] = {};
};

constexpr std::uint64_t kMaxEntryBit = (std::uint64_t{1} << 28) - 1;
constexpr int kMaxEntryMean = 2047;  // and -2048

// Whether an entry point fits into eight bytes: 28 bits for the position, 12 for each mean.
bool fits_entry(const EntryPoint& point);
std::uint64_t pack_entry(const EntryPoint& point);
EntryPoint unpack_entry(std::uint64_t entry);

// The index of a scan while it is being walked through.
class ScanIndex {
 public:
  bool is_complete() const { return shape_.components != 0 && entries_.size() == shape_.entries(); }
  const std::vector<std::uint64_t>& entries() const { return entries_; }

  void start(const ScanShape& shape);
  // Whether the MCU in this column has an entry.
  bool wants(std::size_t column) const { return column % step_ == 0; }
  // `point` counts bits without the stuffed zeros.
  void add(const EntryPoint& point) { points_.push_back(point); }
  // Pack what was added; `scan` is what was read, up to the marker. Without effect if anything does not fit.
  void finish(const std::uint8_t* scan, std::size_t size);
  // It is of no use; it is not complete any more.
  void drop() { entries_.clear(); }

 private:
  ScanShape shape_;
  std::size_t step_ = 1;
  std::vector<EntryPoint> points_;
  std::vector<std::uint64_t> entries_;
};

}  // namespace fasttrain
