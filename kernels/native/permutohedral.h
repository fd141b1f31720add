// Gaussian filtering of values at scattered points of a few dimensions, by the permutohedral lattice.
//
// Adams, Baek & Davis, "Fast High-Dimensional Filtering Using the Permutohedral Lattice", Eurographics 2010. The plain
// version beside this one (permutohedral_plain.py) gives the same lattice.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace fasttrain {

constexpr std::size_t kLatticeDimensions = 8;  // at most

class Lattice {
 public:
  // Features (points, dimensions), row by row, already divided by the standard deviations of the filter. Throws
  // std::invalid_argument where they lie too far from 0 for a key of 16 bits.
  Lattice(const float* features, std::size_t points, std::size_t dimensions);

  // out[i, c] = sum over j of exp(-|f_i - f_j|^2 / 2) values[j, c], up to a factor that is the same everywhere.
  void filter(const float* values, std::size_t channels, float* out) const;

  std::size_t points() const { return points_; }
  std::size_t vertices() const { return vertices_; }

 private:
  std::size_t points_, corners_, vertices_ = 0;  // corners: of a simplex, one more than there are dimensions
  std::vector<std::uint32_t> places_;            // (points, corners): vertices, counted from 1; 0 is where nothing lies
  std::vector<float> weights_;                   // (points, corners), barycentric
  std::vector<std::uint32_t> next_, previous_;   // (corners, vertices + 1): neighbours along each axis of the lattice
};

}  // namespace fasttrain
