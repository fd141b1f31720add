#include <algorithm>

#include "score_passes.h"

namespace fasttrain {
namespace {

constexpr double kLog2e = 1.4426950408889634074;
constexpr std::size_t kMostChunks = 128, kLeastEntries = 1 << 16;
constexpr std::size_t kMostPartialSums = std::size_t{1} << 24;
constexpr std::size_t kFlushRows = 32;  // whose sums are kept as floats, before they are added as doubles

struct Chunks {
  std::size_t rows, count;
};

// Each chunk has its own sums, and they are added up in order: results do not depend on the threads.
Chunks chunks_of(const ScoreMatrix& scores) {
  const std::size_t most = std::clamp<std::size_t>(kMostPartialSums / scores.columns, 1, kMostChunks);
  std::size_t rows = std::max((scores.rows + most - 1) / most, (kLeastEntries + scores.columns - 1) / scores.columns);
  rows = (rows + kSoftmaxRows - 1) / kSoftmaxRows * kSoftmaxRows;
  return {rows, (scores.rows + rows - 1) / rows};
}

}  // namespace

ColumnSums softmax_colsum(const ScoreMatrix& scores, const double* offsets, double temperature, int threads) {
  const ScoreKernels& kernels = score_kernels(current_simd());
  const std::size_t columns = scores.columns, width = padded(columns);
  const AlignedFloats shifts = padded_offsets(offsets, columns, kLog2e);
  const auto scale = static_cast<float>(kLog2e / temperature);
  const Chunks chunks = chunks_of(scores);
  std::vector<double> partial(chunks.count * width), normalisers(chunks.count);
  Lowest empty;
  for_each_chunk(chunks.count, threads, (kSoftmaxRows + 1) * width, [&](std::size_t chunk, float* scratch) {
    float *plan = scratch, *sums = scratch + kSoftmaxRows * width;
    double* totals = partial.data() + chunk * width;
    std::fill(scratch, scratch + (kSoftmaxRows + 1) * width, 0.0f);
    RowSoftmax softmax(kernels, scores.kind, shifts.data(), columns, scale);
    PendingRows pending{{}, sums};
    const std::size_t first = chunk * chunks.rows, last = std::min(first + chunks.rows, scores.rows);
    for (std::size_t row = first; row < last; row += kSoftmaxRows) {
      const std::size_t count = std::min(kSoftmaxRows, last - row);
      RowPower powers[kSoftmaxRows] = {};
      softmax.rows(scores.row(row), columns * scores.item(), count, plan, powers, &pending);
      RowPower product{1.0, 0.0f};  // for one logarithm of all rows: four sums are far from what a double holds
      for (std::size_t r = 0; r < kSoftmaxRows; ++r) {
        const bool there = powers[r].sum > 0.0;
        if (r < count && !there) empty.offer(static_cast<std::int64_t>(row + r));
        pending.weights[r] = there ? static_cast<float>(1.0 / powers[r].sum) : 0.0f;
        if (there) product = {product.sum * powers[r].sum, product.shift + powers[r].shift};
      }
      normalisers[chunk] += log_of(product);
      if ((row - first) % kFlushRows == kFlushRows - kSoftmaxRows) kernels.flush(sums, width, totals);
    }
    softmax.settle(plan, pending);
    kernels.flush(sums, width, totals);
  });
  ColumnSums result{std::vector<double>(columns), 0.0, empty.value()};
  for (std::size_t chunk = 0; chunk < chunks.count; ++chunk) {
    const double* totals = partial.data() + chunk * width;
    for (std::size_t i = 0; i < columns; ++i) result.sums[i] += totals[i];
    result.log_normalisers += normalisers[chunk];
  }
  return result;
}

}  // namespace fasttrain
