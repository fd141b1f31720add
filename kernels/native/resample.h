// Antialiased resize of a box of an image, from rows as they come to finished pixels: a window of the resized box,
// mirrored, normalised and stored with the channels last.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "resample_axis.h"
#include "resample_kernels.h"

namespace fasttrain {

// The view of one sample. Boxes are in pixels of the source; what lies outside of them has no part in the result.
struct View {
  int left, top, width, height;  // the box
  int resized_width, resized_height;
  int offset_x, offset_y;  // the window of `size` x `size` in the resized box
  int size;
  Filter filter;
  bool hflip, vflip;
};

// How pixels are stored: value * scale + shift of each channel, value being 0 to 255.
struct Output {
  Pixel kind;
  float scale[3], shift[3];
};

std::size_t bytes_of(Pixel kind);

// The rectangle of source pixels that is read: columns [left, right), rows [top, bottom).
struct Region {
  int left, top, right, bottom;
};

// Rows of an image (three bytes a pixel), from `first` on, which never goes back from call to call.
class RowSource {
 public:
  virtual ~RowSource() = default;
  // `count` rows of the region that the source was opened for, each beginning at its left edge; good until the next call.
  virtual const std::uint8_t* const* rows(int first, int count) = 0;
};

// Memory of one thread, used again for every image.
struct ResampleScratch {
  Axis x, y;
  std::vector<float> block;  // rows that went through the vertical pass

  std::size_t bytes() const;
};

// Work out the weights; the result is what has to be read. `ratio` is the size of the source's pixels relative to those
// that the view speaks of: 0.5 for an image that was decoded at half its size, of `width` x `height` there.
Region plan_resample(const View& view, double ratio, int width, int height, ResampleScratch& scratch);

// Carry out what was planned. `out` has room for size x size pixels.
void resample(const View& view, const Region& region, RowSource& source, const Output& output, ResampleScratch& scratch,
              void* out);

}  // namespace fasttrain
