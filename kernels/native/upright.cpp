#include "upright.h"

#include <algorithm>
#include <cstring>

namespace fasttrain {
namespace {

struct Bytes {
  const std::uint8_t* data;
  std::size_t size;

  bool starts_with(const char* text, std::size_t length) const {
    return size >= length && std::memcmp(data, text, length) == 0;
  }
  bool contains(const char* text, std::size_t length) const {
    return std::search(data, data + size, text, text + length) != data + size;
  }
};

enum class Orientation { none, usual, other };

// The orientation tag of the first directory of a TIFF structure (EXIF 2.3, 4.6.2 and 4.6.4 A).
Orientation orientation_of(Bytes tiff) {
  if (tiff.size < 8) return Orientation::other;
  const bool big = tiff.data[0] == 'M';
  const auto number = [&](std::size_t at, int bytes) {
    std::uint32_t value = 0;
    for (int i = 0; i < bytes; ++i) value |= std::uint32_t{tiff.data[at + i]} << 8 * (big ? bytes - 1 - i : i);
    return value;
  };
  const std::size_t directory = number(4, 4);
  if (directory > tiff.size - 2) return Orientation::other;
  const std::size_t entries = number(directory, 2);
  for (std::size_t i = 0; i < entries; ++i) {
    const std::size_t entry = directory + 2 + 12 * i;
    if (entry + 12 > tiff.size) return Orientation::other;
    if (number(entry, 2) != 0x0112) continue;
    const bool is_short = number(entry + 2, 2) == 3 && number(entry + 4, 4) == 1;
    return is_short && number(entry + 8, 2) == 1 ? Orientation::usual : Orientation::other;
  }
  return Orientation::none;
}

}  // namespace

bool may_need_turning(const std::uint8_t* data, std::size_t size) {
  Orientation exif = Orientation::none;
  bool xmp = false;  // XMP may hold an orientation too, which counts where EXIF has none
  std::size_t at = 2;
  while (at + 4 <= size && data[at] == 0xFF) {
    const int marker = data[at + 1];
    if (marker == 0xFF) {
      ++at;
      continue;
    }
    if (marker == 0xDA || marker == 0xD9) break;
    if (marker == 0x01 || (marker >= 0xD0 && marker <= 0xD8)) {
      at += 2;
      continue;
    }
    const std::size_t length = std::size_t{data[at + 2]} << 8 | data[at + 3];
    if (length < 2 || length > size - at - 2) return true;
    const Bytes segment{data + at + 4, length - 2};
    if (marker == 0xE1) {
      if (segment.starts_with("Exif\0\0", 6)) {
        const Orientation found = orientation_of({segment.data + 6, segment.size - 6});
        if (found != Orientation::none) exif = found;
        if (exif == Orientation::other) return true;
      } else if (segment.contains("Orientation", 11)) {
        xmp = true;
      }
    }
    at += 2 + length;
  }
  return exif == Orientation::none && xmp;
}

}  // namespace fasttrain
