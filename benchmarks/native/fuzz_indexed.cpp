// A libFuzzer target: what IndexedDecoder makes of damaged JPEGs and indices. `studies/fuzz_indexed.py` runs it.
//
// An input is kControls bytes that say what is decoded, a JPEG, and its index, whose number of entries the last two controls
// tell. Decoding must end in a JpegError or in output, and in the same once more; where check_jpeg accepts the stream and
// makes an index of its own, decoding with that must give libjpeg's coefficients.

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <vector>

#include "indexed_view.h"
#include "jpeg_check.h"
#include "libjpeg_planes.h"

extern "C" std::size_t LLVMFuzzerMutate(std::uint8_t* data, std::size_t size, std::size_t max_size);

namespace {

using namespace fasttrain;
using Bytes = std::vector<std::uint8_t>;
using Entries = std::vector<std::uint64_t>;

constexpr int kViews = 3;
constexpr std::size_t kViewControls = 8;
constexpr std::size_t kControls = 4 + kViews * kViewControls + 4 + 2;

// --- inputs -----------------------------------------------------------------------------------------------------------

// Copies in memory of their exact sizes, so that the sanitizer sees reads beyond them.
struct Input {
  Bytes controls, jpeg;
  Entries index;

  static bool split(const std::uint8_t* data, std::size_t size, Input& input) {
    if (size < kControls) return false;
    input.controls.assign(data, data + kControls);
    const std::size_t entries = data[kControls - 2] | std::size_t{data[kControls - 1]} << 8;
    if (size - kControls < 8 * entries) return false;
    const std::size_t end = size - 8 * entries;
    input.jpeg.assign(data + kControls, data + end);
    input.index.resize(entries);
    if (entries > 0) std::memcpy(input.index.data(), data + end, 8 * entries);
    return true;
  }

  std::size_t size() const { return kControls + jpeg.size() + 8 * index.size(); }

  void join(std::uint8_t* data) {
    controls[kControls - 2] = static_cast<std::uint8_t>(index.size());
    controls[kControls - 1] = static_cast<std::uint8_t>(index.size() >> 8);
    data = std::copy(controls.begin(), controls.end(), data);
    data = std::copy(jpeg.begin(), jpeg.end(), data);
    if (!index.empty()) std::memcpy(data, index.data(), 8 * index.size());
  }

  Simd simd() const {
    const std::vector<Simd> levels = usable_simd();
    return levels[controls[0] % levels.size()];
  }
  Pixel pixel() const { return static_cast<Pixel>(controls[1] & 3); }
  Filter filter() const { return controls[1] & 4 ? Filter::bicubic : Filter::bilinear; }
  int view_size() const { return 1 + controls[2] % 48; }
  std::size_t views() const { return 1 + (controls[3] & 63) % kViews; }
  int eighths() const { return 8 >> (controls[3] >> 6); }
  bool fast() const { return controls[1] & 32; }

  View view(std::size_t number, const IndexedHeader& header) const {
    const std::uint8_t* by = controls.data() + 4 + number * kViewControls;
    View view{};
    view.left = part(by[0], header.width);
    view.top = part(by[1], header.height);
    view.width = 1 + part(by[2], header.width - view.left);
    view.height = 1 + part(by[3], header.height - view.top);
    view.columns = view.lines = view.pitch = view_size();
    view.resized_width = view.columns + part(by[4], 2 * view.columns);
    view.resized_height = view.lines + part(by[5], 2 * view.lines);
    view.offset_x = part(by[6], view.resized_width - view.columns + 1);
    view.offset_y = part(by[7], view.resized_height - view.lines + 1);
    view.filter = filter();
    view.hflip = controls[1] & 8;
    view.vflip = controls[1] & 16;
    return view;
  }

  UnitRegion region(const ScanShape& shape) const {
    const std::uint8_t* by = controls.data() + 4 + kViews * kViewControls;
    UnitRegion region{part(by[0], shape.across), part(by[1], shape.down), 0, 0};
    region.right = region.left + 1 + part(by[2], shape.across - region.left);
    region.bottom = region.top + 1 + part(by[3], shape.down - region.top);
    return region;
  }

