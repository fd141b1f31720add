#include "score_rows.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <exception>
#include <limits>
#include <memory>
#include <mutex>
#include <new>
#include <thread>

namespace fasttrain {
namespace {

constexpr std::size_t kPiece = 1024;  // columns taken at a time: their offsets stay in the first-level cache
constexpr float kLargestShift = 1 << 20, kTooLarge = 1 << 21;
// Sums of exponentials that lose nothing: entries below 2^-127 count as 0, which is 2^-47 of the least such sum.
constexpr double kLeastSum = 0x1p-80, kLargestSum = 0x1p99;
constexpr float kCentre = 10.0f;  // where the next row's sum is expected, in the middle between them
constexpr int kWary = 64;         // calls for which a wrong guess is remembered

float half_value(std::uint16_t half) {
  const int exponent = half >> 10 & 31, fraction = half & 1023;
  const float sign = half & 0x8000 ? -1.0f : 1.0f;
  if (exponent == 31) return sign * std::numeric_limits<float>::infinity();
  return sign * (exponent ? std::ldexp(1024.0f + fraction, exponent - 25) : std::ldexp(1.0f * fraction, -24));
}

bool is_infinite(float value) {  // by its bits: the compiler is told that there are none
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return (bits & 0x7F800000) == 0x7F800000;
}

}  // namespace

AlignedFloats padded_offsets(const double* offsets, std::size_t columns, double scale) {
  AlignedFloats result(padded(columns), -std::numeric_limits<float>::infinity());
  for (std::size_t i = 0; i < columns; ++i) result[i] = offsets ? static_cast<float>(offsets[i] * scale) : 0.0f;
  return result;
}

void RowSoftmax::learn(const RowPower& power) {
  guess_ = std::clamp(power.shift + static_cast<float>(std::ilogb(power.sum)) - kCentre, -kLargestShift, kLargestShift);
}

RowPower RowSoftmax::operator()(const void* scores, float* out) {
  RowPower power;
  rows(static_cast<const char*>(scores), 0, 1, out, &power);
  return power;
}

void RowSoftmax::settle(const float* out, const PendingRows& pending) const {
  const float* rows[kSoftmaxRows];
  for (std::size_t r = 0; r < kSoftmaxRows; ++r) rows[r] = out + r * padded(columns_);
  kernels_.accumulate(rows, pending.weights, padded(columns_), pending.sums);
}

void RowSoftmax::rows(const char* scores, std::size_t stride, std::size_t count, float* out, RowPower* powers,
                      const PendingRows* pending) {
  const std::size_t width = padded(columns_);
  if (pending && count < kSoftmaxRows) {
    settle(out, *pending);
    pending = nullptr;
  }
  bool guessed[kSoftmaxRows];
  for (std::size_t r = 0; r < count; ++r) {
    guessed[r] = wary_ == 0 || (r > 0 && wary_ == 1);  // at first one row is enough to learn from
    powers[r] = {0.0, guessed[r] ? guess_ : measure(scores + r * stride)};
    if (wary_ == 1 && powers[r].shift < kTooLarge) guess_ = powers[r].shift;
  }
  take(scores, stride, count, out, powers, pending);
  if (wary_ > 0) --wary_;
  for (std::size_t r = 0; r < count; ++r) {
    if (powers[r].shift < kTooLarge && powers[r].sum >= kLeastSum && powers[r].sum <= kLargestSum) continue;
    const char* row = scores + r * stride;
    if (guessed[r]) {
      wary_ = kWary;
      powers[r] = {0.0, measure(row)};
      take(row, 0, 1, out + r * width, powers + r, nullptr);
    }
    if (powers[r].shift >= kTooLarge) powers[r] = in_double(row, out + r * width);
  }
  for (std::size_t r = 0; r < count; ++r) {
    if (powers[r].sum > 0.0) return learn(powers[r]);
  }
}

void RowSoftmax::take(const char* scores, std::size_t stride, std::size_t count, float* out, RowPower* powers,
                      const PendingRows* pending) const {
  const std::size_t width = padded(columns_), item = kind_ == 0 ? 2 : 4;
  const auto ahead = static_cast<std::ptrdiff_t>(count * stride);
  for (std::size_t begin = 0; begin < columns_; begin += kPiece) {
    const std::size_t some = std::min(kPiece, columns_ - begin);
    for (std::size_t r = 0; r < count; ++r) {
      const char* from = scores + r * stride + begin * item;
      const float shift = std::min(powers[r].shift, kLargestShift);
      float* to = out + r * width + begin;
      powers[r].sum += pending ? kernels_.exchange[kind_](from, offsets_ + begin, some, scale_, shift, ahead, to,
                                                          pending->weights[r], pending->sums + begin)
                               : kernels_.exponentials[kind_](from, offsets_ + begin, some, scale_, shift, ahead, to);
    }
  }
}

// The whole number next to the largest exponent, or kTooLarge; any for rows that have none, whose sums come out as 0.
float RowSoftmax::measure(const void* scores) const {
  const float most = kernels_.largest[kind_](scores, offsets_, columns_, scale_);
  return std::fabs(most) < kLargestShift ? std::nearbyint(most) : kTooLarge;
}

// Scores so large that their float exponents have no digits behind the point.
RowPower RowSoftmax::in_double(const void* scores, float* out) const {
  const float most = kernels_.largest[kind_](scores, offsets_, columns_, scale_);
  std::fill(out, out + padded(columns_), 0.0f);
  if (!(most > -std::numeric_limits<float>::max()) || is_infinite(most)) return {0.0, 0.0f};
  RowPower power{0.0, most};
  for (std::size_t i = 0; i < columns_; ++i) {
    const float score = kind_ == 0 ? half_value(static_cast<const std::uint16_t*>(scores)[i])
                                   : static_cast<const float*>(scores)[i];
    const double exponent = static_cast<double>(score) * scale_ + offsets_[i] - most;
    // `most` was rounded as a float, so the largest of them may be some way off 0.
    out[i] = exponent > -127.0 ? static_cast<float>(std::exp2(std::min(exponent, 100.0))) : 0.0f;
    power.sum += out[i];
  }
  return power;
}

double log_of(const RowPower& power) { return std::log(power.sum) + power.shift * 0.693147180559945309417; }

void for_each_chunk(std::size_t chunks, int threads, std::size_t floats,
                    const std::function<void(std::size_t, float*)>& work) {
  const std::size_t wanted = std::min<std::size_t>(static_cast<std::size_t>(std::max(threads, 1)), chunks);
  constexpr std::align_val_t line{64};
  std::vector<std::unique_ptr<float, void (*)(float*)>> scratch;
  for (std::size_t i = 0; i < std::max<std::size_t>(wanted, 1); ++i) {
    auto* memory = static_cast<float*>(::operator new(sizeof(float) * (floats + kScorePadding), line));
    scratch.emplace_back(memory, [](float* one) { ::operator delete(one, std::align_val_t{64}); });
  }
  std::atomic<std::size_t> next{0};
  std::exception_ptr failure;
  std::mutex lock;
  const auto run = [&](float* own) {
    try {
      for (std::size_t chunk = next++; chunk < chunks; chunk = next++) work(chunk, own);
    } catch (...) {  // no memory
      const std::lock_guard<std::mutex> held(lock);
      failure = std::current_exception();
    }
  };
  // Starting threads takes some 20 us each, where a pass takes milliseconds: a pool would gain nothing.
  std::vector<std::thread> others;
  try {
    while (others.size() + 1 < wanted) others.emplace_back(run, scratch[others.size() + 1].get());
  } catch (...) {  // no more threads to be had: those that there are do the work
  }
  run(scratch[0].get());
  for (std::thread& other : others) other.join();
  if (failure) std::rethrow_exception(failure);
}

void Lowest::offer(std::int64_t number) {
  std::int64_t known = value_.load();
  while (number < known && !value_.compare_exchange_weak(known, number)) {
  }
}

std::int64_t Lowest::value() const {
  const std::int64_t found = value_.load();
  return found == INT64_MAX ? -1 : found;
}

}  // namespace fasttrain
