#include <algorithm>
#include <cstring>
#include <limits>

#include "score_passes.h"

namespace fasttrain {
namespace {

constexpr double kLog2e = 1.4426950408889634074;
constexpr std::size_t kChunkRows = 64;
constexpr float kSmallestHalf = 0x1p-24f, kSmallestSingle = 0x1p-149f;

// Rows of the result, one after the other; what it needs of memory is the caller's.
class Mixer {
 public:
  Mixer(const ScoreKernels& kernels, const std::vector<Ingredient>& tables, ScoreSpace space, const float* none,
        std::size_t columns, float* scratch)
      : kernels_(kernels), tables_(tables), space_(space), none_(none), columns_(columns), width_(padded(columns)) {
    values_ = scratch;
    power_ = scratch + width_;
    sums_ = scratch + 2 * width_;
    totals_ = reinterpret_cast<double*>(scratch + 3 * width_);
    for (const Ingredient& table : tables) {
      const ScoreKind kind = table.is_probs ? ScoreKind::single : table.scores.kind;
      softmaxes_.emplace_back(kernels, kind, none, columns, static_cast<float>(kLog2e / table.temperature));
    }
  }

  static std::size_t scratch(std::size_t columns) { return 5 * padded(columns); }

  // The padded row as floats.
  const float* row(std::size_t number) {
    if (space_ == ScoreSpace::probs) return of_probs(number);
    std::fill(totals_, totals_ + width_, 0.0);
    for (const Ingredient& table : tables_) add_to_totals(table, number);
    if (space_ == ScoreSpace::logits) {
      kernels_.differences(totals_, columns_, 0.0, values_);
    } else {
      normalise();
    }
    return values_;
  }

 private:
  static const char* source(const Ingredient& table, std::size_t number) {
    return table.scores.row(table.rows ? static_cast<std::size_t>(table.rows[number]) : number);
  }

  static float least(const Ingredient& table) {
    return table.scores.kind == ScoreKind::half ? kSmallestHalf : kSmallestSingle;
  }

  const float* of_probs(std::size_t number) {
    std::fill(sums_, sums_ + width_, 0.0f);
    for (std::size_t m = 0; m < tables_.size(); ++m) {
      const Ingredient& table = tables_[m];
      const void* scores = source(table, number);
      const float* shares = power_;
      double sum;
      if (table.is_probs) {
        sum = kernels_.widen[table.scores.index()](scores, columns_, values_);
        shares = values_;
        if (table.temperature != 1.0) {
          kernels_.logarithms(values_, width_, least(table));
          sum = softmaxes_[m](values_, power_).sum;
          shares = power_;
        }
      } else {
        sum = softmaxes_[m](scores, power_).sum;
      }
      if (sum > 0.0) add_to_sums(table, shares, static_cast<float>(table.weight / sum));
    }
    std::fill(sums_ + columns_, sums_ + width_, -std::numeric_limits<float>::max());
    return sums_;
  }

  void add_to_sums(const Ingredient& table, const float* shares, float weight) {
    if (table.columns) {
      for (std::size_t i = 0; i < columns_; ++i) sums_[i] += weight * shares[table.columns[i]];
      return;
    }
    kernels_.accumulate_one(shares, weight, width_, sums_);
  }

  // Constants that a row's normalisation would add go away in that of the sum.
  void add_to_totals(const Ingredient& table, std::size_t number) {
    const void* scores = source(table, number);
    const double weight = table.weight / table.temperature;
    if (!table.is_probs && !table.columns) return kernels_.add[table.scores.index()](scores, columns_, weight, totals_);
    kernels_.widen[table.scores.index()](scores, columns_, values_);
    if (table.is_probs) kernels_.logarithms(values_, width_, least(table));
    if (!table.columns) return kernels_.add[1](values_, columns_, weight, totals_);
    for (std::size_t i = 0; i < columns_; ++i) totals_[i] += weight * values_[table.columns[i]];
  }

  void normalise() {
    double most = -std::numeric_limits<double>::max();
    for (std::size_t i = 0; i < columns_; ++i) most = std::max(most, totals_[i]);
    if (!(most > -std::numeric_limits<double>::max())) most = 0.0;
    kernels_.differences(totals_, columns_, most, values_);
    RowSoftmax softmax(kernels_, ScoreKind::single, none_, columns_, static_cast<float>(kLog2e));
    const RowPower power = softmax(values_, power_);
    if (power.sum > 0.0) kernels_.differences(totals_, columns_, most + log_of(power), values_);
  }

  const ScoreKernels& kernels_;
  const std::vector<Ingredient>& tables_;
  ScoreSpace space_;
  const float* none_;
  std::size_t columns_, width_;
  float *values_, *power_, *sums_;
  double* totals_;
  std::vector<RowSoftmax> softmaxes_;
};

}  // namespace

void combine(const std::vector<Ingredient>& tables, ScoreSpace space, int threads, const Mixture& out) {
  const ScoreKernels& kernels = score_kernels(current_simd());
  const AlignedFloats none = padded_offsets(nullptr, out.columns, 0.0);
  const std::size_t chunks = (out.rows + kChunkRows - 1) / kChunkRows;
  for_each_chunk(chunks, threads, Mixer::scratch(out.columns), [&](std::size_t chunk, float* scratch) {
    Mixer mixer(kernels, tables, space, none.data(), out.columns, scratch);
    for (std::size_t row = chunk * kChunkRows; row < std::min((chunk + 1) * kChunkRows, out.rows); ++row) {
      const float* values = mixer.row(row);
      if (out.kind == ScoreKind::half) {
        kernels.halves(values, out.columns, static_cast<std::uint16_t*>(out.out) + row * out.columns);
      } else {
        std::memcpy(static_cast<float*>(out.out) + row * out.columns, values, out.columns * sizeof(float));
      }
      out.label[row] = kernels.leaders(values, padded(out.columns)).at;
      if (out.best.top) find_best(kernels, values, out.columns, out.best, row);
    }
  });
}

}  // namespace fasttrain
