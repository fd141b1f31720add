#include "resample.h"

#include <algorithm>

namespace fasttrain {
namespace {

HorizontalPass horizontal_pass(const Axis& axis, const Output& output) {
  HorizontalPass pass{};
  pass.starts = axis.starts.data();
  pass.weights = axis.weights.data();
  pass.taps = axis.taps;
  pass.outputs = static_cast<int>(axis.starts.size());
  for (int channel = 0; channel < 3; ++channel) {
    pass.scale[channel] = output.scale[channel];
    pass.shift[channel] = output.shift[channel];
  }
  return pass;
}

}  // namespace

int eighths_of(const View& view) {
  int eighths = 8;
  while (eighths > 1 && view.width * (eighths / 2) >= 8 * view.resized_width &&
         view.height * (eighths / 2) >= 8 * view.resized_height) {
    eighths /= 2;
  }
  return eighths;
}

std::size_t bytes_of(Pixel kind) {
  switch (kind) {
    case Pixel::uint8:
      return 1;
    case Pixel::float32:
      return 4;
    default:
      return 2;
  }
}

std::size_t Resampler::bytes() const {
  return (block_.capacity() + x_.weights.capacity() + y_.weights.capacity()) * sizeof(float);
}

void Resampler::plan(const View& view, double ratio, int width, int height) {
  view_ = view;
  const Span x = span_of(view.left, view.width, ratio, width, view.resized_width, view.offset_x, view.columns);
  const Span y = span_of(view.top, view.height, ratio, height, view.resized_height, view.offset_y, view.lines);
  make_axis(x, view.filter, view.hflip, x_);
  make_axis(y, view.filter, false, y_);  // rows come from the top down; a flip only changes where they go
  region_ = {x_.low, y_.low, x_.high, y_.high};
}

void Resampler::start(int left, const Output& output, void* out) {
  pass_ = horizontal_pass(x_, output);
  kind_ = output.kind;
  out_ = static_cast<std::uint8_t*>(out);
  indent_ = std::size_t{3} * static_cast<std::size_t>(region_.left - left);
  line_ = 0;
  const std::size_t pitch = std::size_t{3} * static_cast<std::size_t>(region_.right - region_.left) + 4;
  if (block_.size() < kBlockRows * pitch) block_.resize(kBlockRows * pitch);  // a pixel is read as four floats
  for (int r = 0; r < kBlockRows; ++r) pass_.in[r] = block_.data() + static_cast<std::size_t>(r) * pitch;
  rows_.resize(static_cast<std::size_t>(y_.taps));
}

void Resampler::step(RowSource& source) {
  const int count = y_.counts[line_];
  const std::uint8_t* const* rows = source.rows(region_.top + y_.starts[line_], count);
  for (int k = 0; k < count; ++k) rows_[k] = rows[k] + indent_;
  const int r = line_ % kBlockRows;
  const std::size_t columns = static_cast<std::size_t>(region_.right - region_.left);
  float* row = block_.data() + (pass_.in[r] - pass_.in[0]);
  resample_kernels(current_simd()).vertical(rows_.data(), y_.of(line_), count, 3 * columns, row);
  const int target = view_.vflip ? view_.lines - 1 - line_ : line_;
  pass_.out[r] = out_ + static_cast<std::size_t>(target) * 3 * bytes_of(kind_) * view_.pitch;
  ++line_;
  if (r == kBlockRows - 1 || done()) finish_block();
}

void Resampler::finish_block() {
  HorizontalPass pass = pass_;
  for (int r = (line_ - 1) % kBlockRows + 1; r < kBlockRows; ++r) {  // the last row is done once more instead of none
    pass.in[r] = pass.in[r - 1];
    pass.out[r] = pass.out[r - 1];
  }
  resample_kernels(current_simd()).horizontal[static_cast<int>(kind_)](pass);
}

Region union_of(const std::vector<Resampler>& views) {
  Region whole = views.front().region();
  for (const Resampler& view : views) {
    const Region& one = view.region();
    whole = {std::min(whole.left, one.left), std::min(whole.top, one.top), std::max(whole.right, one.right),
             std::max(whole.bottom, one.bottom)};
  }
  return whole;
}

int taps_of(const std::vector<Resampler>& views) {
  int most = 0;
  for (const Resampler& view : views) most = std::max(most, view.taps());
  return most;
}

void resample(std::vector<Resampler>& views, RowSource& source) {
  while (true) {
    // Lines are done in the order in which the last row of each comes, so a source holds no more rows than one line needs.
    Resampler* next = nullptr;
    for (Resampler& view : views) {
      if (!view.done() && (next == nullptr || view.next_end() < next->next_end())) next = &view;
    }
    if (next == nullptr) return;
    next->step(source);
  }
}

}  // namespace fasttrain
