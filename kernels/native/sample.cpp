#include "sample.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "image_decode.h"
#include "upright.h"

namespace fasttrain {
namespace {

constexpr std::size_t kMaxKept = std::size_t{2} << 20;
constexpr std::uint64_t kMaxFile = std::uint64_t{1} << 31;
constexpr int kMaxSide = 65535;     // of a JPEG, and of what a .beton can hold
constexpr int kMaxResized = 1 << 20;

struct Stream {
  const std::uint8_t* data;
  std::size_t size;
};

// --- raw pixels -----------------------------------------------------------------------------------------------------

class RawRows final : public RowSource {
 public:
  RawRows(const std::uint8_t* pixels, int width, int left, int at_once)
      : start_(pixels + std::size_t{3} * left), pitch_(std::size_t{3} * width), pointers_(at_once) {}

  const std::uint8_t* const* rows(int first, int count) override {
    for (int i = 0; i < count; ++i) pointers_[i] = start_ + pitch_ * (first + i);
    return pointers_.data();
  }

 private:
  const std::uint8_t* start_;
  std::size_t pitch_;
  std::vector<const std::uint8_t*> pointers_;
};

// Work out all views of an image that was decoded at `ratio` of its size; what has to be read for them.
Region plan_views(const Targets& targets, double ratio, int width, int height, Scratch& scratch) {
  scratch.views.resize(static_cast<std::size_t>(targets.count));
  for (int i = 0; i < targets.count; ++i) scratch.views[i].plan(targets.first[i].view, ratio, width, height);
  return union_of(scratch.views);
}

void make_views(const Targets& targets, int left, RowSource& rows, Scratch& scratch) {
  for (int i = 0; i < targets.count; ++i) scratch.views[i].start(left, targets.output, targets.first[i].window(targets.output.kind));
  resample(scratch.views, rows);
}

void fill_from_pixels(const std::uint8_t* pixels, const Sample& sample, const Targets& targets, Scratch& scratch) {
  const Region region = plan_views(targets, 1.0, sample.width, sample.height, scratch);
  RawRows rows(pixels, sample.width, region.left, taps_of(scratch.views));
  make_views(targets, region.left, rows, scratch);
}

// --- JPEG -----------------------------------------------------------------------------------------------------------

void decode_whole(JpegRows& rows, std::uint8_t* pixels) {
  const std::size_t pitch = std::size_t{3} * static_cast<std::size_t>(rows.width());
  rows.start({0, 0, rows.width(), rows.height()}, 1);
  for (int y = 0; y < rows.height(); ++y) std::memcpy(pixels + pitch * y, rows.rows(y, 1)[0], pitch);
}

void fill_from_jpeg(Stream stream, const Sample& sample, const Targets& targets, Scratch& scratch) {
  JpegRows rows(stream.data, stream.size, scratch.rows);
  if (rows.width() != sample.width || rows.height() != sample.height) throw NotHandled();
  if (sample.keep != nullptr) {
    decode_whole(rows, sample.keep);
    return fill_from_pixels(sample.keep, sample, targets, scratch);
  }
  double ratio = 1.0;
  if (targets.fast) {
    int eighths = 1;
    for (int i = 0; i < targets.count; ++i) eighths = std::max(eighths, eighths_of(targets.first[i].view));
    rows.shrink(eighths);
    ratio = eighths / 8.0;
  }
  const Region region = plan_views(targets, ratio, rows.shrunk_width(), rows.shrunk_height(), scratch);
  rows.start(region, taps_of(scratch.views));
  make_views(targets, region.left, rows, scratch);
}

void fill_from_index(const Sample& sample, const Targets& targets, Scratch& scratch) {
  if (!scratch.indexed) scratch.indexed = std::make_unique<IndexedSample>();
  scratch.indexed->fill(sample, targets);
}

// --- files ----------------------------------------------------------------------------------------------------------

struct File {
  int descriptor;

