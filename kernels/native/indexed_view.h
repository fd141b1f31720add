// Views made straight from the planes of an indexed JPEG: each plane is resized by itself to the size of the view, and only
// there are the three mixed into colours, so that chroma is never brought to the size of the image: the weights that resize
// it hold libjpeg's upsampling as well.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "indexed_decode.h"
#include "plane_kernels.h"
#include "resample.h"

namespace fasttrain {

// One view, on its way. Its memory is used again for other samples.
class IndexedView {
 public:
  // Work out the weights. The view's box and window must be inside of the image and the resized box. `fast` decodes at the
  // smallest size, in eighths, at which the box has as many pixels along both sides as it is resized to.
  void plan(const View& view, const IndexedHeader& header, bool fast = false);

  int eighths() const { return eighths_; }
  // Change the size at which the image is decoded.
  void set_eighths(int eighths, const IndexedHeader& header);

  const UnitRegion& region() const { return region_; }  // what has to be decoded
  int held() const { return held_; }                    // rows of MCUs that a step needs, at the most
  const Axis& across(int component) const { return x_[sources_[component].axes]; }
  const Axis& down(int component) const { return y_[sources_[component].axes]; }

  // Begin; `out` is where the window begins.
  void start(const Output& output, void* out);
  bool done() const { return line_ == view_.lines; }
  int next_stop() const { return stop_of(line_); }  // behind the last row of MCUs that the next step needs
  void step(const IndexedDecoder& decoder);         // the next lines of the window; what they need has been decoded

  std::size_t bytes() const;

 private:
  struct Source {  // of one component
    int axes = 0;        // their number; components may share them
    int unit_lines = 0;  // samples of an MCU, one below the other
  };

  int add_axes(const IndexedHeader& header, int component);
  int stop_of(int line) const;  // of the step that begins with this line

  View view_{};
  int eighths_ = 8;
  Mixing mixing_ = Mixing::ycc;
  int components_ = 0;
  Source sources_[3];
  Axis x_[3], y_[3];
  UnitRegion region_{};
  int held_ = 0;
  PlanePass pass_{};
  const PlaneKernels* kernels_ = nullptr;
  Pixel kind_{};
  std::uint8_t* out_ = nullptr;
  int line_ = 0;
  std::vector<float> transposed_, filtered_;
  std::vector<std::uint8_t> spare_;  // a line that nobody wants
  std::vector<const std::uint8_t*> rows_[3];
};

// Carry out views of an image that was opened, all from one decoding, at the largest size that any of them was planned
// for. `outs` has a place for each. Throws JpegError where
// the stream or the index is damaged.
void make_indexed_views(IndexedDecoder& decoder, std::vector<IndexedView>& views, const Output& output,
                        void* const* outs);

}  // namespace fasttrain
