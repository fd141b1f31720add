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

// What the next bits mean: a code and the value bits behind it, packed so that the tables stay in the fastest cache.
// All zero stands for a code longer than kLookBits, or for none at all.
class Entry {
 public:
  Entry() = default;
  Entry(int bits, int advance, int size) : packed_(static_cast<std::uint32_t>(bits | advance << 8 | size << 16)) {}

  void set_value(int value) { packed_ |= kHasValue | static_cast<std::uint32_t>(value) << 21; }

  explicit operator bool() const { return packed_ != 0; }
  unsigned bits() const { return packed_ & 0xFF; }            // of code and value together
  int advance() const { return packed_ >> 8 & 0xFF; }         // AC: coefficients to go on by; 64 ends the block
  int size() const { return packed_ >> 16 & 15; }             // bits of the value
  bool has_value() const { return (packed_ & kHasValue) != 0; }  // code and value fit kLookBits together
  int value() const { return static_cast<std::int32_t>(packed_) >> 21; }

 private:
  static constexpr std::uint32_t kHasValue = 1u << 20;
  std::uint32_t packed_ = 0;
};

// The value of `size` bits (T.81, F.2.2.1: EXTEND), without a branch: signs are as good as random.
inline int extended(int value, int size) {
  const int negative = -(value < (1 << size >> 1));
  return value + (negative & (1 - (1 << size)));
}

class HuffmanTable {
 public:
  // `is_dc` decides what a symbol means. False for a table that libjpeg refuses.
  bool build(const JHUFF_TBL& table, bool is_dc) {
    std::fill(std::begin(look_), std::end(look_), Entry());
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
        const int rest = kLookBits - length;
        const Entry entry = meaning(symbols_[index], length);
        const int size = entry.size();
        for (int j = 0; j < (1 << rest); ++j) {
          Entry& place = look_[(code << rest) + static_cast<std::uint32_t>(j)];
          place = entry;
          if (size <= rest) place.set_value(extended(j >> (rest - size), size));
        }
      }
      code <<= 1;
    }
    return true;
  }

  Entry find(std::uint64_t window) const {
    const Entry entry = look_[window >> (64 - kLookBits)];
    return entry ? entry : find_long(window);
  }

 private:
  Entry meaning(int symbol, int length) const {
    const int size = is_dc_ ? symbol : symbol & 15, run = symbol >> 4;
    int advance = 1;
    if (!is_dc_) advance = size != 0 ? run + 1 : run == 15 ? 16 : kBlockSize;  // ZRL, or the end of the block
    return {length + size, advance, size};
  }

  Entry find_long(std::uint64_t window) const {
    for (int length = kLookBits + 1; length <= 16; ++length) {
      const std::uint32_t code = static_cast<std::uint32_t>(window >> (64 - length));
      const std::uint32_t place = code - first_code_[length];
      if (code >= first_code_[length] && place < static_cast<std::uint32_t>(count_[length])) {
        return meaning(symbols_[first_index_[length] + place], length);
      }
    }
    return {};
  }

  Entry look_[1 << kLookBits];
  const UINT8* symbols_ = nullptr;
  std::uint32_t first_code_[17];
  int first_index_[17], count_[17];
  bool is_dc_ = false;
};


// A bit reservoir over unstuffed bytes, left-aligned. A refill is one unaligned load and no branch (F. Giesen, "Reading
// bits in far too many ways", variant 4).
class BitReader {
 public:
  explicit BitReader(const std::uint8_t* data) : start_(data), next_(data) {}

  void refill() {  // to 56 bits at the least
    std::uint64_t bytes;
    std::memcpy(&bytes, next_, sizeof bytes);
    window_ |= __builtin_bswap64(bytes) >> held_;
    next_ += (63 - held_) >> 3;
    held_ |= 56;
  }
  std::uint64_t window() const { return window_; }
  void drop(unsigned count) {
    window_ <<= count;
    held_ -= count;
  }
  std::size_t position() const { return static_cast<std::size_t>(next_ - start_) * 8 - held_; }  // in bits

 private:
  const std::uint8_t* start_;
  const std::uint8_t* next_;
  std::uint64_t window_ = 0;
  unsigned held_ = 0;
};

constexpr const char* kNoCode = "its entropy code is damaged: a code that stands for nothing";
constexpr const char* kTooMany = "its entropy code is damaged: a block with too many coefficients";

// Natural order of the zigzag sequence (T.81, figure A.6).
constexpr std::uint8_t kNatural[kBlockSize] = {
    0,  1,  8,  16, 9,  2,  3,  10, 17, 24, 32, 25, 18, 11, 4,  5,  12, 19, 26, 33, 40, 48,
    41, 34, 27, 20, 13, 6,  7,  14, 21, 28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23,
    30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63};

struct Component {
  const HuffmanTable* dc;
  const HuffmanTable* ac;
  int columns, rows;  // blocks of one MCU
  int quantum;
  int predictor;
  const CoefficientPlane* plane;
};