  explicit File(const char* path) : descriptor(::open(path, O_RDONLY | O_CLOEXEC)) {}
  ~File() {
    if (descriptor >= 0) ::close(descriptor);
  }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
};

Stream read_file(const Sample& sample, std::vector<std::uint8_t>& memory) {
  const File file(sample.path.c_str());
  struct stat status{};
  // What is missing or not to be read is reported by the caller, in the words that it has for it.
  if (file.descriptor < 0 || ::fstat(file.descriptor, &status) != 0 || !S_ISREG(status.st_mode)) throw NotHandled();
  const auto whole = static_cast<std::uint64_t>(status.st_size);
  if (sample.offset > whole) throw NotHandled();
  const std::uint64_t length = sample.length == 0 ? whole - sample.offset : sample.length;
  if (length > whole - sample.offset || length > kMaxFile) throw NotHandled();
  if (memory.size() < length) memory.resize(length);
  std::size_t read = 0;
  while (read < length) {
    const ssize_t got = ::pread(file.descriptor, memory.data() + read, length - read,
                                static_cast<off_t>(sample.offset + read));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) throw NotHandled();
    read += static_cast<std::size_t>(got);
  }
  return {memory.data(), static_cast<std::size_t>(length)};
}

// Why a sample's bytes, box or window cannot be right; null when they can.
const char* fault_of(const Sample& sample, const Target& target) {
  const View& view = target.view;
  const auto inside = [](int start, int length, int limit) {
    return start >= 0 && length >= 1 && length <= limit && start <= limit - length;
  };
  if (!inside(0, sample.width, kMaxSide) || !inside(0, sample.height, kMaxSide)) return "its size is impossible";
  if (!inside(view.left, view.width, sample.width) || !inside(view.top, view.height, sample.height)) {
    return "its crop box lies outside of it";
  }
  if (!inside(0, view.resized_width, kMaxResized) || !inside(0, view.resized_height, kMaxResized)) {
    return "the size that it is to be resized to is impossible";
  }
  if (!inside(view.offset_x, view.columns, view.resized_width) || !inside(view.offset_y, view.lines, view.resized_height)) {
    return "its window lies outside of the resized image";
  }
  if (!inside(target.place_x, view.columns, view.pitch) || !inside(target.place_y, view.lines, target.height)) {
    return "its window does not fit where it is to go";
  }
  const std::uint64_t bytes = std::uint64_t{3} * sample.width * sample.height;
  if (sample.stored == Stored::raw && sample.length != bytes) return "its pixels are not as many as its size says";
  return nullptr;
}

void fill(const Sample& sample, const Targets& targets, Scratch& scratch) {
  for (int i = 0; i < targets.count; ++i) {
    if (const char* fault = fault_of(sample, targets.first[i])) throw JpegError(fault);
  }
  switch (sample.stored) {
    case Stored::raw:
      return fill_from_pixels(sample.data, sample, targets, scratch);
    case Stored::jpeg:
      // A whole image is libjpeg's: what is kept of it serves later views, and none of them is to differ from the others.
      if (sample.index != nullptr && sample.keep == nullptr) return fill_from_index(sample, targets, scratch);
      return fill_from_jpeg({sample.data, sample.length}, sample, targets, scratch);
    case Stored::jpeg_file: {
      const Stream stream = read_file(sample, scratch.file);
      if (may_need_turning(stream.data, stream.size)) throw NotHandled();
      return fill_from_jpeg(stream, sample, targets, scratch);
    }
    default:
      throw NotHandled();
  }
}

// Make views as bytes, and of each, while it is in the cache, what is to be stored.
void fill_augmented(const Sample& sample, const Targets& targets, Scratch& scratch) {
  const std::size_t each = 3 * targets.first[0].pixels();
  const int width = targets.first[0].view.pitch, height = targets.first[0].height;
  scratch.bytes.resize(each * targets.count);
  scratch.targets.assign(targets.first, targets.first + targets.count);
  for (int i = 0; i < targets.count; ++i) {
    std::uint8_t* frame = scratch.bytes.data() + each * i;
    scratch.targets[i].out = frame;
    const std::uint8_t(&fill)[3] = targets.augment->style.fill;
    for (std::size_t at = 0; !targets.first[i].is_filled() && at < each; ++at) frame[at] = fill[at % 3];
  }
  const Output bytes{Pixel::uint8, {1.0f, 1.0f, 1.0f}, {0.0f, 0.0f, 0.0f}};
  fill(sample, Targets{scratch.targets.data(), targets.count, bytes, targets.fast, nullptr}, scratch);
  ColourScale scale;
  std::copy(targets.output.scale, targets.output.scale + 3, scale.scale);
  std::copy(targets.output.shift, targets.output.shift + 3, scale.shift);
  for (int i = 0; i < targets.count; ++i) {
    std::memcpy(scratch.augmenter.begin(height, width), scratch.bytes.data() + each * i, each);
    scratch.augmenter.run(targets.augment->of(targets.first[i].entry), targets.augment->style);
    scratch.augmenter.store(targets.output.kind, scale, targets.first[i].out);
  }
}

template <class T>
void give_back(std::vector<T>& memory) {
  std::vector<T>().swap(memory);
}

}  // namespace

void Scratch::trim() {
  std::size_t taken = 0;
  for (const Resampler& view : views) taken += view.bytes();
  if (taken > kMaxKept) give_back(views);
  if (file.capacity() > kMaxKept) give_back(file);
  if (rows.capacity() > kMaxKept) give_back(rows);
  if (indexed && indexed->bytes() > kMaxKept) indexed.reset();
  if (augmenter.bytes() > 2 * kMaxKept) augmenter = {};
  if (bytes.capacity() > kMaxKept) give_back(bytes);
}

Outcome fill_sample(const Sample& sample, const Targets& targets, Scratch& scratch, std::string& error) {
  try {
    if (targets.augment != nullptr) {
      fill_augmented(sample, targets, scratch);
    } else {
      fill(sample, targets, scratch);
    }
    scratch.trim();
    return Outcome::done;
  } catch (const NotHandled&) {
    return Outcome::not_handled;
  } catch (const std::bad_alloc&) {
    scratch = {};
    error = "there is not enough memory to decode it";
  } catch (const std::exception& failure) {
    error = failure.what();
  }
  scratch.trim();
  return Outcome::failed;
}

namespace {

void read_memory_ahead(const void* data, std::size_t size) {
  const auto page = static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE));
  const auto start = reinterpret_cast<std::uintptr_t>(data) / page * page;
  const auto end = reinterpret_cast<std::uintptr_t>(data) + size;
  (void)::madvise(reinterpret_cast<void*>(start), end - start, MADV_WILLNEED);
}

}  // namespace

void read_ahead(const Sample& sample) {
  if (sample.stored == Stored::jpeg_file) {
    const File file(sample.path.c_str());
    if (file.descriptor < 0) return;
#if defined(POSIX_FADV_WILLNEED)
    (void)::posix_fadvise(file.descriptor, static_cast<off_t>(sample.offset), static_cast<off_t>(sample.length),
                          POSIX_FADV_WILLNEED);
#endif
  } else if (sample.stored != Stored::other && sample.length > 0) {
    read_memory_ahead(sample.data, sample.length);
    if (sample.entries > 0) read_memory_ahead(sample.index, sample.entries * sizeof *sample.index);
  }
}

}  // namespace fasttrain
