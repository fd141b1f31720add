#include "resample.h"

#include <algorithm>
#include <cmath>

namespace fasttrain {
namespace {

Span span_of(int start, int length, double ratio, int limit, int resized, int offset, int outputs) {
  const double first = start * ratio, size = length * ratio;
  const int low = std::min(static_cast<int>(std::floor(first)), limit - 1);
  const int high = std::min(static_cast<int>(std::ceil(first + size)), limit);
  return {first, size, low, std::max(high, low + 1), resized, offset, outputs};
}

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

std::size_t ResampleScratch::bytes() const {
  return (block.capacity() + x.weights.capacity() + y.weights.capacity()) * sizeof(float);
}

Region plan_resample(const View& view, double ratio, int width, int height, ResampleScratch& scratch) {
  const Span x = span_of(view.left, view.width, ratio, width, view.resized_width, view.offset_x, view.size);
  const Span y = span_of(view.top, view.height, ratio, height, view.resized_height, view.offset_y, view.size);
  make_axis(x, view.filter, view.hflip, scratch.x);
  make_axis(y, view.filter, false, scratch.y);  // rows come from the top down; a flip only changes where they go
  return {scratch.x.low, scratch.y.low, scratch.x.high, scratch.y.high};
}

void resample(const View& view, const Region& region, RowSource& source, const Output& output, ResampleScratch& scratch,
              void* out) {
  const ResampleKernels& kernels = resample_kernels(current_simd());
  const std::size_t columns = static_cast<std::size_t>(region.right - region.left);
  const Axis& y = scratch.y;
  const std::size_t pitch = 3 * columns + 4;  // a pixel is read as four floats
  if (scratch.block.size() < kBlockRows * pitch) scratch.block.resize(kBlockRows * pitch);
  HorizontalPass pass = horizontal_pass(scratch.x, output);
  const std::size_t stride = 3 * bytes_of(output.kind) * view.size;
  for (int block = 0; block < view.size; block += kBlockRows) {
    for (int r = 0; r < kBlockRows; ++r) {
      const int line = block + r;
      if (line >= view.size) {  // behind the last row, which is done once more instead
        pass.in[r] = pass.in[r - 1];
        pass.out[r] = pass.out[r - 1];
        continue;
      }
      float* row = scratch.block.data() + r * pitch;
      const std::uint8_t* const* rows = source.rows(region.top + y.starts[line], y.counts[line]);
      kernels.vertical(rows, y.of(line), y.counts[line], 3 * columns, row);
      const int target = view.vflip ? view.size - 1 - line : line;
      pass.in[r] = row;
      pass.out[r] = static_cast<std::uint8_t*>(out) + target * stride;
    }
    kernels.horizontal[static_cast<int>(output.kind)](pass);
  }
}

}  // namespace fasttrain
