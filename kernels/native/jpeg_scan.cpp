#include "jpeg_scan.h"

#include <algorithm>
#include <cstring>
#include <vector>

namespace fasttrain {
namespace {

constexpr int kLookBits = 11;       // codes up to this length are found by one look-up
constexpr int kBlockSize = 64;      // coefficients
constexpr int kSlack = 512;         // zero bytes behind a segment: a block may begin in it and be all beyond its end
constexpr int kMaxMean = 2048;      // twice the range of a dequantised DC coefficient of 8-bit pixels

// What the next bits mean. `bits` counts the code and the value bits behind it; 0 stands for a code longer than
// kLookBits, or for none at all.
struct alignas(4) Entry {
  std::uint8_t bits;
  std::uint8_t advance;  // AC: coefficients to go on by; 64 and more end the block. DC: value bits
  std::uint8_t code_bits;
};

class HuffmanTable {
 public:
  // `is_dc` decides what a symbol means. False for a table that libjpeg refuses.
  bool build(const JHUFF_TBL& table, bool is_dc) {
    std::memset(look_, 0, sizeof look_);
    is_dc_ = is_dc;
    symbols_ = table.huffval;
    std::uint32_t code = 0;
    int index = 0;
    for (int length = 1; length <= 16; ++length) {
      first_code_[length] = code;
      first_index_[length] = index;
      count_[length] = table.bits[length];
      const std::uint32_t stop = code + static_cast<std::uint32_t>(count_[length]);
      if (index + count_[length] > 256 || (count_[length] != 0 && stop >= (1u << length))) return false;  // all ones
      for (int i = 0; i < count_[length]; ++i, ++code, ++index) {
        if (is_dc && symbols_[index] > 15) return false;
        if (length > kLookBits) continue;
        const Entry entry = meaning(symbols_[index], length);
        const std::uint32_t from = code << (kLookBits - length);
        for (std::uint32_t j = 0; j < (1u << (kLookBits - length)); ++j) look_[from + j] = entry;
      }
      code <<= 1;
    }
    return true;
  }

  Entry find(std::uint64_t window) const {
    const Entry entry = look_[window >> (64 - kLookBits)];
    return entry.bits != 0 ? entry : find_long(window);
  }

 private:
  Entry meaning(int symbol, int length) const {
    const int size = is_dc_ ? symbol : symbol & 15;
    if (is_dc_) {
      return {static_cast<std::uint8_t>(length + size), static_cast<std::uint8_t>(size), static_cast<std::uint8_t>(length)};
    }
    const int run = symbol >> 4;
    int advance = run + 1;
    if (size == 0) advance = run == 15 ? 16 : kBlockSize;  // ZRL, or the end of the block
    return {static_cast<std::uint8_t>(length + size), static_cast<std::uint8_t>(advance), static_cast<std::uint8_t>(length)};
  }

  Entry find_long(std::uint64_t window) const {
    for (int length = kLookBits + 1; length <= 16; ++length) {
      const std::uint32_t code = static_cast<std::uint32_t>(window >> (64 - length));
      const std::uint32_t place = code - first_code_[length];
      if (code >= first_code_[length] && place < static_cast<std::uint32_t>(count_[length])) {
        return meaning(symbols_[first_index_[length] + place], length);
      }
    }
    return {0, 0, 0};
  }

  Entry look_[1 << kLookBits];
  const UINT8* symbols_ = nullptr;
  std::uint32_t first_code_[17];
  int first_index_[17], count_[17];
  bool is_dc_ = false;
};

// A bit reservoir over unstuffed bytes, left-aligned; a refill is one unaligned load and no branch.
class BitReader {
 public:
  explicit BitReader(const std::uint8_t* data) : data_(data) {}

  void refill() {
    std::uint64_t next;
    std::memcpy(&next, data_ + (position_ >> 3), sizeof next);
    window_ = __builtin_bswap64(next) << (position_ & 7);  // at least 57 bits
  }
  std::uint64_t window() const { return window_; }
  void drop(int count) {
    window_ <<= count;
    position_ += static_cast<std::size_t>(count);
  }
  std::size_t position() const { return position_; }

