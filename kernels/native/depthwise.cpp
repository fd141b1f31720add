#include "depthwise.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "depthwise_kernels.h"
#include "team.h"

namespace fasttrain {
namespace {

constexpr std::size_t kMostParts = 32;  // of a batch, each with sums of its own

// An output that an input is seen by, and with which weight.
struct Meeting {
  std::size_t output, weight;
};

std::vector<Meeting> meetings_of(const Side& side, std::size_t input) {
  std::vector<Meeting> meetings;
  for (std::size_t weight = 0; weight < side.kernel; ++weight) {
    const std::size_t from = input + side.padding - weight;  // below 0 wraps, and is too large
    if (from % side.stride == 0 && from / side.stride < side.outputs) meetings.push_back({from / side.stride, weight});
  }
  return meetings;
}

bool same_weights(const std::vector<Meeting>& one, const std::vector<Meeting>& other) {
  return std::equal(one.begin(), one.end(), other.begin(), other.end(),
                    [](const Meeting& a, const Meeting& b) { return a.weight == b.weight; });
}

// Inputs a stride apart that the same weights meet, the outputs being the next ones each time.
struct InputRun {
  std::size_t first, count;
  std::vector<Meeting> meetings;  // of the first
};

std::vector<InputRun> input_runs(const Side& side) {
  std::vector<InputRun> runs;
  for (std::size_t start = 0; start < std::min(side.stride, side.inputs); ++start) {
    for (std::size_t input = start; input < side.inputs; input += side.stride) {
      std::vector<Meeting> meetings = meetings_of(side, input);
      if (input > start && same_weights(runs.back().meetings, meetings)) {
        ++runs.back().count;
      } else {
        runs.push_back({input, 1, std::move(meetings)});
      }
    }
  }
  return runs;
}

// Outputs that see inputs within the image by the same weights.
struct OutputRun {
  std::size_t first, count, weight, weights;
};

std::vector<OutputRun> output_runs(const Side& side) {
  std::vector<OutputRun> runs;
  for (std::size_t output = 0; output < side.outputs; ++output) {
    std::size_t first = 0, last = side.kernel;
    while (first < last && output * side.stride + first < side.padding) ++first;
    while (last > first && output * side.stride + last - 1 - side.padding >= side.inputs) --last;
    if (!runs.empty() && runs.back().weight == first && runs.back().weights == last - first) {
      ++runs.back().count;
    } else {
      runs.push_back({output, 1, first, last - first});
    }
  }
  return runs;
}

class Gradients {
 public:
  Gradients(const DepthwiseShape& shape, const DepthwiseKernels& kernels)
      : shape_(shape), kernels_(kernels), inputs_(input_runs(shape.across)), outputs_(output_runs(shape.across)) {
    for (std::size_t y = 0; y < shape.down.inputs; ++y) down_.push_back(meetings_of(shape.down, y));
  }

  std::size_t image_floats() const { return shape_.down.inputs * shape_.across.inputs * shape_.channels; }
  std::size_t gradient_floats() const { return shape_.down.outputs * shape_.across.outputs * shape_.channels; }
  std::size_t weight_floats() const { return shape_.down.kernel * shape_.across.kernel * shape_.channels; }

  // Of one image.
  void by_image(const float* gradients, const float* weights, float* out) const {
    const std::size_t channels = shape_.channels, most = shape_.down.kernel * shape_.across.kernel;
    const Side& across = shape_.across;
    std::vector<const float*> rows(most), factors(most);
    for (std::size_t y = 0; y < shape_.down.inputs; ++y) {
      for (const InputRun& run : inputs_) {
        std::size_t count = 0;
        for (const Meeting& down : down_[y]) {
          for (const Meeting& right : run.meetings) {
            rows[count] = gradients + (down.output * across.outputs + right.output) * channels;
            factors[count++] = weights + (down.weight * across.kernel + right.weight) * channels;
          }
        }
        kernels_.weighted_sums(rows.data(), channels, factors.data(), count, channels, run.count,
                               {out + (y * across.inputs + run.first) * channels, across.stride * channels});
      }
    }
  }

  // Adds what one image contributes.
  void by_weights(const float* image, const float* gradients, float* sums) const {
    const std::size_t channels = shape_.channels;
    const Side& across = shape_.across;
    for (std::size_t y = 0; y < shape_.down.inputs; ++y) {
      const float* const row = image + y * across.inputs * channels;
      for (const Meeting& down : down_[y]) {
        const float* const slopes = gradients + down.output * across.outputs * channels;
        for (const OutputRun& run : outputs_) {
          const std::size_t x = run.first * across.stride + run.weight - across.padding;
          kernels_.add_products({row + x * channels, across.stride * channels}, {slopes + run.first * channels, channels},
                                run.count, channels, run.weights,
                                sums + (down.weight * across.kernel + run.weight) * channels);
        }
      }
    }
  }

 private:
  const DepthwiseShape shape_;
  const DepthwiseKernels& kernels_;
  const std::vector<InputRun> inputs_;
  const std::vector<OutputRun> outputs_;
  std::vector<std::vector<Meeting>> down_;
};

}  // namespace

void depthwise_gradients(const DepthwiseShape& shape, const float* images, const float* gradients, const float* weights,
                         float* by_images, float* by_weights, int threads) {
  const Gradients passes(shape, depthwise_kernels(current_simd()));
  const std::size_t parts = std::min(shape.images, kMostParts), floats = passes.weight_floats();
  std::vector<float> sums(by_weights ? parts * floats : 0);
  on_team(parts, threads, [&](std::size_t part) {
    const std::size_t last = (part + 1) * shape.images / parts;
    for (std::size_t i = part * shape.images / parts; i < last; ++i) {
      const float* const slopes = gradients + i * passes.gradient_floats();
      const std::size_t place = i * passes.image_floats();
      if (by_weights) passes.by_weights(images + place, slopes, sums.data() + part * floats);
      if (by_images) passes.by_image(slopes, weights, by_images + place);
    }
  });
  if (!by_weights) return;
  std::fill(by_weights, by_weights + floats, 0.0f);
  for (std::size_t part = 0; part < parts; ++part) {
    for (std::size_t i = 0; i < floats; ++i) by_weights[i] += sums[part * floats + i];
  }
}

}  // namespace fasttrain
