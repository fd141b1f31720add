// The filter weights of one axis of a separable, antialiased resize, as Pillow computes them.
#pragma once

#include <vector>

namespace fasttrain {

enum class Filter { bilinear, bicubic };

// How one axis is resized: `length` source pixels from `start` on become `resized`, of which `outputs` from `offset` on
// are wanted. Source pixels below `low` or from `high` on have no part in it.
struct Span {
  double start, length;
  int low, high;
  int resized, offset, outputs;
};

// The span of a box of `length` pixels from `start` on in an image that is there at `ratio` of its size, `limit` pixels long:
// `outputs` pixels from `offset` on, of the `resized` that the box becomes.
Span span_of(int start, int length, double ratio, int limit, int resized, int offset, int outputs);

struct Axis {
  int taps = 0;                // weights an output: the same for all of them, filled up with zeros
  int low = 0, high = 0;       // source pixels that any output needs: [low, high)
  std::vector<int> starts;     // first source pixel of each output, relative to `low`
  std::vector<int> counts;     // weights of each output that are not mere filling
  std::vector<float> weights;  // outputs x taps

  const float* of(int output) const { return weights.data() + static_cast<std::size_t>(output) * taps; }
};

// Overwrites `axis`, whose memory is used again. `mirrored` lists the outputs from the last to the first.
void make_axis(const Span& span, Filter filter, bool mirrored, Axis& axis);

// How a line of fewer samples becomes one of pixels, as libjpeg does it (jdsample.c): samples are repeated, or, where two pixels
// come from one, each pixel has 3/4 of its own sample and 1/4 of the one beside it.
enum class Upsampling { repeated, interpolated };

// Overwrites `samples` with the weights that do both at once, the upsampling by `factor` (2 with interpolation) and then what
// `pixels` does. `limit`: samples that there are.
void make_sample_axis(const Axis& pixels, int factor, Upsampling upsampling, int limit, Axis& samples);

}  // namespace fasttrain