 private:
  const std::uint8_t* data_;
  std::size_t position_ = 0;  // bits
  std::uint64_t window_ = 0;
};

struct Component {
  const HuffmanTable* dc;
  const HuffmanTable* ac;
  int blocks;  // of one MCU
  int quantum;
  int predictor;
};

struct Layout {
  Component components[4];
  int count = 0;
  std::size_t units = 0;  // MCUs of the scan
  std::size_t interval = 0;  // MCUs between restart markers; all of them without
};

// One entropy-coded segment: the bytes up to the next marker, without the zeros stuffed behind each 0xFF.
struct Segment {
  std::vector<std::uint8_t> bytes;
  std::size_t length = 0;

  // Returns the position of the marker's 0xFF, or `size` if there is none.
  std::size_t read(const std::uint8_t* data, std::size_t at, std::size_t size) {
    if (bytes.size() < size - at + kSlack) bytes.resize(size - at + kSlack);
    length = 0;
    while (at < size) {
      const auto* found = static_cast<const std::uint8_t*>(std::memchr(data + at, 0xFF, size - at));
      const std::size_t stop = found ? static_cast<std::size_t>(found - data) : size;
      std::memcpy(bytes.data() + length, data + at, stop - at);
      length += stop - at;
      at = stop;
      if (at + 1 >= size || data[at + 1] != 0) break;
      bytes[length++] = 0xFF;
      at += 2;
    }
    std::memset(bytes.data() + length, 0, kSlack);
    return at;
  }
};

const char* walk_block(BitReader& bits, Component& component) {
  bits.refill();
  const Entry dc = component.dc->find(bits.window());
  if (dc.bits == 0) return "its entropy code is damaged: a code that stands for nothing";
  if (const int size = dc.advance) {
    const std::uint64_t value = bits.window() << dc.code_bits >> (64 - size);
    const bool negative = !(value >> (size - 1));
    component.predictor += static_cast<int>(value) - (negative ? (1 << size) - 1 : 0);
    const long mean = static_cast<long>(component.predictor) * component.quantum;
    if (mean > kMaxMean + component.quantum || mean < -kMaxMean - component.quantum) {
      return "its entropy code is damaged: a block far too bright or too dark";
    }
  }
  bits.drop(dc.bits);
  int index = 1;
  while (index < kBlockSize) {
    bits.refill();
    // Two codes fit one refill: a code with its value is at most 16 + 15 bits, and 57 are there.
    Entry ac = component.ac->find(bits.window());
    if (ac.bits == 0) return "its entropy code is damaged: a code that stands for nothing";
    bits.drop(ac.bits);
    index += ac.advance;
    if (index >= kBlockSize) {
      if (index > kBlockSize && ac.advance < kBlockSize) return "its entropy code is damaged: a block with too many coefficients";
      break;
    }
    ac = component.ac->find(bits.window());
    if (ac.bits == 0) return "its entropy code is damaged: a code that stands for nothing";
    if (ac.bits > 57 - 31) continue;  // more bits than may be left: read it again after a refill
    bits.drop(ac.bits);
    index += ac.advance;
    if (index > kBlockSize && ac.advance < kBlockSize) return "its entropy code is damaged: a block with too many coefficients";
  }
  return nullptr;
}

// Returns why the segment is damaged, or null.
const char* walk_segment(const Segment& segment, Layout& layout, std::size_t units) {
  BitReader bits(segment.bytes.data());
  const std::size_t total = segment.length * 8;
  for (int i = 0; i < layout.count; ++i) layout.components[i].predictor = 0;
  for (std::size_t unit = 0; unit < units; ++unit) {
    for (int i = 0; i < layout.count; ++i) {
      Component& component = layout.components[i];
      for (int block = 0; block < component.blocks; ++block) {
        // A block takes 64 * 31 bits at the most, so that looking before each one keeps all reads within the slack.
        if (bits.position() >= total) return "its entropy code is damaged or truncated: it ends before the image does";
        if (const char* reason = walk_block(bits, component)) return reason;
      }
    }
  }
  if (bits.position() > total) return "its entropy code is damaged or truncated: it ends before the image does";
  for (std::size_t byte = (bits.position() + 7) / 8; byte < segment.length; ++byte) {
    if (segment.bytes[byte] != 0) return "its entropy code is damaged: it goes on behind the end of the image";
  }
  return nullptr;
}

bool is_sequential(const jpeg_decompress_struct& decoder) {
  return !decoder.progressive_mode && !decoder.arith_code && decoder.data_precision == 8 &&
         decoder.comps_in_scan == decoder.num_components && decoder.num_components <= 4;
}

}  // namespace

ScanVerdict walk_scan(const jpeg_decompress_struct& decoder, const std::uint8_t* data, std::size_t size,
                      std::size_t& end, const char*& reason) {
  if (!is_sequential(decoder)) return ScanVerdict::unknown;
  thread_local HuffmanTable tables[2][NUM_HUFF_TBLS];
  thread_local Segment segment;
  bool built[2][NUM_HUFF_TBLS] = {};
  Layout layout;
  layout.count = decoder.num_components;
  int widest = 1, tallest = 1;
  for (int i = 0; i < layout.count; ++i) {
    const jpeg_component_info& info = *decoder.cur_comp_info[i];
    // libjpeg checks these numbers only when it uses them.
    if (info.quant_tbl_no < 0 || info.quant_tbl_no >= NUM_QUANT_TBLS) return ScanVerdict::unknown;
    if (info.dc_tbl_no < 0 || info.dc_tbl_no >= NUM_HUFF_TBLS) return ScanVerdict::unknown;
    if (info.ac_tbl_no < 0 || info.ac_tbl_no >= NUM_HUFF_TBLS) return ScanVerdict::unknown;
    const JQUANT_TBL* quantisation = decoder.quant_tbl_ptrs[info.quant_tbl_no];
    const JHUFF_TBL* sources[2] = {decoder.dc_huff_tbl_ptrs[info.dc_tbl_no], decoder.ac_huff_tbl_ptrs[info.ac_tbl_no]};
    const int numbers[2] = {info.dc_tbl_no, info.ac_tbl_no};
    if (quantisation == nullptr || sources[0] == nullptr || sources[1] == nullptr) return ScanVerdict::unknown;
    for (int kind = 0; kind < 2; ++kind) {
      bool& done = built[kind][numbers[kind]];
      if (!done && !tables[kind][numbers[kind]].build(*sources[kind], kind == 0)) return ScanVerdict::unknown;
      done = true;
    }
    widest = std::max(widest, info.h_samp_factor);
    tallest = std::max(tallest, info.v_samp_factor);
    const int blocks = layout.count == 1 ? 1 : info.h_samp_factor * info.v_samp_factor;
    layout.components[i] = {&tables[0][numbers[0]], &tables[1][numbers[1]], blocks, quantisation->quantval[0], 0};
  }
  if (layout.count == 1) widest = tallest = 1;  // a single component is coded block by block, whatever its factors
  const std::size_t across = (decoder.image_width + 8 * widest - 1) / (8 * widest);
  const std::size_t down = (decoder.image_height + 8 * tallest - 1) / (8 * tallest);
  layout.units = across * down;
  layout.interval = decoder.restart_interval ? decoder.restart_interval : layout.units;

  std::size_t at = static_cast<std::size_t>(decoder.src->next_input_byte - data);
  std::size_t left = layout.units;
  for (int restart = 0;; restart = (restart + 1) & 7) {
    at = segment.read(data, at, size);
    const std::size_t units = std::min(left, layout.interval);
    reason = walk_segment(segment, layout, units);
    if (reason != nullptr) return ScanVerdict::damaged;
    left -= units;
    while (at + 1 < size && data[at + 1] == 0xFF) ++at;  // fill bytes
    if (at + 1 >= size) {
      reason = "it is truncated: there is no end marker";
      return ScanVerdict::damaged;
    }
    const int marker = data[at + 1];
    at += 2;
    if (left == 0) {
      end = at;
      return marker == 0xD9 ? ScanVerdict::sound : ScanVerdict::unknown;
    }
    if (marker != 0xD0 + restart) {
      reason = "its entropy code is damaged: a restart marker is missing";
      return ScanVerdict::damaged;
    }
  }
}

}  // namespace fasttrain
