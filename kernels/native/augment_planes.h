// Planes of numbers that patterns are made of. The arithmetic is that of fasttrain/kernels/augment_effects.py.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace fasttrain {

struct Plane {
  int height, width;
  std::vector<double> values;

  Plane(int tall, int wide) : height(tall), width(wide), values(static_cast<std::size_t>(tall) * wide) {}
  double& at(int y, int x) { return values[static_cast<std::size_t>(width) * y + x]; }
  double at(int y, int x) const { return values[static_cast<std::size_t>(width) * y + x]; }
};

// mean + deviation * z, z nearly normal.
Plane normal_plane(int height, int width, double mean, double deviation, std::uint64_t seed, std::uint32_t stream);
// From -reach to reach.
Plane uniform_plane(int height, int width, double reach, std::uint64_t seed, std::uint32_t stream);
// Nearly a Gaussian filter: three extended box blurs an axis, the border repeated.
void smooth(Plane& plane, double sigma);
// A cloud from 0 to 1, by the diamond-square algorithm.
Plane plasma(int height, int width, double decay, std::uint64_t seed, std::uint32_t stream);
// Bilinear; the position lies within the plane.
double look(const Plane& plane, double x, double y);

}  // namespace fasttrain
