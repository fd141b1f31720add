// Times the stages of one sample's way through the native loader on one thread, and what each of them is held against.
// Compiled and called by benchmarks/stages.py; one call is one round.
//
// stages PLAN; plan.h says what is in it.
//
// Prints a line for each figure: name, instruction set (- where it makes no difference), value. Names in _us are mean
// microseconds an image.

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <map>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "floors.h"
#include "image_decode.h"
#include "indexed_stages.h"
#include "jpeg_check.h"
#include "plan.h"
#include "resample.h"
#include "simd.h"

namespace fasttrain {
namespace {

constexpr int kBatch = 256;  // images of the memory that is written to, as a loader's batch: more than caches hold
constexpr std::size_t kCacheLine = 64;

// --- figures --------------------------------------------------------------------------------------------------------

// Time that this thread has worked: what else runs on the machine is not in it.
double worked_microseconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return 1e6 * static_cast<double>(now.tv_sec) + 1e-3 * static_cast<double>(now.tv_nsec);
}

template <class Work>
double microseconds(const Work& work) {
  static const double of_the_clock = [] {
    constexpr int kLooks = 1000;
    const double begun = worked_microseconds();
    for (int i = 0; i < kLooks; ++i) worked_microseconds();
    return (worked_microseconds() - begun) / kLooks;
  }();
  const double begun = worked_microseconds();
  work();
  return worked_microseconds() - begun - of_the_clock;
}

class Figures {
 public:
  void add(const char* name, double value, const std::string& simd = "-") { values_[{name, simd}] += value; }

  template <class Work>
  void time(const char* name, const std::string& simd, const Work& work) {
    add(name, microseconds(work), simd);
  }

  double value(const char* name, const std::string& simd = "-") const { return values_.at({name, simd}); }

  void print(double images) const {
    for (const auto& [key, value] : values_) {
      std::printf("%s %s %.6f\n", key.first.c_str(), key.second.c_str(), value / images);
    }
  }

 private:
  std::map<std::pair<std::string, std::string>, double> values_;
};

// --- stages ---------------------------------------------------------------------------------------------------------

class MemoryRows final : public RowSource {
 public:
  // The region's rows, `pitch` bytes apart.
  MemoryRows(const std::uint8_t* pixels, std::size_t pitch, int top, int at_once)
      : pixels_(pixels), pitch_(pitch), top_(top), pointers_(static_cast<std::size_t>(at_once)) {}

  const std::uint8_t* const* rows(int first, int count) override {
    for (int i = 0; i < count; ++i) pointers_[i] = pixels_ + pitch_ * (first - top_ + i);
    return pointers_.data();
  }

 private:
  const std::uint8_t* pixels_;
  std::size_t pitch_;
  int top_;
  std::vector<const std::uint8_t*> pointers_;
};

// Reads a byte of each line of the processor's caches.
void touch(const std::uint8_t* data, std::size_t size) {
  const volatile std::uint8_t* bytes = data;
  for (std::size_t i = 0; i < size; i += kCacheLine) (void)bytes[i];
}

struct Kind {
  const char* name;   // of the stage as a whole: resampling and storing
  const char* floor;  // of what it stores beyond uint8
  Output output;
};

class Bench {
 public:
  explicit Bench(const Job& job)
      : job_(job),
        kinds_{{"resample_uint8_us", nullptr, output_of(Pixel::uint8, false)},
               {"resample_float32_us", "stream_float32_us", output_of(Pixel::float32, false)},
               {"resample_float32_normalised_us", "stream_float32_normalised_us", output_of(Pixel::float32, true)},
               {"resample_float16_normalised_us", "stream_float16_normalised_us", output_of(Pixel::float16, true)},
               {"resample_bfloat16_normalised_us", "stream_bfloat16_normalised_us", output_of(Pixel::bfloat16, true)}},
        batch_(std::size_t{3} * sizeof(float) * job.size * job.size * kBatch, 1) {}

