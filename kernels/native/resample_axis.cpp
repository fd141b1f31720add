#include "resample_axis.h"

#include <algorithm>
#include <array>
#include <cmath>

namespace fasttrain {
namespace {

double triangle(double x) { return std::max(0.0, 1.0 - std::fabs(x)); }

double cubic(double x) {  // Keys, "Cubic convolution interpolation for digital image processing", 1981, a = -0.5
  constexpr double a = -0.5;
  x = std::fabs(x);
  if (x < 1.0) return ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0;
  if (x < 2.0) return (((x - 5.0) * x + 8.0) * x - 4.0) * a;
  return 0.0;
}

struct Share {  // of a pixel
  int sample;
  float weight;
};

// The two samples that a pixel is made of.
std::array<Share, 2> shares_of(int pixel, int factor, Upsampling upsampling, int limit) {
  const int own = std::min(pixel / factor, limit - 1);
  if (upsampling == Upsampling::repeated) return {{{own, 1.0f}, {own, 0.0f}}};
  const int beside = std::clamp(pixel % 2 == 0 ? own - 1 : own + 1, 0, limit - 1);
  return {{{own, 0.75f}, {beside, 0.25f}}};
}

}  // namespace

Span span_of(int start, int length, double ratio, int limit, int resized, int offset, int outputs) {
  const double first = start * ratio, size = length * ratio;
  const int low = std::min(static_cast<int>(std::floor(first)), limit - 1);
  const int high = std::min(static_cast<int>(std::ceil(first + size)), limit);
  return {first, size, low, std::max(high, low + 1), resized, offset, outputs};
}

void make_axis(const Span& span, Filter filter, bool mirrored, Axis& axis) {
  const double scale = span.length / span.resized;
  const double stretch = std::max(scale, 1.0);  // the filter grows with the reduction: that is the antialiasing
  const double support = (filter == Filter::bilinear ? 1.0 : 2.0) * stretch;
  const double shrink = 1.0 / stretch;
  const int available = span.high - span.low;
  axis.taps = std::min(static_cast<int>(std::ceil(2.0 * support)), available);
  axis.starts.resize(span.outputs);
  axis.counts.resize(span.outputs);
  axis.weights.assign(static_cast<std::size_t>(span.outputs) * axis.taps, 0.0f);
  axis.low = span.high;
  axis.high = span.low;
  for (int i = 0; i < span.outputs; ++i) {
    const double centre = span.start + (span.offset + i + 0.5) * scale;
    const int first = std::clamp(static_cast<int>(std::floor(centre - support + 0.5)), span.low, span.high - 1);
    const int last = std::clamp(static_cast<int>(std::floor(centre + support + 0.5)), first + 1, span.high);
    const int count = std::min(last - first, axis.taps);
    // The filling must not point at pixels that do not exist, so windows at the far edge begin earlier than need be.
    const int start = std::min(first, span.high - axis.taps);
    const int output = mirrored ? span.outputs - 1 - i : i;
    float* weights = axis.weights.data() + static_cast<std::size_t>(output) * axis.taps + (first - start);
    double sum = 0.0;
    for (int k = 0; k < count; ++k) {
      const double x = (first + k - centre + 0.5) * shrink;
      const double weight = filter == Filter::bilinear ? triangle(x) : cubic(x);
      weights[k] = static_cast<float>(weight);
      sum += weight;
    }
    if (sum == 0.0) {  // a window that touches its pixels at their edges alone
      weights[0] = 1.0f;
      sum = 1.0;
    }
    const double norm = 1.0 / sum;
    for (int k = 0; k < count; ++k) weights[k] = static_cast<float>(weights[k] * norm);
    axis.starts[output] = start;
    axis.counts[output] = first - start + count;
    axis.low = std::min(axis.low, start);
    axis.high = std::max(axis.high, start + axis.taps);
  }
  for (int& start : axis.starts) start -= axis.low;
}

void make_sample_axis(const Axis& pixels, int factor, Upsampling upsampling, int limit, Axis& samples) {
  const int outputs = static_cast<int>(pixels.starts.size());
  const int beside = upsampling == Upsampling::interpolated ? 1 : 0;
  samples.taps = std::min((pixels.taps + 2 * beside + factor - 2) / factor + 1, limit);
  samples.starts.resize(outputs);
  samples.counts.assign(outputs, samples.taps);
  samples.weights.assign(static_cast<std::size_t>(outputs) * samples.taps, 0.0f);
  samples.low = limit;
  samples.high = 0;
  for (int output = 0; output < outputs; ++output) {
    const int first = std::max((pixels.low + pixels.starts[output] - beside) / factor, 0);
    const int start = std::min(first, limit - samples.taps);
    float* weights = samples.weights.data() + static_cast<std::size_t>(output) * samples.taps;
    for (int k = 0; k < pixels.taps; ++k) {
      const int pixel = pixels.low + pixels.starts[output] + k;
      for (const Share& share : shares_of(pixel, factor, upsampling, limit)) {
        weights[share.sample - start] += pixels.of(output)[k] * share.weight;
      }
    }
    samples.starts[output] = start;
    samples.low = std::min(samples.low, start);
    samples.high = std::max(samples.high, start + samples.taps);
  }
  for (int& start : samples.starts) start -= samples.low;
}

}  // namespace fasttrain
