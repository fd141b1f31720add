// Antialiased resize of boxes of an image, from rows as they come to finished pixels: a window of the resized box,
// mirrored, normalised and stored with the channels last.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "resample_axis.h"
#include "resample_kernels.h"

namespace fasttrain {

// One view of a sample. Boxes are in pixels of the source; what lies outside of them has no part in the result.
struct View {
  int left, top, width, height;  // the box
  int resized_width, resized_height;
  int offset_x, offset_y;  // the window in the resized box
  int columns, lines;      // of the window
  int pitch;               // pixels from a line of the output to the next
  Filter filter;
  bool hflip, vflip;
};

// The smallest size of the source, in eighths, at which the box still has as many pixels along both sides as it is resized
// to.
int eighths_of(const View& view);

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

// Rows of a region of an image, three bytes a pixel.
class RowSource {
 public:
  virtual ~RowSource() = default;
  // `count` rows from `first` on, each beginning at the region's left edge; good until the next call. The end of what is
  // asked for never goes back from call to call, and no call asks for more rows than the source was opened for.
  virtual const std::uint8_t* const* rows(int first, int count) = 0;
};

// One view, on its way. Its memory is used again for other samples.
class Resampler {
 public:
  // Work out the weights. `ratio` is the size of the source's pixels relative to those that the view speaks of: 0.5 for an
  // image that was decoded at half its size, of `width` x `height` there.
  void plan(const View& view, double ratio, int width, int height);

  const Region& region() const { return region_; }  // what has to be read
  int taps() const { return y_.taps; }              // rows that are asked for at a time, at the most
  const Axis& across() const { return x_; }
  const Axis& down() const { return y_; }

  // Begin; `left` is the left edge of the rows that will come, and `out` is where the window begins.
  void start(int left, const Output& output, void* out);
  bool done() const { return line_ == view_.lines; }
  int next_end() const { return region_.top + y_.starts[line_] + y_.counts[line_]; }  // behind the last row to be read next
  void step(RowSource& source);                                                      // the next line of the window

  std::size_t bytes() const;

 private:
  void finish_block();

  View view_{};
  Region region_{};
  Axis x_, y_;
  HorizontalPass pass_{};
  Pixel kind_{};
  std::uint8_t* out_ = nullptr;
  std::size_t indent_ = 0;  // bytes from the left edge of the rows to that of the region
  int line_ = 0;
  std::vector<float> block_;  // rows that went through the vertical pass
  std::vector<const std::uint8_t*> rows_;
};

// The region that holds all of these, which are at least one.
Region union_of(const std::vector<Resampler>& views);

// The most rows that any of these asks for at a time.
int taps_of(const std::vector<Resampler>& views);

// Carry out views that were started, all from one pass over the rows.
void resample(std::vector<Resampler>& views, RowSource& source);

}  // namespace fasttrain