  void run() {
    const Mapped file(job_.file);
    for (const Job::Item& item : job_.items) {
      try {
        decode_stages(item, file.at(item));
        resample_stages(item);
        indexed_stages(item);
        done_.push_back(&item);
      } catch (const NotHandled&) {  // the loader leaves it to Pillow or it has no index, and no figure has it
      }
    }
    if (done_.empty()) throw std::runtime_error("no photo of the plan is decoded natively");
    for (const Job::Item* item : done_) figures_.time("read_again_us", "-", [&] { touch(file.at(*item), item->length); });
    copy_floors(file);
    compute_floors();
    figures_.print(images());
    std::printf("images - %zu\nleft_out - %zu\n", done_.size(), job_.items.size() - done_.size());
  }

 private:
  // Reading before decoding, so that decoding finds the stream in the processor's caches and waits for no memory twice.
  void decode_stages(const Job::Item& item, const std::uint8_t* data) {
    const std::size_t size = item.length;
    const double touched = microseconds([&] { touch(data, size); });
    { const JpegRows known(data, size, rows_); }  // throws before anything is counted
    if (!indexed_.prepare(data, size)) throw NotHandled();
    figures_.add("read_us", touched);
    const Region region = plan(item);
    const int taps = views_.front().taps();
    figures_.time("decode_us", "-", [&] {
      JpegRows rows(data, size, rows_);
      rows.start(region, taps);
      for (int row = region.top; row < region.bottom; ++row) rows.rows(row, 1);
    });
    figures_.time("header_us", "-", [&] { decode_header(data, size); });
    const double entropy = microseconds([&] { decode_entropy(data, size); });
    figures_.add("entropy_us", entropy);
    figures_.add("entropy_to_crop_us", entropy * region.bottom / item.height);
    figures_.time("entropy_checked_us", "-", [&] { check_jpeg(data, size); });
    figures_.time("full_decode_us", "-", [&] { decode_all(data, size); });
    take_crop(data, size, region);
  }

  Region plan(const Job::Item& item) {
    views_.front().plan(item.view, 1.0, item.width, item.height);
    return views_.front().region();
  }

  // The region's pixels, as resampling is fed with them.
  void take_crop(const std::uint8_t* data, std::size_t size, const Region& region) {
    pitch_ = std::size_t{3} * (region.right - region.left);
    const int height = region.bottom - region.top;
    if (crop_.size() < pitch_ * height) crop_.resize(pitch_ * height);
    JpegRows rows(data, size, rows_);
    rows.start(region, 1);
    for (int row = 0; row < height; ++row) {
      std::memcpy(crop_.data() + pitch_ * row, rows.rows(region.top + row, 1)[0], pitch_);
    }
    figures_.add("crop_bytes", static_cast<double>(pitch_ * height));
  }

  void resample_stages(const Job::Item& item) {
    for (const Simd level : usable_simd()) {
      force_simd(level);
      resample_to(item, kinds_[0], nullptr);  // brings the crop into the caches, where decoding leaves it
      for (const Kind& kind : kinds_) resample_to(item, kind, simd_name(level).c_str());
    }
    for (const Kind& kind : kinds_) {
      if (kind.floor == nullptr) continue;
      std::uint8_t* out = slot(kind);
      const std::size_t bytes = slot_bytes(kind) - slot_bytes(kinds_[0]);
      figures_.time(kind.floor, "-", [&] { std::memset(out, 1, bytes); });
    }
    count_multiply_adds(item);
  }

  void resample_to(const Job::Item& item, const Kind& kind, const char* simd) {
    std::uint8_t* out = slot(kind);
    const auto work = [&] {
      const Region region = plan(item);
      MemoryRows rows(crop_.data(), pitch_, region.top, views_.front().taps());
      views_.front().start(region.left, kind.output, out);
      resample(views_, rows);
    };
    if (simd == nullptr) return work();
    figures_.time(kind.name, simd, work);
  }

  void count_multiply_adds(const Job::Item& item) {
    const Region region = plan(item);
    double vertical = 0, horizontal = 0;
    for (const int count : views_.front().down().counts) vertical += count;
    for (const int count : views_.front().across().counts) horizontal += count;
    figures_.add("multiply_adds", 3 * (vertical * (region.right - region.left) + horizontal * job_.size));
  }

