#include "jpeg_scan.h"

#include <algorithm>
#include <cstring>
#include <vector>

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the bit reader loads bytes in this order");

namespace fasttrain {
namespace {

constexpr int kLookBits = 10;   // codes up to this length are found by one look-up
constexpr int kBlockSize = 64;  // coefficients
constexpr int kSlack = 512;     // zero bytes behind a segment: a block may begin in it and be all beyond its end
constexpr int kMaxMean = 2048;  // twice the range of a dequantised DC coefficient of 8-bit pixels

// What the next bits mean: a code and the value bits behind it, packed so that the tables stay in the fastest cache.
// All zero stands for a code longer than kLookBits, or for none at all.
class Entry {
 public:
  Entry() = default;
  Entry(int bits, int advance, int size) : packed_(static_cast<std::uint32_t>(bits | advance << 8 | size << 16)) {}

  explicit operator bool() const { return packed_ != 0; }
  unsigned bits() const { return packed_ & 63; }       // of code and value together
  int advance() const { return packed_ >> 8 & 0xFF; }  // AC: coefficients to go on by; 64 ends the block
  int size() const { return packed_ >> 16; }           // bits of the value

 private:
  std::uint32_t packed_ = 0;
};

// The value of `size` bits (T.81, F.2.2.1: EXTEND), without a branch: signs are as good as random.
inline int extended(int value, int size) {
  const int negative = -(value < (1 << size >> 1));
  return value + (negative & (1 - (1 << size)));
}

// The value of an entry whose bits are next; it must have one.
inline int value_of(const Entry& entry, std::uint64_t window) {
  return extended(static_cast<int>(window << (entry.bits() - entry.size()) >> (64 - entry.size())), entry.size());
}

class HuffmanTable {
 public:
  // Whether this is the table for `table` already: most files have the standard's own ones.
  bool is_of(const JHUFF_TBL& table, bool is_dc) const {
    return valid_ && is_dc == is_dc_ && std::memcmp(counts_, table.bits, sizeof counts_) == 0 &&
           std::memcmp(symbols_, table.huffval, sizeof symbols_) == 0;
  }

  // `is_dc` decides what a symbol means. False for a table that libjpeg refuses.
  bool build(const JHUFF_TBL& table, bool is_dc) {
    std::fill(std::begin(look_), std::end(look_), Entry());
    valid_ = false;
    is_dc_ = is_dc;
    std::memcpy(counts_, table.bits, sizeof counts_);
    std::memcpy(symbols_, table.huffval, sizeof symbols_);
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
        Entry* first = look_ + (code << (kLookBits - length));
        std::fill(first, first + (1 << (kLookBits - length)), meaning(symbols_[index], length));
      }
      code <<= 1;
    }
    valid_ = true;
    return true;
  }

  // Codes of up to kLookBits; nothing for others.
  Entry find_short(std::uint64_t window) const { return look_[window >> (64 - kLookBits)]; }

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
  UINT8 counts_[17], symbols_[256];  // as in the file
  bool valid_ = false;
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

// What the next kRunBits bits mean if nobody wants the values: all AC codes that lie in them as a whole, up to the end
// of the block. Most codes are short, so one look-up goes over about three of them.
class Run {
 public:
  void add(unsigned bits, int advance) { packed_ = static_cast<std::uint16_t>(packed_ + bits + (advance << 6)); }
  void end(unsigned bits) { packed_ = static_cast<std::uint16_t>((packed_ + bits) | 1u << 12); }

  bool fits() const { return packed_ != 0; }        // at least one code
  unsigned bits() const { return packed_ & 63; }
  int advance() const { return packed_ >> 6 & 63; }  // coefficients, the end of the block not counted
  bool ends() const { return packed_ >> 12 != 0; }   // the last code ends the block

