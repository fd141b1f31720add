#include "indexed_header.h"

#include <algorithm>
#include <cstring>

#include "jpeg_session.h"

namespace fasttrain {
namespace {

constexpr const char* kDamaged = "its header is damaged";
constexpr const char* kNoIndex = "it is of a kind that has no random-access index";

// The bytes of one marker segment.
class Reader {
 public:
  Reader(const std::uint8_t* data, std::size_t size) : data_(data), left_(size) {}

  std::size_t left() const { return left_; }
  const std::uint8_t* take(std::size_t count) {
    if (count > left_) throw JpegError(kDamaged);
    const std::uint8_t* taken = data_;
    data_ += count;
    left_ -= count;
    return taken;
  }
  int byte() { return *take(1); }
  int word() {
    const std::uint8_t* bytes = take(2);
    return bytes[0] << 8 | bytes[1];
  }

 private:
  const std::uint8_t* data_;
  std::size_t left_;
};

class HeaderReader {
 public:
  HeaderReader(const std::uint8_t* data, std::size_t size, IndexedHeader& header)
      : data_(data), size_(size), header_(header) {}

  void read() {
    if (size_ < 4 || data_[0] != 0xFF || data_[1] != 0xD8) throw JpegError("it is not a JPEG");
    std::size_t at = 2;
    while (true) {
      if (at + 4 > size_ || data_[at] != 0xFF) throw JpegError(kDamaged);
      const int marker = data_[at + 1];
      if (marker == 0xFF) {  // a fill byte
        ++at;
        continue;
      }
      const std::size_t length = std::size_t{data_[at + 2]} << 8 | data_[at + 3];
      if (length < 2 || length > size_ - at - 2) throw JpegError(kDamaged);
      segment(marker, Reader(data_ + at + 4, length - 2));
      at += 2 + length;
      if (marker == 0xDA) break;
    }
    header_.scan = data_ + at;
    header_.scan_size = size_ - at;
    // So that no memory is taken for what cannot come: a block has two codes of one bit at the least.
    if (blocks() / 4 > header_.scan_size) throw JpegError(kTooShort);
    choose_colour();
  }

 private:
  std::uint64_t blocks() const {
    const ScanShape& shape = header_.shape;
    std::uint64_t of_unit = 0;
    for (int i = 0; i < shape.components; ++i) of_unit += static_cast<std::uint64_t>(shape.columns[i] * shape.rows[i]);
    return of_unit * static_cast<std::uint64_t>(shape.across) * static_cast<std::uint64_t>(shape.down);
  }

  void segment(int marker, Reader reader) {
    switch (marker) {
      case 0xC0:
      case 0xC1:
        return frame(reader);
      case 0xC4:
        return huffman(reader);
      case 0xDA:
        return scan(reader);
      case 0xDB:
        return quantisation(reader);
      case 0xDD:
        if (reader.word() != 0) throw JpegError(kNoIndex);
        return;
      case 0xE0:
        has_jfif_ |= reader.left() >= 14 && std::memcmp(reader.take(5), "JFIF", 5) == 0;
        return;
      case 0xEE:
        if (reader.left() >= 12 && std::memcmp(reader.take(5), "Adobe", 5) == 0) transform_ = reader.take(7)[6];
        return;
      default:
        const bool is_other = (marker >= 0xE1 && marker <= 0xEF) || marker == 0xFE;
        if (!is_other) throw JpegError(kNoIndex);
    }
  }

  void frame(Reader& reader) {
    if (count_ != 0) throw JpegError(kDamaged);
    if (reader.byte() != 8) throw JpegError(kNoIndex);
    header_.height = reader.word();
    header_.width = reader.word();
    count_ = reader.byte();
    if (count_ != 1 && count_ != 3) throw JpegError(kNoIndex);
    int horizontal[3], vertical[3];
    for (int i = 0; i < count_; ++i) {
      IndexedComponent& component = header_.components[i];
      component.id = reader.byte();
      const int factors = reader.byte();
      if ((factors >> 4) == 0 || (factors & 15) == 0) throw JpegError(kDamaged);
      horizontal[i] = component.columns = factors >> 4;
      vertical[i] = component.rows = factors & 15;
      component.quantisation = reader.byte();
      if (component.quantisation >= NUM_QUANT_TBLS) throw JpegError(kDamaged);
    }
    header_.shape = scan_shape(header_.width, header_.height, count_, horizontal, vertical);
    if (header_.shape.components == 0) throw JpegError(kNoIndex);
    const int widest = horizontal[0], tallest = vertical[0];
    for (int i = 0; i < count_; ++i) {
      header_.components[i].width = (header_.width * horizontal[i] + widest - 1) / widest;
      header_.components[i].height = (header_.height * vertical[i] + tallest - 1) / tallest;
    }
  }

