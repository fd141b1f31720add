#include "scan_index.h"

#include <cstring>

namespace fasttrain {
namespace {

constexpr int kMeanBits = 12;
constexpr int kBitBits = 28;
constexpr int kMaxBlocks = 10;  // of an MCU (ITU-T T.81, B.2.3)

int ceil_divided(int value, int by) { return (value + by - 1) / by; }

}  // namespace

ScanShape scan_shape(int width, int height, int components, const int* horizontal, const int* vertical) {
  ScanShape shape;
  if ((components != 1 && components != 3) || width < 1 || height < 1) return {};
  int blocks = 0;
  for (int i = 0; i < components; ++i) {
    shape.columns[i] = components == 1 ? 1 : horizontal[i];
    shape.rows[i] = components == 1 ? 1 : vertical[i];
    const int across = shape.columns[i], down = shape.rows[i];
    if (across < 1 || across > 4 || down < 1 || down > 4) return {};
    if (shape.columns[0] % across != 0 || shape.rows[0] % down != 0) return {};
    blocks += across * down;
  }
  if (blocks > kMaxBlocks) return {};
  shape.components = components;
  shape.across = ceil_divided(width, 8 * shape.columns[0]);
  shape.down = ceil_divided(height, 8 * shape.rows[0]);
  return shape;
}

bool fits_entry(const EntryPoint& point) {
  for (const int mean : point.means) {
    if (mean > kMaxEntryMean || mean < -kMaxEntryMean - 1) return false;
  }
  return point.bit <= kMaxEntryBit;
}

std::uint64_t pack_entry(const EntryPoint& point) {
  std::uint64_t entry = point.bit;
  for (int i = 0; i < 3; ++i) {
    entry |= (static_cast<std::uint64_t>(point.means[i]) & ((1 << kMeanBits) - 1)) << (kBitBits + i * kMeanBits);
  }
  return entry;
}

EntryPoint unpack_entry(std::uint64_t entry) {
  EntryPoint point;
  point.bit = entry & kMaxEntryBit;
  for (int i = 0; i < 3; ++i) {
    const int above = 64 - kBitBits - (i + 1) * kMeanBits;
    point.means[i] = static_cast<int>(static_cast<std::int64_t>(entry << above) >> (64 - kMeanBits));
  }
  return point;
}

void ScanIndex::start(const ScanShape& shape) {
  shape_ = shape;
  step_ = static_cast<std::size_t>(shape.step());
  points_.clear();
  points_.reserve(shape.entries());
  entries_.clear();
}

void ScanIndex::finish(const std::uint8_t* scan, std::size_t size) {
  std::size_t stuffed = 0;  // zeros before the next 0xFF
  std::size_t at = 0, next = 0;
  const auto find_next = [&] {
    const void* found = at < size ? std::memchr(scan + at, 0xFF, size - at) : nullptr;
    next = found ? static_cast<std::size_t>(static_cast<const std::uint8_t*>(found) - scan) : size;
  };
  find_next();
  entries_.reserve(points_.size());
  for (EntryPoint point : points_) {
    while (next < size && next - stuffed < point.bit / 8) {  // the 0xFF lies before the entry, and so does its zero
      ++stuffed;
      at = next + 2;
      find_next();
    }
    point.bit += 8 * stuffed;
    if (!fits_entry(point)) return entries_.clear();
    entries_.push_back(pack_entry(point));
  }
}

}  // namespace fasttrain