 private:
  static int part(std::uint8_t share, int whole) { return static_cast<int>(std::int64_t{share} * whole / 256); }
};

// --- what must hold ---------------------------------------------------------------------------------------------------

[[noreturn]] void fail(const char* what) {
  std::fprintf(stderr, "ERROR: fuzz_indexed: %s\n", what);
  std::abort();
}

// Output, or none if it ended in a JpegError. Any other exception ends the process.
template <class T>
struct Result {
  bool is_done = false;
  std::vector<T> values;

  bool operator==(const Result& other) const { return is_done == other.is_done && (!is_done || values == other.values); }
};

template <class T, class Work>
Result<T> result_of(const Work& work) {
  Result<T> result;
  try {
    work(result.values);
    result.is_done = true;
  } catch (const JpegError&) {
  }
  return result;
}

void decode_views(IndexedDecoder& decoder, const Input& input, const Entries& index, Bytes& out) {
  decoder.open(input.jpeg.data(), input.jpeg.size(), index.data(), index.size());
  const Output output{input.pixel(), {0.02f, 0.03f, 1.0f}, {-2.0f, 0.5f, 0.0f}};
  const auto size = static_cast<std::size_t>(input.view_size());
  const std::size_t bytes = size * size * 3 * bytes_of(output.kind);
  out.resize(bytes * input.views());
  std::vector<IndexedView> views(input.views());
  std::vector<void*> outs;
  for (std::size_t i = 0; i < views.size(); ++i) {
    views[i].plan(input.view(i, decoder.header()), decoder.header(), input.fast());
    outs.push_back(out.data() + i * bytes);
  }
  make_indexed_views(decoder, views, output, outs.data());
}

void decode_planes(IndexedDecoder& decoder, const Input& input, const Entries& index, Bytes& out) {
  decoder.open(input.jpeg.data(), input.jpeg.size(), index.data(), index.size());
  const ScanShape& shape = decoder.header().shape;
  const UnitRegion region = input.region(shape);
  decoder.start(region, 1, input.eighths());
  for (int row = region.top; row < region.bottom; ++row) {
    decoder.decode_to(row + 1);
    for (int i = 0; i < shape.components; ++i) {
      const int side = block_side(decoder.header(), i, input.eighths());
      for (int y = side * row * shape.rows[i]; y < side * (row + 1) * shape.rows[i]; ++y) {
        const std::uint8_t* line = decoder.line(i, y);
        out.insert(out.end(), line, line + side * (region.right - region.left) * shape.columns[i]);
      }
    }
  }
}

// Coefficients of whole rows of MCUs, component by component in each.
void decode_coefficients(const Bytes& jpeg, const Entries& index, std::vector<JCOEF>* planes) {
  IndexedHeader header;
  read_indexed_header(jpeg.data(), jpeg.size(), header);
  const ScanShape& shape = header.shape;
  if (shape.entries() != index.size()) throw JpegError("another length");
  IndexedScan scan;
  scan.open(header, index.data());
  CoefficientRow rows[2];
  for (int row = 0; row < shape.down; row += 2) {
    const bool two = row + 1 < shape.down;
    for (CoefficientRow& blocks : rows) blocks.shape(shape, shape.across);
    scan.decode(row, 0, shape.across, rows[0], two ? &rows[1] : nullptr);
    for (int i = 0; i < shape.components; ++i) {
      for (int r = 0; r < (two ? 2 : 1) * shape.rows[i]; ++r) {
        CoefficientRow& blocks = rows[r / shape.rows[i]];
        const JCOEF* first = blocks.block(blocks.place(i, r % shape.rows[i]));
        planes[i].insert(planes[i].end(), first, first + 64 * shape.across * shape.columns[i]);
      }
    }
  }
}

// Views and planes with an index as it comes. A decoder must not care what it has decoded before, nor planes for the level.
bool decode(const Input& input, const Entries& index) {
  IndexedDecoder decoder;
  const auto views = [&](Bytes& out) { decode_views(decoder, input, index, out); };
  const auto planes = [&](Bytes& out) { decode_planes(decoder, input, index, out); };
  force_simd(input.simd());
  const auto first = result_of<std::uint8_t>(views), region = result_of<std::uint8_t>(planes);
  if (!(result_of<std::uint8_t>(views) == first)) fail("the same views are others the second time");
  for (const Simd level : usable_simd()) {
    force_simd(level);
    if (!(result_of<std::uint8_t>(planes) == region)) fail("planes depend on the instruction set");
  }
  return first.is_done && region.is_done;
}

// Whether a frame's marker of another process than the sequential Huffman-coded ones is in it: those take libjpeg's memory.
bool has_other_frame(const Bytes& jpeg) {
  for (std::size_t at = 0; at + 1 < jpeg.size(); ++at) {
    const int marker = jpeg[at + 1];
    if (jpeg[at] == 0xFF && marker >= 0xC2 && marker <= 0xCF && marker != 0xC4) return true;
  }
  return false;
}

// The index that check_jpeg makes; nothing where it makes none.
Entries checked_index(const Bytes& jpeg) {
  if (has_other_frame(jpeg)) return {};
  ScanIndex index;
  try {
    check_jpeg(jpeg.data(), jpeg.size(), &index);
  } catch (const JpegError&) {
    return {};
  }
  return index.is_complete() ? index.entries() : Entries();
}

void compare_with_libjpeg(const Bytes& jpeg, const Entries& index) {
  std::vector<JCOEF> planes[3];
  decode_coefficients(jpeg, index, planes);
  IndexedHeader header;
  read_indexed_header(jpeg.data(), jpeg.size(), header);
  const std::vector<LibjpegPlane> theirs = read_libjpeg_planes(jpeg.data(), jpeg.size(), false, 8);
  if (static_cast<int>(theirs.size()) != header.shape.components) fail("libjpeg sees another number of components");
  for (std::size_t i = 0; i < theirs.size(); ++i) {
    const auto columns = static_cast<std::size_t>(header.shape.across * header.shape.columns[i]);
    const auto kept = static_cast<std::size_t>(theirs[i].columns);  // libjpeg drops what fills up the last MCUs
    if (kept > columns || theirs[i].rows > header.shape.down * header.shape.rows[i]) fail("libjpeg sees another shape");
    for (std::size_t row = 0; row < static_cast<std::size_t>(theirs[i].rows); ++row) {
      const JCOEF* ours = planes[i].data() + row * columns * 64;
      if (std::memcmp(ours, theirs[i].blocks.data() + row * kept * 64, kept * 128) != 0) {
        fail("coefficients are not libjpeg's");
      }
    }
  }
}

// --- mutations --------------------------------------------------------------------------------------------------------

// Where the first scan's entropy code begins; the size if nothing is found.
std::size_t scan_start(const Bytes& jpeg) {
  std::size_t at = 2;
  while (at + 4 <= jpeg.size() && jpeg[at] == 0xFF) {
    const bool is_scan = jpeg[at + 1] == 0xDA;
    at += 2 + (std::size_t{jpeg[at + 2]} << 8 | jpeg[at + 3]);
    if (is_scan) return std::min(at, jpeg.size());
  }
  return jpeg.size();
}

class Mutator {
 public:
  Mutator(Input& input, std::size_t max_size, unsigned seed) : input_(input), max_size_(max_size), random_(seed) {}

