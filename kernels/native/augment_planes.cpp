#include "augment_planes.h"

#include <algorithm>
#include <cmath>

#include "augment_random.h"

namespace fasttrain {

Plane normal_plane(int height, int width, double mean, double deviation, std::uint64_t seed, std::uint32_t stream) {
  Plane plane(height, width);
  for (std::size_t i = 0; i < plane.values.size(); ++i) {
    plane.values[i] = mean + deviation * normal_of(random_bits(seed, stream, static_cast<std::uint32_t>(i)));
  }
  return plane;
}

Plane uniform_plane(int height, int width, double reach, std::uint64_t seed, std::uint32_t stream) {
  Plane plane(height, width);
  for (std::size_t i = 0; i < plane.values.size(); ++i) {
    plane.values[i] = (2.0 * uniform_of(random_bits(seed, stream, static_cast<std::uint32_t>(i))) - 1.0) * reach;
  }
  return plane;
}

void smooth(Plane& plane, double sigma) {
  const double variance = sigma * sigma / 3.0;
  const int whole = static_cast<int>(std::floor((std::sqrt(12.0 * variance + 1.0) - 1.0) / 2.0));
  const double part = (2 * whole + 1) * (double(whole) * (whole + 1) - 3 * variance) /
                      (6 * (variance - double(whole + 1) * (whole + 1)));
  const double weight = 1.0 / (2 * (whole + part) + 1);
  std::vector<double> line, sums;
  const auto blur = [&](std::size_t first, std::size_t step, int length) {
    double* at = plane.values.data() + first;
    const int padded = length + 2 * whole + 2;
    line.resize(padded);
    sums.resize(static_cast<std::size_t>(padded) + 1);
    for (int pass = 0; pass < 3; ++pass) {
      for (int i = 0; i < padded; ++i) line[i] = at[step * std::min(std::max(i - whole - 1, 0), length - 1)];
      sums[0] = 0.0;
      for (int i = 0; i < padded; ++i) sums[i + 1] = sums[i] + line[i];
      for (int i = 0; i < length; ++i) {
        const double total = sums[2 * whole + 2 + i] - sums[1 + i], ends = line[i] + line[2 * whole + 2 + i];
        at[step * i] = (total + part * ends) * weight;
      }
    }
  };
  const auto wide = static_cast<std::size_t>(plane.width);
  for (int y = 0; y < plane.height; ++y) blur(wide * y, 1, plane.width);
  for (int x = 0; x < plane.width; ++x) blur(x, wide, plane.height);
}

Plane plasma(int height, int width, double decay, std::uint64_t seed, std::uint32_t stream) {
  int size = 2;
  while (size < std::max(height, width)) size *= 2;
  Plane cloud(size, size);
  const int last = size - 1;
  const auto set = [&](int y, int x, double sum, double reach) {
    const std::uint32_t bits = random_bits(seed, stream, static_cast<std::uint32_t>(y) * size + x);
    cloud.at(y, x) = sum / 4 + reach * reach * (2.0 * uniform_of(bits) - 1.0);
  };
  double reach = 100.0;
  for (int step = size; step >= 2; step /= 2, reach /= decay) {
    const int half = step / 2;
    for (int y = half; y < size; y += step) {
      for (int x = half; x < size; x += step) {
        const int down = (y + half) & last, right = (x + half) & last;
        const double left_two = cloud.at(y - half, x - half) + cloud.at(down, x - half);
        set(y, x, left_two + (cloud.at(y - half, right) + cloud.at(down, right)), reach);
      }
    }
    for (int y = 0; y < size; y += step) {
      for (int x = half; x < size; x += step) {
        const double centres = cloud.at(y + half, x) + cloud.at((y - half + size) & last, x);
        set(y, x, centres + cloud.at(y, x - half) + cloud.at(y, (x + half) & last), reach);
      }
    }
    for (int y = half; y < size; y += step) {
      for (int x = 0; x < size; x += step) {
        const double centres = cloud.at(y, x + half) + cloud.at(y, (x - half + size) & last);
        set(y, x, centres + cloud.at(y - half, x) + cloud.at((y + half) & last, x), reach);
      }
    }
  }
  const auto [least, most] = std::minmax_element(cloud.values.begin(), cloud.values.end());
  const double low = *least, extent = std::max(*most - low, 1e-12);
  Plane result(height, width);
  for (int y = 0; y < height; ++y) {
    for (int x = 0; x < width; ++x) result.at(y, x) = (cloud.at(y, x) - low) / extent;
  }
  return result;
}

double look(const Plane& plane, double x, double y) {
  const int left = std::min(static_cast<int>(x), plane.width - 1), top = std::min(static_cast<int>(y), plane.height - 1);
  const int right = std::min(left + 1, plane.width - 1), bottom = std::min(top + 1, plane.height - 1);
  const double across = x - left, down = y - top;
  const double upper = plane.at(top, left) + (plane.at(top, right) - plane.at(top, left)) * across;
  const double lower = plane.at(bottom, left) + (plane.at(bottom, right) - plane.at(bottom, left)) * across;
  return upper + (lower - upper) * down;
}

}  // namespace fasttrain
