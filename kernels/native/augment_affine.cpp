#include <algorithm>
#include <cmath>
#include <cstring>

#include "augment.h"
#include "augment_kernels.h"

namespace fasttrain {
namespace {

// Output pixels [first, last) of a row whose positions start + step * x lie in [0, limit).
void narrow(double start, double step, double limit, int& first, int& last) {
  const auto inside = [&](int x) {
    const double at = start + step * x;
    return at >= 0.0 && at < limit;
  };
  if (step == 0.0) {
    if (!inside(0)) last = first;
    return;
  }
  const double zero = -start / step, end = (limit - start) / step;
  const double low = std::min(zero, end), high = std::max(zero, end);
  first = static_cast<int>(std::min(std::max(std::floor(low) - 1.0, double(first)), double(last)));
  last = static_cast<int>(std::max(std::min(std::ceil(high) + 2.0, double(last)), double(first)));
  while (first < last && !inside(first)) ++first;
  while (last > first && !inside(last - 1)) --last;
}

}  // namespace

void Augmenter::compose_affine(const float* arguments) {
  Affine next;
  std::copy(arguments, arguments + 6, next.m);
  // A later operation looks into the result of the earlier ones, and only through those into the image.
  for (Affine& before : affine_) {
    const double* b = before.m;
    const double* n = next.m;
    before = {{b[0] * n[0] + b[1] * n[3], b[0] * n[1] + b[1] * n[4], b[0] * n[2] + b[1] * n[5] + b[2],
               b[3] * n[0] + b[4] * n[3], b[3] * n[1] + b[4] * n[4], b[3] * n[2] + b[4] * n[5] + b[5]}};
  }
  affine_.push_back(next);
}

// What of a row shows the image: the look of a pixel must stay within the frame after every one of the operations.
void Augmenter::stretch_of(int y, int& first, int& last) const {
  first = 0;
  last = width_;
  for (const Affine& affine : affine_) {
    const double* m = affine.m;
    narrow(m[0] * 0.5 + m[1] * (y + 0.5) + m[2], m[0], width_, first, last);
    narrow(m[3] * 0.5 + m[4] * (y + 0.5) + m[5], m[3], height_, first, last);
  }
}

void Augmenter::flush_affine() {
  if (affine_.empty()) return;
  if (!alone_) {
    warp(other());
    swap();
  }
  if (masked_) warp_mask();
  affine_.clear();
}

void Augmenter::warp(std::uint8_t* out) {
  const AugmentKernels& kernels = augment_kernels(current_simd());
  const double* m = affine_.front().m;  // which goes all the way
  const std::size_t pitch = std::size_t{3} * width_;
  AffineRow row{image_.data(), width_, height_, 0.0, 0.0, m[0], m[3], 0, 0};
  for (int y = 0; y < height_; ++y) {
    stretch_of(y, row.first, row.last);
    row.x = m[0] * 0.5 + m[1] * (y + 0.5) + m[2] - 0.5;
    row.y = m[3] * 0.5 + m[4] * (y + 0.5) + m[5] - 0.5;
    std::uint8_t* line = out + pitch * y;
    (style_.bilinear ? kernels.bilinear_row : kernels.nearest_row)(row, line);
    for (int x = 0; x < row.first; ++x) std::memcpy(line + 3 * x, style_.fill, 3);
    for (int x = row.last; x < width_; ++x) std::memcpy(line + 3 * x, style_.fill, 3);
  }
}

void Augmenter::warp_mask() {
  if (spare_mask_.size() < count()) spare_mask_.resize(count());
  const double* m = affine_.front().m;
  for (int y = 0; y < height_; ++y) {
    int first, last;
    stretch_of(y, first, last);
    std::uint8_t* line = spare_mask_.data() + std::size_t(width_) * y;
    std::fill(line, line + width_, style_.mask_fill);
    const double at_x = m[0] * 0.5 + m[1] * (y + 0.5) + m[2] - 0.5, at_y = m[3] * 0.5 + m[4] * (y + 0.5) + m[5] - 0.5;
    for (int x = first; x < last; ++x) {
      const int from_x = static_cast<int>(std::max(at_x + m[0] * x + 0.5, 0.0));
      const int from_y = static_cast<int>(std::max(at_y + m[3] * x + 0.5, 0.0));
      const int row = std::min(std::max(from_y, 0), height_ - 1), column = std::min(std::max(from_x, 0), width_ - 1);
      line[x] = mask_[std::size_t(width_) * row + column];
    }
  }
  mask_.swap(spare_mask_);
}

}  // namespace fasttrain
