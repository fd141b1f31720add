#include "jpeg_scan.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "jpeg_huffman.h"

namespace fasttrain {
namespace {

constexpr int kSlack = 512;  // zero bytes behind a segment: a block may begin in it and be all beyond its end

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
    // What was kept here and rounded to another quantum has to pass the check, too.
    if (is_wild_mean(component.predictor, component.quantum, kKeep ? 0 : component.quantum)) return kWildMean;
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

EntryPoint entry_point(const BitReader& bits, const Layout& layout) {
  EntryPoint point;
  point.bit = bits.position();
  for (int i = 0; i < layout.count && i < 3; ++i) point.means[i] = layout.components[i].predictor;
  return point;
}

// Walk through the MCUs from `first` on. Returns why the segment is damaged, or null.
template <bool kKeep, bool kIndex>
const char* walk_segment(const Segment& segment, Layout& layout, std::size_t first, std::size_t units,
                         [[maybe_unused]] ScanIndex* index = nullptr) {
  BitReader bits(segment.bytes.data());
  const std::size_t total = segment.length * 8;
  for (int i = 0; i < layout.count; ++i) layout.components[i].predictor = 0;
  for (std::size_t unit = first; unit < first + units; ++unit) {
    const std::size_t top = unit / layout.across, left = unit % layout.across;
    if constexpr (kIndex) {
      if (index->wants(left)) index->add(entry_point(bits, layout));
    }
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

ScanShape shape_of(const jpeg_decompress_struct& decoder) {
  if (decoder.num_components > 4) return {};
  int horizontal[4] = {}, vertical[4] = {};
  for (int i = 0; i < decoder.num_components; ++i) {
    horizontal[i] = decoder.comp_info[i].h_samp_factor;
    vertical[i] = decoder.comp_info[i].v_samp_factor;
  }
  const int width = static_cast<int>(decoder.image_width), height = static_cast<int>(decoder.image_height);
  return scan_shape(width, height, decoder.num_components, horizontal, vertical);
}

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
                      std::size_t& end, const char*& reason, CoefficientPlane* planes, ScanIndex* index) {
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
  const std::size_t start = at;
  const bool may_be_indexed = index && decoder.restart_interval == 0 && may_hold_image(decoder, size);
  const ScanShape indexed = may_be_indexed ? shape_of(decoder) : ScanShape();
  const bool makes_index = indexed.components != 0;
  if (makes_index) index->start(indexed);
  std::size_t left = total;
  for (int restart = 0;; restart = (restart + 1) & 7) {
    at = segment.read(data, at, size);
    const std::size_t units = std::min(left, layout.interval);
    reason = planes        ? walk_segment<true, false>(segment, layout, total - left, units)
             : makes_index ? walk_segment<false, true>(segment, layout, total - left, units, index)
                           : walk_segment<false, false>(segment, layout, total - left, units);
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
      if (marker != 0xD9) return ScanVerdict::unknown;
      if (makes_index) index->finish(data + start, at - start);
      return ScanVerdict::sound;
    }
    if (marker != 0xD0 + restart) {
      reason = "its entropy code is damaged: a restart marker is missing";
      return ScanVerdict::damaged;
    }
  }
}

}  // namespace fasttrain
