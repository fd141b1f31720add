#include "indexed_view.h"

#include <algorithm>

namespace fasttrain {
namespace {

Mixing mixing_of(ColourModel colour) {
  switch (colour) {
    case ColourModel::grey:
      return Mixing::grey;
    case ColourModel::rgb:
      return Mixing::rgb;
    default:
      return Mixing::ycc;
  }
}

UnitRegion union_of(const std::vector<IndexedView>& views) {
  UnitRegion whole = views.front().region();
  for (const IndexedView& view : views) {
    const UnitRegion& one = view.region();
    whole = {std::min(whole.left, one.left), std::min(whole.top, one.top), std::max(whole.right, one.right),
             std::max(whole.bottom, one.bottom)};
  }
  return whole;
}

}  // namespace

// Returns the number of the component's axes; components of equal factors share them.
int IndexedView::add_axes(const View& view, const IndexedHeader& header, int component) {
  const IndexedComponent& own = header.components[component];
  for (int other = 0; other < component; ++other) {
    const IndexedComponent& seen = header.components[other];
    if (seen.columns == own.columns && seen.rows == own.rows) return sources_[other].x;
  }
  const double across = static_cast<double>(own.columns) / header.components[0].columns;
  const double down = static_cast<double>(own.rows) / header.components[0].rows;
  make_axis(span_of(view.left, view.width, across, own.width, view.resized_width, view.offset_x, view.size), view.filter,
            view.hflip, x_[component]);
  make_axis(span_of(view.top, view.height, down, own.height, view.resized_height, view.offset_y, view.size), view.filter,
            false, y_[component]);
  return component;
}

void IndexedView::plan(const View& view, const IndexedHeader& header) {
  view_ = view;
  mixing_ = mixing_of(header.colour);
  components_ = header.shape.components;
  region_ = {header.shape.across, header.shape.down, 0, 0};
  for (int i = 0; i < components_; ++i) {
    Source& source = sources_[i];
    source.x = source.y = add_axes(view, header, i);
    const int wide = 8 * header.shape.columns[i], high = 8 * header.shape.rows[i];
    source.unit_lines = high;
    const Axis& x = x_[source.x];
    const Axis& y = y_[source.y];
    region_ = {std::min(region_.left, x.low / wide), std::min(region_.top, y.low / high),
               std::max(region_.right, (x.high + wide - 1) / wide), std::max(region_.bottom, (y.high + high - 1) / high)};
  }
  held_ = 1;
  for (int line = 0; line < view.size; ++line) {
    for (int i = 0; i < components_; ++i) {
      const Axis& y = y_[sources_[i].y];
      held_ = std::max(held_, stop_of(line) - (y.low + y.starts[line]) / sources_[i].unit_lines);
    }
  }
}

int IndexedView::stop_of(int line) const {
  int stop = 0;
  for (int i = 0; i < components_; ++i) {
    const Axis& y = y_[sources_[i].y];
    const int last = y.low + y.starts[line] + y.counts[line] - 1;
    stop = std::max(stop, last / sources_[i].unit_lines + 1);
  }
  return stop;
}

int IndexedView::next_stop() const { return stop_of(line_); }

void IndexedView::start(const Output& output, void* out) {
  kernels_ = &plane_kernels(current_simd());
  kind_ = output.kind;
  out_ = static_cast<std::uint8_t*>(out);
  line_ = 0;
  const auto outputs = static_cast<std::size_t>(view_.size);
  pass_ = {};
  pass_.outputs = view_.size;
  pass_.mixing = mixing_;
  std::copy(output.scale, output.scale + 3, pass_.scale);
  std::copy(output.shift, output.shift + 3, pass_.shift);
  std::size_t widest = 0, most_taps = 0;
  filtered_.resize(3 * kMaxLines * outputs);
  for (int i = 0; i < components_; ++i) {
    const Axis& x = x_[sources_[i].x];
    const std::size_t columns = static_cast<std::size_t>(x.high - x.low), pitch = columns + 4;
    if (blocks_[i].size() < kMaxLines * pitch) blocks_[i].resize(kMaxLines * pitch);
    pass_.planes[i] = {blocks_[i].data(), pitch, x.high - x.low, x.starts.data(), x.weights.data(), x.taps};
    pass_.filtered[i] = filtered_.data() + static_cast<std::size_t>(i) * kMaxLines * outputs;
    widest = std::max(widest, pitch);
    most_taps = std::max(most_taps, static_cast<std::size_t>(y_[sources_[i].y].taps));
  }
  if (transposed_.size() < kMaxLines * widest) transposed_.resize(kMaxLines * widest);
  pass_.transposed = transposed_.data();
  spare_.resize((3 * outputs + 1) * bytes_of(kind_));
  rows_.resize(most_taps);
}

void IndexedView::step(const IndexedDecoder& decoder) {
  const int place = line_ % kernels_->lines;
  const ResampleKernels& passes = resample_kernels(current_simd());
  for (int i = 0; i < components_; ++i) {
    const Axis& x = x_[sources_[i].x];
    const Axis& y = y_[sources_[i].y];
    const int count = y.counts[line_], first = y.low + y.starts[line_];
    for (int k = 0; k < count; ++k) rows_[k] = decoder.line(i, first + k) + (x.low - decoder.left(i));
    float* line = blocks_[i].data() + static_cast<std::size_t>(place) * pass_.planes[i].pitch;
    passes.vertical(rows_.data(), y.of(line_), count, static_cast<std::size_t>(x.high - x.low), line);
  }
  const int target = view_.vflip ? view_.size - 1 - line_ : line_;
  pass_.out[place] = out_ + static_cast<std::size_t>(target) * 3 * bytes_of(kind_) * view_.size;
  ++line_;
  if (place == kernels_->lines - 1 || done()) finish_block();
}

void IndexedView::finish_block() {
  for (int unused = (line_ - 1) % kernels_->lines + 1; unused < kernels_->lines; ++unused) pass_.out[unused] = spare_.data();
  kernels_->finish[static_cast<int>(kind_)](pass_);
}

std::size_t IndexedView::bytes() const {
  std::size_t floats = transposed_.capacity() + filtered_.capacity();
  for (int i = 0; i < 3; ++i) floats += blocks_[i].capacity() + x_[i].weights.capacity() + y_[i].weights.capacity();
  return floats * sizeof(float);
}

void make_indexed_views(IndexedDecoder& decoder, std::vector<IndexedView>& views, const Output& output,
                        void* const* outs) {
  int held = 1;
  for (std::size_t i = 0; i < views.size(); ++i) {
    views[i].start(output, outs[i]);
    held = std::max(held, views[i].held());
  }
  decoder.start(union_of(views), held);
  while (true) {
    // Lines are done in the order in which the last row of each comes, so no more rows are held than one line needs.
    IndexedView* next = nullptr;
    for (IndexedView& view : views) {
      if (!view.done() && (next == nullptr || view.next_stop() < next->next_stop())) next = &view;
    }
    if (next == nullptr) return;
    decoder.decode_to(next->next_stop());
    next->step(decoder);
  }
}

}  // namespace fasttrain
