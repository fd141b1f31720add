#include "indexed_scan.h"

#include <algorithm>
#include <cstring>

#include "indexed_tables.h"
#include "jpeg_session.h"
#include "zigzag.h"

namespace fasttrain {

namespace {

constexpr int kMaxBlocks = 10;            // of an MCU
constexpr std::uint64_t kMaxBlockBits = 2 * 64 * 31;  // the zeros stuffed behind each 0xFF counted
constexpr std::size_t kSlack = 512;       // zero bytes behind a stretch: a block may begin in it and be all beyond its end
constexpr std::size_t kPadBlocks = 8;     // blocks that are transformed at a time, at the most
constexpr const char* kNoCode = "its entropy code is damaged: a code that stands for nothing";
constexpr const char* kTooMany = "its entropy code is damaged: a block with too many coefficients";
constexpr const char* kNoFit = "its random-access index does not fit it";

}  // namespace

void CoefficientRow::shape(const ScanShape& shape, int units) {
  std::size_t blocks = 0;
  for (int i = 0; i < shape.components; ++i) {
    base_[i] = blocks;
    pitch_[i] = static_cast<std::size_t>(units) * static_cast<std::size_t>(shape.columns[i]) + kPadBlocks;
    blocks += pitch_[i] * static_cast<std::size_t>(shape.rows[i]);
  }
  memory_.assign(blocks * 64, 0);
  extents_.assign(blocks, 0);
}

struct ScanTables {
  struct Block {  // one of an MCU
    const HuffmanTable* dc;
    const HuffmanTable* ac;
    const StepTable* steps;
    int component;
    std::size_t first, stride;  // place of the first MCU's block, and from one to the next
  };

  HuffmanTable huffman[2][NUM_HUFF_TBLS];
  StepTable steps[NUM_HUFF_TBLS];
  Block blocks[kMaxBlocks];
  int count = 0;
};

struct Lane {
  std::vector<std::uint8_t> bytes;  // of the stretch, without the zeros stuffed behind each 0xFF
  BitReader bits{nullptr};
  std::size_t limit = 0;   // bits of the stretch
  bool is_exact = false;   // whether the stretch ends with the last MCU
  int skipped = 0;         // MCUs before the first that is wanted
  int means[3] = {};
  JCOEF* coefficients = nullptr;
  std::uint8_t* extents = nullptr;

