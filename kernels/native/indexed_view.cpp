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

// How many pixels of the first component stand beside and above each other for one sample of another; 1 where they are not a
// whole number, so that its samples are resized as they are.
struct Reduction {
  int columns, rows;
  Upsampling upsampling;
};

Reduction reduction_of(int whole_across, int across, int whole_down, int down, int width) {
  Reduction found{whole_across % across == 0 ? whole_across / across : 1,
                  whole_down % down == 0 ? whole_down / down : 1, Upsampling::repeated};
  // As jinit_upsampler of libjpeg-turbo chooses it.
  const bool halved = found.columns <= 2 && found.rows <= 2;
  if (halved && (found.columns == 1 || width > 2)) found.upsampling = Upsampling::interpolated;
  return found;
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
int IndexedView::add_axes(const IndexedHeader& header, int component) {
  const IndexedComponent& own = header.components[component];
  for (int other = 0; other < component; ++other) {
    const IndexedComponent& seen = header.components[other];
    if (seen.columns == own.columns && seen.rows == own.rows) return sources_[other].axes;
  }
  const View& view = view_;
  const IndexedComponent& whole = header.components[0];
  const int side = block_side(header, component, eighths_), whole_side = block_side(header, 0, eighths_);
  const int across = own.columns * side, down = own.rows * side;  // samples of an MCU
  const int width = (header.width * across + whole.columns * 8 - 1) / (whole.columns * 8);
  const int height = (header.height * down + whole.rows * 8 - 1) / (whole.rows * 8);
  const Reduction reduction = reduction_of(whole.columns * whole_side, across, whole.rows * whole_side, down, width);
  if (reduction.columns > 1) {
    make_sample_axis(x_[0], reduction.columns, reduction.upsampling, width, x_[component]);
  } else {
    make_axis(span_of(view.left, view.width, static_cast<double>(across) / (whole.columns * 8), width,
                      view.resized_width, view.offset_x, view.columns),
              view.filter, view.hflip, x_[component]);
  }
  if (reduction.rows > 1) {
    make_sample_axis(y_[0], reduction.rows, reduction.upsampling, height, y_[component]);
  } else {
    make_axis(span_of(view.top, view.height, static_cast<double>(down) / (whole.rows * 8), height,
                      view.resized_height, view.offset_y, view.lines),
              view.filter, false, y_[component]);
  }
  return component;
}

void IndexedView::plan(const View& view, const IndexedHeader& header, bool fast) {
  view_ = view;
  set_eighths(fast ? eighths_of(view) : 8, header);
}

void IndexedView::set_eighths(int eighths, const IndexedHeader& header) {
  eighths_ = eighths;
  mixing_ = mixing_of(header.colour);
  components_ = header.shape.components;
  region_ = {header.shape.across, header.shape.down, 0, 0};
  for (int i = 0; i < components_; ++i) {
    Source& source = sources_[i];
    source.axes = add_axes(header, i);
    const int side = block_side(header, i, eighths);
    const int wide = side * header.shape.columns[i], high = side * header.shape.rows[i];
    source.unit_lines = high;
    const Axis& x = x_[source.axes];
    const Axis& y = y_[source.axes];
    region_ = {std::min(region_.left, x.low / wide), std::min(region_.top, y.low / high),
               std::max(region_.right, (x.high + wide - 1) / wide), std::max(region_.bottom, (y.high + high - 1) / high)};
  }
  kernels_ = &plane_kernels(current_simd());
  held_ = 1;
  for (int line = 0; line < view_.lines; line += kernels_->lines) {
    for (int i = 0; i < components_; ++i) {
      const Axis& y = y_[sources_[i].axes];
      held_ = std::max(held_, stop_of(line) - (y.low + y.starts[line]) / sources_[i].unit_lines);
    }
  }
}

int IndexedView::stop_of(int line) const {
  const int last_line = std::min(line + kernels_->lines, view_.lines) - 1;
  int stop = 0;
  for (int i = 0; i < components_; ++i) {
    const Axis& y = y_[sources_[i].axes];
    const int last = y.low + y.starts[last_line] + y.taps - 1;
    stop = std::max(stop, last / sources_[i].unit_lines + 1);
  }
  return stop;
}

void IndexedView::start(const Output& output, void* out) {
  kind_ = output.kind;
  out_ = static_cast<std::uint8_t*>(out);
  line_ = 0;
  const auto outputs = static_cast<std::size_t>(view_.columns);
  pass_ = {};
  pass_.outputs = view_.columns;
  pass_.mixing = mixing_;
  std::copy(output.scale, output.scale + 3, pass_.scale);
  std::copy(output.shift, output.shift + 3, pass_.shift);
  std::size_t widest = 0;
  filtered_.resize(3 * kMaxLines * outputs);
  for (int i = 0; i < components_; ++i) {
    const Axis& x = x_[sources_[i].axes];
    const int taps = y_[sources_[i].axes].taps;
    rows_[i].resize(static_cast<std::size_t>(kMaxLines * taps));
    PlaneLines& plane = pass_.planes[i];
    plane.rows = rows_[i].data();
    plane.row_taps = taps;
    plane.columns = x.high - x.low;
    plane.starts = x.starts.data();
    plane.weights = x.weights.data();
    plane.taps = x.taps;
    pass_.filtered[i] = filtered_.data() + static_cast<std::size_t>(i) * kMaxLines * outputs;
    widest = std::max(widest, static_cast<std::size_t>(plane.columns) + kMaxLines);
  }
  if (transposed_.size() < kMaxLines * widest) transposed_.resize(kMaxLines * widest);
  pass_.transposed = transposed_.data();
  spare_.resize((3 * outputs + 1) * bytes_of(kind_));
}

void IndexedView::step(const IndexedDecoder& decoder) {
  for (int place = 0; place < kernels_->lines; ++place) {
    const int line = std::min(line_ + place, view_.lines - 1);  // the last one is done once more instead of none
    for (int i = 0; i < components_; ++i) {
      const Axis& x = x_[sources_[i].axes];
      const Axis& y = y_[sources_[i].axes];
      const int first = y.low + y.starts[line];
      const std::uint8_t** rows = rows_[i].data() + static_cast<std::size_t>(place * y.taps);
      for (int k = 0; k < y.taps; ++k) rows[k] = decoder.line(i, first + k) + (x.low - decoder.left(i));
      pass_.planes[i].row_weights[place] = y.of(line);
    }
    const int target = view_.vflip ? view_.lines - 1 - line : line;
    pass_.out[place] = line_ + place > line
                           ? spare_.data()
                           : out_ + static_cast<std::size_t>(target) * 3 * bytes_of(kind_) * view_.pitch;
  }
  line_ = std::min(line_ + kernels_->lines, view_.lines);
  kernels_->finish[static_cast<int>(kind_)](pass_);
}

std::size_t IndexedView::bytes() const {
  std::size_t floats = transposed_.capacity() + filtered_.capacity();
  for (int i = 0; i < 3; ++i) floats += x_[i].weights.capacity() + y_[i].weights.capacity();
  return floats * sizeof(float);
}

void make_indexed_views(IndexedDecoder& decoder, std::vector<IndexedView>& views, const Output& output,
                        void* const* outs) {
  int held = 1, eighths = 1;
  for (const IndexedView& view : views) eighths = std::max(eighths, view.eighths());
  for (std::size_t i = 0; i < views.size(); ++i) {
    if (views[i].eighths() != eighths) views[i].set_eighths(eighths, decoder.header());
    views[i].start(output, outs[i]);
    held = std::max(held, views[i].held());
  }
  decoder.start(union_of(views), held, eighths);
  while (true) {
    // Steps are done in the order in which the last row of each comes, so no more rows are held than one step needs.
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
