#include <algorithm>
#include <cstring>
#include <limits>

#include "score_passes.h"

namespace fasttrain {
namespace {

constexpr double kLog2e = 1.4426950408889634074;
constexpr std::size_t kChunkRows = 64;

}  // namespace

void find_best(const ScoreKernels& kernels, const float* values, std::size_t count, const BestClasses& best,
               std::size_t row) {
  std::int32_t* classes = best.classes + row * best.top;
  float* found = best.values + row * best.top;
  std::size_t at = 0;
  for (std::size_t have = 0; at < count; ++at) {
    if (have == best.top) {
      at = kernels.above(values, at, count, found[have - 1]);
      if (at >= count) break;
    }
    const float value = values[at];
    const std::size_t place = std::upper_bound(found, found + have, value, std::greater<float>()) - found;
    have = std::min(have + 1, best.top);
    std::memmove(found + place + 1, found + place, (have - place - 1) * sizeof(float));
    std::memmove(classes + place + 1, classes + place, (have - place - 1) * sizeof(std::int32_t));
    found[place] = value;
    classes[place] = static_cast<std::int32_t>(at);
  }
}

std::int64_t assign(const ScoreMatrix& scores, const double* offsets, double temperature, int threads,
                    const Assignment& out) {
  const ScoreKernels& kernels = score_kernels(current_simd());
  const std::size_t columns = scores.columns, width = padded(columns);
  const AlignedFloats shifts = padded_offsets(offsets, columns, temperature);
  const AlignedFloats none = padded_offsets(nullptr, columns, 0.0);
  const auto scale = static_cast<float>(kLog2e / temperature);
  Lowest empty;
  const std::size_t chunks = (scores.rows + kChunkRows - 1) / kChunkRows;
  for_each_chunk(chunks, threads, 2 * width, [&](std::size_t chunk, float* scratch) {
    float *values = scratch, *plan = scratch + width;
    RowSoftmax softmax(kernels, ScoreKind::single, none.data(), columns, scale);
    for (std::size_t row = chunk * kChunkRows; row < std::min((chunk + 1) * kChunkRows, scores.rows); ++row) {
      kernels.shifted[scores.index()](scores.row(row), shifts.data(), columns, 1.0f, values);
      const Leaders leaders = kernels.leaders(values, width);
      const RowPower power = softmax(values, plan);
      if (!(power.sum > 0.0)) {
        empty.offer(static_cast<std::int64_t>(row));
        continue;
      }
      out.label[row] = leaders.at;
      const bool alone = leaders.second <= -std::numeric_limits<float>::max();
      out.margin[row] = alone ? std::numeric_limits<float>::infinity() : leaders.first - leaders.second;
      out.probability[row] = static_cast<float>(plan[leaders.at] / power.sum);
      out.log_normaliser[row] = log_of(power);
      if (out.best.top) find_best(kernels, values, columns, out.best, row);
    }
  });
  return empty.value();
}

}  // namespace fasttrain