 private:
  std::uint16_t packed_ = 0;
};

constexpr int kRunBits = 11;
constexpr int kRunsPerRefill = 56 / kRunBits;

class RunTable {
 public:
  void build(const HuffmanTable& table) {
    for (std::uint32_t index = 0; index < (1u << kRunBits); ++index) {
      Run run;
      std::uint64_t window = std::uint64_t{index} << (64 - kRunBits);
      while (true) {
        const Entry entry = table.find_short(window);
        if (!entry || run.bits() + entry.bits() > kRunBits) break;
        if (entry.advance() == kBlockSize) {
          run.end(entry.bits());
          break;
        }
        if (run.advance() + entry.advance() >= kBlockSize) break;
        run.add(entry.bits(), entry.advance());
        window <<= entry.bits();
      }
      runs_[index] = run;
    }
  }

  Run find(std::uint64_t window) const { return runs_[window >> (64 - kRunBits)]; }

 private:
  Run runs_[1 << kRunBits];
};

// The same with the values, for two codes at the most.
struct Pair {
  std::int16_t first_value, second_value;
  std::uint8_t first_advance;   // 0 if the block ends at once
  std::uint8_t second_advance;  // 0 if there is no second coefficient; then the first one's value stands for it
  std::uint8_t bits;            // 0 if not even one code fits
  bool ends;                    // the last code ends the block
};

constexpr int kPairBits = 10;
constexpr int kPairsPerRefill = 56 / kPairBits;

class PairTable {
 public:
  void build(const HuffmanTable& table) {
    for (std::uint32_t index = 0; index < (1u << kPairBits); ++index) {
      Pair pair{};
      std::uint64_t window = std::uint64_t{index} << (64 - kPairBits);
      for (int turn = 0; turn < 3 && !pair.ends; ++turn) {
        const Entry entry = table.find_short(window);
        if (!entry || pair.bits + entry.bits() > kPairBits) break;
        if (entry.advance() == kBlockSize) {
          pair.ends = true;
        } else if (turn == 2 || entry.size() == 0) {
          break;  // a third coefficient, or sixteen zeros
        } else {
          const auto value = static_cast<std::int16_t>(value_of(entry, window));
          (turn == 0 ? pair.first_advance : pair.second_advance) = static_cast<std::uint8_t>(entry.advance());
          if (turn == 0) pair.first_value = value;
          pair.second_value = value;
        }
        pair.bits = static_cast<std::uint8_t>(pair.bits + entry.bits());
        window <<= entry.bits();
      }
      pairs_[index] = pair;
    }
  }

  const Pair& find(std::uint64_t window) const { return pairs_[window >> (64 - kPairBits)]; }

