#include "score_floors.h"

#include <algorithm>
#include <atomic>
#include <cstring>

namespace fasttrain {
namespace {

constexpr std::size_t kPiece = 1 << 20;  // bytes

std::uint64_t mixed(const char* bytes, std::size_t count) {
  std::uint64_t words[8] = {};
  std::size_t i = 0;
  for (; i + sizeof words <= count; i += sizeof words) {
    std::uint64_t some[8];
    std::memcpy(some, bytes + i, sizeof some);
    for (int k = 0; k < 8; ++k) words[k] ^= some[k];
  }
  for (; i < count; ++i) words[0] ^= static_cast<unsigned char>(bytes[i]);
  for (int k = 1; k < 8; ++k) words[0] ^= words[k];
  return words[0];
}

}  // namespace

std::uint64_t read_floor(const ScoreMatrix& scores, int threads) {
  const std::size_t bytes = scores.rows * scores.columns * scores.item();
  std::atomic<std::uint64_t> all{0};
  for_each_chunk((bytes + kPiece - 1) / kPiece, threads, 0, [&](std::size_t chunk, float*) {
    all ^= mixed(scores.row(0) + chunk * kPiece, std::min(kPiece, bytes - chunk * kPiece));
  });
  return all;
}

double exponential_floor(const ScoreMatrix& row, std::size_t repeats, int threads) {
  const ScoreKernels& kernels = score_kernels(current_simd());
  const std::vector<float> none = padded_offsets(nullptr, row.columns, 0.0);
  const auto workers = static_cast<std::size_t>(std::max(threads, 1));
  std::vector<double> sums(workers);
  for_each_chunk(workers, threads, padded(row.columns), [&](std::size_t worker, float* out) {
    for (std::size_t i = 0; i < repeats; ++i) {
      sums[worker] += kernels.exponentials[row.index()](row.data, none.data(), row.columns, 1.0f, 0.0f, 0, out);
    }
  });
  double sum = 0.0;
  for (const double one : sums) sum += one;
  return sum;
}

}  // namespace fasttrain
