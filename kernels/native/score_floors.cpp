#include "score_floors.h"

#include <algorithm>
#include <atomic>
#include <cstring>

namespace fasttrain {
namespace {

constexpr std::size_t kPiece = 1 << 20;  // bytes

typedef std::uint64_t Words __attribute__((vector_size(16)));
constexpr std::size_t kAtOnce = 4 * sizeof(Words);

std::uint64_t mixed(const char* bytes, std::size_t count) {
  Words words[4] = {};
  std::size_t i = 0;
  for (; i + kAtOnce <= count; i += kAtOnce) {
    for (int k = 0; k < 4; ++k) {
      Words some;
      std::memcpy(&some, bytes + i + k * sizeof some, sizeof some);
      words[k] ^= some;
    }
  }
  for (; i < count; ++i) words[0][0] ^= static_cast<unsigned char>(bytes[i]);
  const Words all = (words[0] ^ words[1]) ^ (words[2] ^ words[3]);
  return all[0] ^ all[1];
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
  const AlignedFloats none = padded_offsets(nullptr, row.columns, 0.0);
  const auto workers = static_cast<std::size_t>(std::max(threads, 1));
  std::vector<double> sums(workers);
  const std::size_t width = padded(row.columns);
  for_each_chunk(workers, threads, 2 * width, [&](std::size_t worker, float* out) {
    float* scores = out + width;
    std::memcpy(scores, row.data, row.columns * row.item());
    for (std::size_t i = 0; i < repeats; ++i) {
      sums[worker] += kernels.exponentials[row.index()](scores, none.data(), row.columns, 1.0f, 0.0f, 0, out);
    }
  });
  double sum = 0.0;
  for (const double one : sums) sum += one;
  return sum;
}

}  // namespace fasttrain