  void indexed_stages(const Job::Item& item) {
    figures_.time("indexed_open_us", "-", [&] { indexed_.open(); });
    figures_.time("indexed_plan_us", "-", [&] { indexed_.plan(item.view); });
    for (const Simd level : usable_simd()) {
      force_simd(level);
      const std::string simd = simd_name(level);
      indexed_.plan(item.view);
      indexed_.planes();  // brings the stream into the caches, where reading the file leaves it
      indexed_.entropy([&](const auto& rows) { figures_.time("indexed_entropy_us", simd, rows); });
      figures_.time("indexed_planes_us", simd, [&] { indexed_.planes(); });
      for (const Kind& kind : kinds_) {
        std::uint8_t* out = slot(kind);
        const std::string name = std::string("indexed_") + (kind.name + std::strlen("resample_"));
        figures_.time(name.c_str(), simd, [&] { indexed_.view(kind.output, out); });
      }
    }
    for (const Kind& kind : kinds_) {
      std::uint8_t* out = slot(kind);
      const std::string name = std::string("indexed_fill_") + (kind.name + std::strlen("resample_"));
      figures_.time(name.c_str(), "-", [&] { std::memset(out, 1, slot_bytes(kind)); });
    }
    figures_.add("indexed_bytes", static_cast<double>(item.length) * indexed_.share());
    figures_.add("indexed_samples", indexed_.samples());
    figures_.add("indexed_multiply_adds", indexed_.multiply_adds());
  }

  // Copying as many bytes as were read, from pages that are mapped by now.
  void copy_floors(const Mapped& file) {
    std::size_t bytes = 0;
    for (const Job::Item* item : done_) {
      if (crop_.size() < item->length) crop_.resize(item->length);
      figures_.time("copy_us", "-", [&] { std::memcpy(crop_.data(), file.at(*item), item->length); });
      bytes += item->length;
    }
    figures_.add("bytes", static_cast<double>(bytes));
    const double moved = figures_.value("crop_bytes") + static_cast<double>(slot_bytes(kinds_[0])) * images();
    const double of_a_byte = figures_.value("copy_us") / (2.0 * bytes);  // a copy reads and writes each byte
    figures_.add("traffic_us", of_a_byte * moved);
    // Unstuffed and read; a sample is a coefficient of two bytes, written, read and zeroed before.
    const double samples = figures_.value("indexed_samples");
    figures_.add("indexed_entropy_traffic_us", of_a_byte * (3 * figures_.value("indexed_bytes") + 2 * samples));
    figures_.add("indexed_idct_traffic_us", of_a_byte * 5 * samples);
  }

  void compute_floors() {
    for (const Simd level : usable_simd()) {
      const double rate = peak_multiply_adds(level);  // a nanosecond
      figures_.add("multiply_adds_a_ns", rate * images(), simd_name(level));
      figures_.add("arithmetic_us", figures_.value("multiply_adds") / rate / 1000, simd_name(level));
      figures_.add("indexed_arithmetic_us", figures_.value("indexed_multiply_adds") / rate / 1000, simd_name(level));
    }
  }

  std::size_t slot_bytes(const Kind& kind) const {
    return std::size_t{3} * bytes_of(kind.output.kind) * job_.size * job_.size;
  }
  std::uint8_t* slot(const Kind& kind) { return batch_.data() + slot_bytes(kind) * (done_.size() % kBatch); }
  double images() const { return static_cast<double>(done_.size()); }

  const Job& job_;
  const std::vector<Kind> kinds_;
  std::vector<std::uint8_t> batch_, rows_, crop_;
  std::size_t pitch_ = 0;
  std::vector<Resampler> views_{1};
  IndexedStages indexed_;
  Figures figures_;
  std::vector<const Job::Item*> done_;
};

}  // namespace
}  // namespace fasttrain

int main(int count, char** arguments) {
  if (count != 2) {
    std::fprintf(stderr, "usage: stages PLAN\n");
    return 2;
  }
  try {
    const fasttrain::Job job = fasttrain::read_job(arguments[1]);
    fasttrain::Bench(job).run();
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