  // Unstuff data[0, size), or what lies before a marker in it; returns how many bytes that makes.
  std::size_t unstuff(const std::uint8_t* data, std::size_t size) {
    if (bytes.size() < size + kSlack + 1) bytes.resize(size + kSlack + 1);
    std::uint8_t* out = bytes.data();
    while (size > 0) {
      const auto* found = static_cast<const std::uint8_t*>(std::memchr(data, 0xFF, size));
      const std::size_t plain = found ? static_cast<std::size_t>(found - data) : size;
      std::memcpy(out, data, plain);
      out += plain;
      if (found == nullptr || plain + 1 >= size || found[1] != 0) break;
      *out++ = 0xFF;
      data += plain + 2;
      size -= plain + 2;
    }
    return static_cast<std::size_t>(out - bytes.data());
  }
};

namespace {

inline const char* decode_mean(BitReader& bits, const HuffmanTable& table, int& mean) {
  const Entry entry = table.find(bits.window());
  if (!entry) return kNoCode;
  mean += value_of(entry, bits.window());
  bits.drop(entry.bits());
  return nullptr;
}

// The AC coefficient at hand, whatever its code; `place` is that of the last one, and becomes 64 or more at the end of the
// block.
template <bool kKeep>
inline const char* decode_long(BitReader& bits, const ScanTables::Block& plan, int& place, JCOEF* block) {
  bits.refill();
  const Entry entry = plan.ac->find(bits.window());
  if (!entry) return kNoCode;
  if (entry.advance() == kBlockSize) {
    place |= 64;
  } else {
    place += entry.advance();
    if (place >= kBlockSize) return kTooMany;
    if (kKeep && entry.size() != 0) block[kZigzag.places[place]] = static_cast<JCOEF>(value_of(entry, bits.window()));
  }
  bits.drop(entry.bits());
  return nullptr;
}

template <bool kKeep>
inline const char* decode_block(BitReader& bits, const ScanTables::Block& plan, int& mean, JCOEF* block,
                                std::uint8_t* extent) {
  bits.refill();
  if (const char* reason = decode_mean(bits, *plan.dc, mean)) return reason;
  if (kKeep) block[0] = static_cast<JCOEF>(mean);
  const std::uint8_t* zigzag = kZigzag.places;  // of the last coefficient
  const std::uint8_t* const last = zigzag + 63;
  while (true) {
    bits.refill();
    for (int turn = 0; turn < kStepsPerRefill; ++turn) {
      const Step& step = plan.steps->find(bits.window());
      const std::uint8_t* next = zigzag + step.reach;
      if (__builtin_expect(next > last, 0)) {  // a long code, or the end of a full block
        int place = static_cast<int>(zigzag - kZigzag.places);
        if (place < 63) {
          if (const char* reason = decode_long<kKeep>(bits, plan, place, block)) return reason;
        }
        if (place >= 63) {
          if (kKeep) *extent = static_cast<std::uint8_t>(place & 63);
          return nullptr;
        }
        zigzag = kZigzag.places + place;
        break;
      }
      const unsigned count = step.bits;
      if (kKeep) {
        block[zigzag[step.first_place]] = step.first_value;
        block[zigzag[step.second_place]] = step.second_value;
      }
      zigzag = next;
      bits.drop_flagged(count);
      if (count & kEnds) {
        bits.clear_flag();
        if (kKeep) *extent = static_cast<std::uint8_t>(zigzag - 1 - kZigzag.places);
        return nullptr;
      }
    }
  }
}

const char* decode_units(const ScanTables& tables, Lane& lane, int units) {
  BitReader bits = lane.bits;
  for (int unit = 0; unit < units; ++unit) {
    for (int i = 0; i < tables.count; ++i) {
      const ScanTables::Block& plan = tables.blocks[i];
      // A block takes 64 * 31 bits at the most, so that looking before each one keeps all reads within the slack.
      if (bits.position() >= lane.limit) return kNoFit;
      const std::size_t place = plan.first + plan.stride * static_cast<std::size_t>(unit);
      const char* reason =
          decode_block<true>(bits, plan, lane.means[plan.component], lane.coefficients + place * 64, lane.extents + place);
      if (reason) return reason;
    }
  }
  lane.bits = bits;
  return nullptr;
}

// Go over MCUs whose coefficients are not wanted.
const char* skip_units(const ScanTables& tables, Lane& lane) {
  BitReader bits = lane.bits;
  for (int unit = 0; unit < lane.skipped; ++unit) {
    for (int i = 0; i < tables.count; ++i) {
      const ScanTables::Block& plan = tables.blocks[i];
      if (bits.position() >= lane.limit) return kNoFit;
      if (const char* reason = decode_block<false>(bits, plan, lane.means[plan.component], nullptr, nullptr)) return reason;
    }
  }
  lane.bits = bits;
  return nullptr;
}

const char* check_end(const Lane& lane) {
  const bool fits = lane.is_exact ? lane.bits.position() == lane.limit : lane.bits.position() <= lane.limit;
  return fits ? nullptr : kNoFit;
}

void fail_if(const char* reason) {
  if (reason) throw JpegError(reason);
}

}  // namespace

IndexedScan::IndexedScan() : tables_(new ScanTables), lanes_(new Lane[2]) {}
IndexedScan::~IndexedScan() = default;

std::size_t IndexedScan::bytes() const { return lanes_[0].bytes.capacity() + lanes_[1].bytes.capacity(); }

void IndexedScan::open(const IndexedHeader& header, const std::uint64_t* index) {
  header_ = &header;
  index_ = index;
  tables_->count = 0;
  for (int i = 0; i < header.shape.components; ++i) {
    const IndexedComponent& component = header.components[i];
    const int numbers[2] = {component.dc, component.ac};
    for (int kind = 0; kind < 2; ++kind) {
      const JHUFF_TBL& source = header.huffman[kind][numbers[kind]];
      HuffmanTable& table = tables_->huffman[kind][numbers[kind]];
      if (table.is_of(source, kind == 0)) continue;
      if (!table.build(source, kind == 0)) throw JpegError("its header is damaged: Huffman codes that cannot be");
      if (kind == 1) tables_->steps[numbers[1]].build(table);
    }
    for (int block = 0; block < header.shape.columns[i] * header.shape.rows[i]; ++block) {
      tables_->blocks[tables_->count++] = {&tables_->huffman[0][component.dc], &tables_->huffman[1][component.ac],
                                           &tables_->steps[component.ac], i, 0, 0};
    }
  }
}

void IndexedScan::enter(int row, int left, int right, Lane& lane, CoefficientRow& out) {
  const ScanShape& shape = header_->shape;
  const int step = shape.step(), across = shape.entries_across();
  const std::size_t row_start = static_cast<std::size_t>(row) * static_cast<std::size_t>(across);
  const std::size_t last = row_start + static_cast<std::size_t>((right + step - 1) / step);
  const EntryPoint entry = unpack_entry(index_[row_start + static_cast<std::size_t>(left / step)]);
  const bool to_end = last == shape.entries();
  const std::uint64_t stop = to_end ? std::uint64_t{header_->scan_size} * 8 : unpack_entry(index_[last]).bit;
  if (stop <= entry.bit || stop > std::uint64_t{header_->scan_size} * 8) throw JpegError(kNoFit);
  // A hostile index would have the whole scan copied for every row.
  const int blocks = tables_->count * (std::min(shape.across, (right + step - 1) / step * step) - left / step * step);
  if (!to_end && stop - entry.bit > kMaxBlockBits * static_cast<std::uint64_t>(blocks)) throw JpegError(kNoFit);
  const std::size_t first = entry.bit / 8, end = stop / 8;
  std::size_t length = lane.unstuff(header_->scan + first, end - first);
  lane.limit = length * 8 + stop % 8;
  if (stop % 8 != 0) lane.bytes[length++] = header_->scan[end];
  std::memset(lane.bytes.data() + length, 0, kSlack);
  lane.is_exact = !to_end && (right % step == 0 || right == shape.across);
  lane.skipped = left % step;
  lane.bits = BitReader(lane.bytes.data());
  lane.bits.refill();
  lane.bits.drop(entry.bit % 8);
  std::copy(entry.means, entry.means + 3, lane.means);
  lane.coefficients = out.block(0);
  lane.extents = out.extent(0);
}

void IndexedScan::decode(int row, int left, int right, CoefficientRow& first, CoefficientRow* second) {
  const ScanShape& shape = header_->shape;
  for (int i = 0, number = 0; i < shape.components; ++i) {
    for (int block = 0; block < shape.columns[i] * shape.rows[i]; ++block, ++number) {
      tables_->blocks[number].first =
          first.place(i, block / shape.columns[i]) + static_cast<std::size_t>(block % shape.columns[i]);
      tables_->blocks[number].stride = static_cast<std::size_t>(shape.columns[i]);
    }
  }
  CoefficientRow* rows[2] = {&first, second};
  for (int i = 0; i < 2 && rows[i] != nullptr; ++i) {
    enter(row + i, left, right, lanes_[i], *rows[i]);
    fail_if(skip_units(*tables_, lanes_[i]));
    fail_if(decode_units(*tables_, lanes_[i], right - left));
    fail_if(check_end(lanes_[i]));
  }
}

}  // namespace fasttrain