  void mutate() {
    const unsigned kind = below(16);
    if (kind < 2) {
      anything(input_.controls, 0, kControls, kControls);
      input_.controls.resize(kControls);
    } else if (kind < 4) {
      header();
    } else if (kind < 9) {
      scan();
    } else {
      for (unsigned turn = 1 + below(3); turn > 0 && !input_.index.empty(); --turn) entry();
    }
    if (below(8) == 0) fit_index();
    if (below(4) == 0) renew_index();
  }

 private:
  unsigned below(std::size_t limit) { return static_cast<unsigned>(random_() % std::max<std::size_t>(limit, 1)); }

  // libFuzzer's own mutations of bytes [first, last), which become `room` at the most, no less than they are.
  void anything(Bytes& bytes, std::size_t first, std::size_t last, std::size_t room) {
    Bytes part(bytes.begin() + static_cast<std::ptrdiff_t>(first), bytes.begin() + static_cast<std::ptrdiff_t>(last));
    const std::size_t size = part.size();
    part.resize(room);
    part.resize(LLVMFuzzerMutate(part.data(), size, room));
    bytes.erase(bytes.begin() + static_cast<std::ptrdiff_t>(first), bytes.begin() + static_cast<std::ptrdiff_t>(last));
    bytes.insert(bytes.begin() + static_cast<std::ptrdiff_t>(first), part.begin(), part.end());
  }