  void huffman(Reader& reader) {
    while (reader.left() > 0) {
      const int number = reader.byte();
      if ((number & 0xEF) >= NUM_HUFF_TBLS) throw JpegError(kDamaged);
      JHUFF_TBL& table = header_.huffman[number >> 4][number & 15];
      table.bits[0] = 0;
      std::memcpy(table.bits + 1, reader.take(16), 16);
      std::size_t symbols = 0;
      for (int length = 1; length <= 16; ++length) symbols += table.bits[length];
      if (symbols > 256) throw JpegError(kDamaged);
      std::memcpy(table.huffval, reader.take(symbols), symbols);
      std::memset(table.huffval + symbols, 0, 256 - symbols);
      has_huffman_[number >> 4][number & 15] = true;
    }
  }

  void quantisation(Reader& reader) {
    while (reader.left() > 0) {
      const int number = reader.byte();
      if ((number & 15) >= NUM_QUANT_TBLS) throw JpegError(kDamaged);
      for (auto& step : header_.quantisation[number & 15]) {
        step = static_cast<std::uint16_t>(number >> 4 ? reader.word() : reader.byte());
      }
      has_quantisation_[number & 15] = true;
    }
  }

  void scan(Reader& reader) {
    if (count_ == 0) throw JpegError(kDamaged);
    if (reader.byte() != count_) throw JpegError(kNoIndex);
    for (int i = 0; i < count_; ++i) {
      IndexedComponent& component = header_.components[i];
      if (reader.byte() != component.id) throw JpegError(kDamaged);
      const int numbers = reader.byte();
      component.dc = numbers >> 4;
      component.ac = numbers & 15;
      if (component.dc >= NUM_HUFF_TBLS || component.ac >= NUM_HUFF_TBLS || !has_huffman_[0][component.dc] ||
          !has_huffman_[1][component.ac] || !has_quantisation_[component.quantisation]) {
        throw JpegError(kDamaged);
      }
    }
  }

  // As libjpeg does it (default_decompress_parms in jdapimin.c).
  void choose_colour() {
    if (count_ == 1) {
      header_.colour = ColourModel::grey;
      return;
    }
    const IndexedComponent* of = header_.components;
    const bool ids_say_rgb = of[0].id == 'R' && of[1].id == 'G' && of[2].id == 'B';
    const bool is_rgb = !has_jfif_ && (transform_ >= 0 ? transform_ == 0 : ids_say_rgb);
    header_.colour = is_rgb ? ColourModel::rgb : ColourModel::ycc;
  }

  const std::uint8_t* data_;
  std::size_t size_;
  IndexedHeader& header_;
  int count_ = 0;  // components
  bool has_huffman_[2][NUM_HUFF_TBLS] = {}, has_quantisation_[NUM_QUANT_TBLS] = {};
  bool has_jfif_ = false;
  int transform_ = -1;  // of an Adobe segment
};

}  // namespace

int block_side(const IndexedHeader& header, int component, int eighths) {
  const ScanShape& shape = header.shape;
  int side = eighths;
  while (side < 8 && shape.columns[0] * eighths % (shape.columns[component] * side * 2) == 0 &&
         shape.rows[0] * eighths % (shape.rows[component] * side * 2) == 0) {
    side *= 2;
  }
  return side;
}

void read_indexed_header(const std::uint8_t* data, std::size_t size, IndexedHeader& header) {
  HeaderReader(data, size, header).read();
}

}  // namespace fasttrain