struct Layout {
  Component components[4];
  int count = 0;
  std::size_t across = 0, down = 0;  // MCUs of the scan
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

// The value of an entry whose bits are next.
inline int value_of(const Entry& entry, std::uint64_t window) {
  if (entry.has_value()) return entry.value();
  return extended(static_cast<int>(window << (entry.bits() - entry.size()) >> (64 - entry.size())), entry.size());
}

template <bool kKeep>
const char* walk_block(BitReader& bits, Component& component, JCOEF* block) {
  bits.refill();
  const Entry dc = component.dc->find(bits.window());
  if (!dc) return kNoCode;
  if (dc.size() != 0) {
    component.predictor += value_of(dc, bits.window());
    const long mean = static_cast<long>(component.predictor) * component.quantum;
    if (mean > kMaxMean + component.quantum || mean < -kMaxMean - component.quantum) {
      return "its entropy code is damaged: a block far too bright or too dark";
    }
  }
  bits.drop(dc.bits());
  const float* ratios = kKeep ? component.plane->ratios : nullptr;
  if (kKeep) block[0] = ratios ? rescaled(component.predictor, ratios[0]) : static_cast<JCOEF>(component.predictor);
  for (int index = 1; index < kBlockSize;) {
    bits.refill();
    const Entry ac = component.ac->find(bits.window());
    if (!ac) return kNoCode;
    index += ac.advance();
    if (kKeep && ac.size() != 0) {
      if (index > kBlockSize) return kTooMany;
      const int place = kNatural[index - 1], value = value_of(ac, bits.window());
      block[place] = ratios ? rescaled(value, ratios[place]) : static_cast<JCOEF>(value);
    } else if (index > kBlockSize && ac.advance() < kBlockSize) {
      return kTooMany;
    }
    bits.drop(ac.bits());
  }
  return nullptr;
}

// Walk through the MCUs from `first` on. Returns why the segment is damaged, or null.
template <bool kKeep>
const char* walk_segment(const Segment& segment, Layout& layout, std::size_t first, std::size_t units) {
  BitReader bits(segment.bytes.data());
  const std::size_t total = segment.length * 8;
  for (int i = 0; i < layout.count; ++i) layout.components[i].predictor = 0;
  for (std::size_t unit = first; unit < first + units; ++unit) {
    const std::size_t top = unit / layout.across, left = unit % layout.across;
    for (int i = 0; i < layout.count; ++i) {
      Component& component = layout.components[i];
      for (int block = 0; block < component.columns * component.rows; ++block) {
        // A block takes 64 * 31 bits at the most, so that looking before each one keeps all reads within the slack.
        if (bits.position() >= total) return "its entropy code is damaged or truncated: it ends before the image does";
        JCOEF* kept = nullptr;
        if (kKeep) {
          const std::size_t row = top * component.rows + block / component.columns;
          kept = component.plane->rows[row][left * component.columns + block % component.columns];
        }
        if (const char* reason = walk_block<kKeep>(bits, component, kept)) return reason;
      }
    }
  }
  if (bits.position() > total) return "its entropy code is damaged or truncated: it ends before the image does";
  for (std::size_t byte = (bits.position() + 7) / 8; byte < segment.length; ++byte) {
    if (segment.bytes[byte] != 0) return "its entropy code is damaged: it goes on behind the end of the image";
  }
  return nullptr;
}

// Whether the scan has the components in the frame's order, as it must (T.81, B.2.3).
bool in_order(const jpeg_decompress_struct& decoder) {
  for (int i = 0; i < decoder.num_components; ++i) {
    if (decoder.cur_comp_info[i] != &decoder.comp_info[i]) return false;
  }
  return true;
}

bool is_sequential(const jpeg_decompress_struct& decoder) {
  return !decoder.progressive_mode && !decoder.arith_code && decoder.data_precision == 8 &&
         decoder.comps_in_scan == decoder.num_components && decoder.num_components <= 4 && in_order(decoder);
}

}  // namespace

PlaneShape plane_shape(const jpeg_decompress_struct& decoder, int component) {
  int widest = 1, tallest = 1, columns = 1, rows = 1;
  if (decoder.num_components > 1) {  // a single component is coded block by block, whatever its factors
    widest = decoder.max_h_samp_factor;
    tallest = decoder.max_v_samp_factor;
    columns = decoder.comp_info[component].h_samp_factor;
    rows = decoder.comp_info[component].v_samp_factor;
  }
  const JDIMENSION across = (decoder.image_width + 8 * widest - 1) / (8 * widest);
  const JDIMENSION down = (decoder.image_height + 8 * tallest - 1) / (8 * tallest);
  return {across * columns, down * rows};
}

ScanVerdict walk_scan(const jpeg_decompress_struct& decoder, const std::uint8_t* data, std::size_t size,
                      std::size_t& end, const char*& reason, CoefficientPlane* planes) {
  if (!is_sequential(decoder)) return ScanVerdict::unknown;
  thread_local HuffmanTable tables[2][NUM_HUFF_TBLS];
  thread_local Segment segment;
  bool built[2][NUM_HUFF_TBLS] = {};
  Layout layout;
  layout.count = decoder.num_components;
  for (int i = 0; i < layout.count; ++i) {
    const jpeg_component_info& info = decoder.comp_info[i];
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
    const bool single = layout.count == 1;  // then it is coded block by block, whatever its factors
    layout.components[i] = {&tables[0][numbers[0]],         &tables[1][numbers[1]],         single ? 1 : info.h_samp_factor,
                            single ? 1 : info.v_samp_factor, quantisation->quantval[0],      0,
                            planes ? &planes[i] : nullptr};
  }
  const PlaneShape shape = plane_shape(decoder, 0);
  layout.across = shape.across / layout.components[0].columns;
  layout.down = shape.down / layout.components[0].rows;
  const std::size_t total = layout.across * layout.down;
  layout.interval = decoder.restart_interval ? decoder.restart_interval : total;

  std::size_t at = static_cast<std::size_t>(decoder.src->next_input_byte - data);
  std::size_t left = total;
  for (int restart = 0;; restart = (restart + 1) & 7) {
    at = segment.read(data, at, size);
    const std::size_t units = std::min(left, layout.interval);
    reason = planes ? walk_segment<true>(segment, layout, total - left, units)
                    : walk_segment<false>(segment, layout, total - left, units);
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