  std::size_t room() const { return max_size_ > input_.size() ? max_size_ - input_.size() : 0; }

  // A byte or two of the header, which stays a header for the most part.
  void header() {
    const std::size_t stop = scan_start(input_.jpeg);
    if (stop < 3) return;
    if (below(8) == 0) return anything(input_.jpeg, 2, stop, stop - 2 + room());
    for (unsigned turn = 1 + below(2); turn > 0; --turn) {
      std::uint8_t& byte = input_.jpeg[2 + below(stop - 2)];
      byte = static_cast<std::uint8_t>(below(2) ? byte ^ (1u << below(8)) : below(256));
    }
    fit_index();
  }

  void scan() {
    const std::size_t start = scan_start(input_.jpeg), size = input_.jpeg.size() - start;
    if (size == 0) return;
    anything(input_.jpeg, start, input_.jpeg.size(), size + room());
    if (below(2) == 0 && room() >= 2) input_.jpeg.insert(input_.jpeg.end(), {0xFF, 0xD9});
  }

  void entry() {
    std::uint64_t& entry = input_.index[below(input_.index.size())];
    EntryPoint point = unpack_entry(entry);
    switch (below(6)) {
      case 0:
        entry ^= std::uint64_t{1} << below(64);
        return;
      case 1:
        entry = input_.index[below(input_.index.size())];
        return;
      case 2:
        entry = std::uint64_t{random_()} << 33 ^ std::uint64_t{random_()} << 16 ^ random_();
        return;
      case 3:
        point.means[below(3)] += static_cast<int>(below(64)) - 32;
        break;
      case 4:
        point.bit = 8 * std::uint64_t{below(input_.jpeg.size() + 2)} + below(8);
        break;
      default:
        point.bit += below(33) - std::uint64_t{16};
    }
    for (int& mean : point.means) mean = std::clamp(mean, -kMaxEntryMean - 1, kMaxEntryMean);
    point.bit &= kMaxEntryBit;
    entry = pack_entry(point);
  }

  // As many entries as the image has; else nothing but the header is ever looked at.
  void fit_index() {
    IndexedHeader header;
    try {
      read_indexed_header(input_.jpeg.data(), input_.jpeg.size(), header);
    } catch (const JpegError&) {
      return;
    }
    resize_index(header.shape.entries());
  }

  void renew_index() {
    const Entries index = checked_index(input_.jpeg);
    if (index.empty()) return;
    resize_index(index.size());
    if (index.size() == input_.index.size()) input_.index = index;
  }

  void resize_index(std::size_t entries) {
    const std::size_t old = input_.index.size();
    if (entries > 0xFFFF || (entries > old && 8 * (entries - old) > room())) return;
    input_.index.resize(entries, old > 0 ? input_.index.back() : 0);
  }

  Input& input_;
  std::size_t max_size_;
  std::minstd_rand random_;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Input input;
  if (!Input::split(data, size, input)) return -1;  // not to be kept
  decode(input, input.index);
  result_of<JCOEF>([&](std::vector<JCOEF>&) {
    std::vector<JCOEF> planes[3];
    decode_coefficients(input.jpeg, input.index, planes);
  });
  const Entries index = checked_index(input.jpeg);
  if (index.empty()) return 0;
  if (!decode(input, index)) fail("a sound stream with its own index is refused");
  compare_with_libjpeg(input.jpeg, index);
  return 0;
}

extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size, std::size_t max_size, unsigned seed) {
  Input input;
  if (!Input::split(data, size, input)) return LLVMFuzzerMutate(data, size, max_size);
  Mutator(input, max_size, seed).mutate();
  if (input.size() > max_size) return size;
  input.join(data);
  return input.size();
}