 private:
  Pair pairs_[1 << kPairBits];
};

constexpr const char* kNoCode = "its entropy code is damaged: a code that stands for nothing";
constexpr const char* kEndsEarly = "its entropy code is damaged: it ends before the image does";
constexpr const char* kTooMany = "its entropy code is damaged: a block with too many coefficients";

// Natural order of the zigzag sequence (T.81, figure A.6).
constexpr std::uint8_t kNatural[kBlockSize] = {
    0,  1,  8,  16, 9,  2,  3,  10, 17, 24, 32, 25, 18, 11, 4,  5,  12, 19, 26, 33, 40, 48,
    41, 34, 27, 20, 13, 6,  7,  14, 21, 28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23,
    30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63};

struct Component {
  const HuffmanTable* dc;
  const HuffmanTable* ac;
  const RunTable* runs;    // of `ac`, when coefficients are not kept
  const PairTable* pairs;  // of `ac`, when they are
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

template <bool kKeep>
const char* walk_block(BitReader& bits, Component& component, JCOEF* block) {
  bits.refill();
  const Entry dc = component.dc->find(bits.window());
  if (!dc) return kNoCode;
  if (dc.size() != 0) {
    component.predictor += value_of(dc, bits.window());
    const long mean = static_cast<long>(component.predictor) * std::max(component.quantum, 1);
    if (mean > kMaxMean + component.quantum || mean < -kMaxMean - component.quantum) {
      return "its entropy code is damaged: a block far too bright or too dark";
    }
  }
  bits.drop(dc.bits());
  const float* ratios = kKeep ? component.plane->ratios : nullptr;
  if (kKeep) block[0] = ratios ? rescaled(component.predictor, ratios[0]) : static_cast<JCOEF>(component.predictor);
  [[maybe_unused]] const auto put = [&](int index, int value) {
    const int place = kNatural[index];
    block[place] = ratios ? rescaled(value, ratios[place]) : static_cast<JCOEF>(value);
  };
  for (int index = 1; index < kBlockSize;) {
    bits.refill();
    if (!kKeep) {
      int turn = 0;
      for (; turn < kRunsPerRefill; ++turn) {
        const Run run = component.runs->find(bits.window());
        if (!run.fits() || index + run.advance() >= kBlockSize) break;  // a long code, or the last coefficient
        bits.drop(run.bits());
        index += run.advance();
        if (run.ends()) return nullptr;
      }
      if (turn > 0) bits.refill();
      if (turn == kRunsPerRefill) continue;
    } else {
      int turn = 0;
      for (; turn < kPairsPerRefill; ++turn) {
        const Pair& pair = component.pairs->find(bits.window());
        const int first = index + pair.first_advance, second = first + pair.second_advance;
        if (pair.bits == 0 || second >= kBlockSize) break;
        bits.drop(pair.bits);
        if (pair.first_advance != 0) {
          put(first - 1, pair.first_value);
          put(second - 1, pair.second_value);
        }
        index = second;
        if (pair.ends) return nullptr;
      }
      if (turn > 0) bits.refill();
      if (turn == kPairsPerRefill) continue;
    }
    const Entry ac = component.ac->find(bits.window());
    if (!ac) return kNoCode;
    index += ac.advance();
    if (index > kBlockSize && ac.advance() < kBlockSize) return kTooMany;
    if (kKeep && ac.size() != 0) put(index - 1, value_of(ac, bits.window()));
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
        if (bits.position() >= total) return kEndsEarly;
        JCOEF* kept = nullptr;
        if (kKeep) {
          const std::size_t row = top * component.rows + block / component.columns;
          kept = component.plane->rows[row][left * component.columns + block % component.columns];
        }
        if (const char* reason = walk_block<kKeep>(bits, component, kept)) return reason;
      }
    }
  }
  if (bits.position() > total) return kEndsEarly;
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
  thread_local RunTable runs[NUM_HUFF_TBLS];
  thread_local PairTable pairs[NUM_HUFF_TBLS];
  thread_local bool derived[2][NUM_HUFF_TBLS];  // whether `runs` and `pairs` are those of the tables
  thread_local Segment segment;
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
      HuffmanTable& table = tables[kind][numbers[kind]];
      if (table.is_of(*sources[kind], kind == 0)) continue;
      if (!table.build(*sources[kind], kind == 0)) return ScanVerdict::unknown;
      if (kind == 1) derived[0][numbers[1]] = derived[1][numbers[1]] = false;
    }
    bool& made = derived[planes != nullptr][numbers[1]];
    if (!made) {
      made = true;
      if (planes) {
        pairs[numbers[1]].build(tables[1][numbers[1]]);
      } else {
        runs[numbers[1]].build(tables[1][numbers[1]]);
      }
    }
    const bool single = layout.count == 1;  // then it is coded block by block, whatever its factors
    Component& component = layout.components[i];
    component.dc = &tables[0][numbers[0]];
    component.ac = &tables[1][numbers[1]];
    component.runs = &runs[numbers[1]];
    component.pairs = &pairs[numbers[1]];
    component.columns = single ? 1 : info.h_samp_factor;
    component.rows = single ? 1 : info.v_samp_factor;
    component.quantum = quantisation->quantval[0];
    component.plane = planes ? &planes[i] : nullptr;
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
    if (reason == kEndsEarly && at + 1 >= size) reason = "it is truncated: the file ends before the image does";
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
