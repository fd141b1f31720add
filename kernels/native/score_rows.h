// What the passes over score matrices share: rows in whole chunks on several threads, and the softmax of a row.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <new>
#include <vector>

#include "score_kernels.h"

namespace fasttrain {

enum class ScoreKind { half, single };

// A matrix (rows, columns) as it lies in memory or in a mapped file.
struct ScoreMatrix {
  const void* data;
  ScoreKind kind;
  std::size_t rows, columns;

  std::size_t item() const { return kind == ScoreKind::half ? 2 : 4; }
  std::size_t index() const { return static_cast<std::size_t>(kind); }  // of kernels
  const char* row(std::size_t number) const { return static_cast<const char*>(data) + number * columns * item(); }
};

inline std::size_t padded(std::size_t columns) { return (columns + kScorePadding - 1) / kScorePadding * kScorePadding; }

// Offsets times a scale as floats, and -inf in the padding; zeros without offsets.
// Begins at a cache line, so that no vector that is loaded lies across two.
template <class Value>
struct LineAllocator {
  typedef Value value_type;
  LineAllocator() = default;
  template <class Other>
  LineAllocator(const LineAllocator<Other>&) {}
  Value* allocate(std::size_t count) {
    return static_cast<Value*>(::operator new(sizeof(Value) * count, std::align_val_t{64}));
  }
  void deallocate(Value* memory, std::size_t) { ::operator delete(memory, std::align_val_t{64}); }
  bool operator==(const LineAllocator&) const { return true; }
  bool operator!=(const LineAllocator&) const { return false; }
};
typedef std::vector<float, LineAllocator<float>> AlignedFloats;

AlignedFloats padded_offsets(const double* offsets, std::size_t columns, double scale);

// Exponentials of a row, divided by a power of two that keeps them within what a float holds.
struct RowPower {
  double sum;   // of the exponentials as they are stored; 0 if the row has no finite entry
  float shift;  // their true values are 2^shift times as large
};

constexpr std::size_t kSoftmaxRows = 4;  // that are taken at a time, at most

// Rows of exponentials that are still to be added to column sums, when others are about to take their place.
struct PendingRows {
  float weights[kSoftmaxRows];
  float* sums;
};

// Takes softmaxes of rows that follow each other. The largest entry need not be looked for where a row is like the one before:
// exponentials are taken by that one's measure, and again by their own only if their sum comes out too small or too
// large. Where that happens too often, the largest entry is looked for first.
class RowSoftmax {
 public:
  // scale: of the scores, with log2(e) in it, as the offsets have.
  RowSoftmax(const ScoreKernels& kernels, ScoreKind kind, const float* offsets, std::size_t columns, float scale)
      : kernels_(kernels), kind_(static_cast<std::size_t>(kind)), offsets_(offsets), columns_(columns), scale_(scale) {}

  RowPower operator()(const void* scores, float* out);

  // `count` rows that lie `stride` bytes apart, piece by piece, so that each piece of the offsets is read once for all of
  // them; so many rows behind them are fetched meanwhile. The rows in `out` are added up before they are overwritten.
  void rows(const char* scores, std::size_t stride, std::size_t count, float* out, RowPower* powers,
            const PendingRows* pending = nullptr);

  // Adds them alone.
  void settle(const float* out, const PendingRows& pending) const;

 private:
  void learn(const RowPower& power);
  void take(const char* scores, std::size_t stride, std::size_t count, float* out, RowPower* powers,
            const PendingRows* pending) const;
  float measure(const void* scores) const;
  RowPower in_double(const void* scores, float* out) const;

  const ScoreKernels& kernels_;
  std::size_t kind_;
  const float* offsets_;
  std::size_t columns_;
  float scale_;
  float guess_ = 0.0f;
  int wary_ = 1;  // calls for which the largest entry is looked for first
};

// Logarithm of 2^shift * sum.
double log_of(const RowPower& power);

// Calls work(chunk, scratch) for each chunk number below `chunks`, on at most `threads` threads; `scratch` is one of
// `floats` floats a thread.
void for_each_chunk(std::size_t chunks, int threads, std::size_t floats,
                    const std::function<void(std::size_t, float*)>& work);

// The lowest number that any thread offers.
class Lowest {
 public:
  void offer(std::int64_t number);
  std::int64_t value() const;  // -1 if none

 private:
  std::atomic<std::int64_t> value_{INT64_MAX};
};

}  // namespace fasttrain
