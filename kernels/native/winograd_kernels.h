// The inner loops of Winograd convolutions. One source (winograd_kernels.inc) is compiled for each instruction set.
#pragma once

#include <cstddef>

#include "simd.h"

namespace fasttrain {

// Points at which the polynomials of a tile are taken: 0, 1, -1, 2, -2 and infinity, in this order.
constexpr int kPoints = 6;
constexpr int kMostOutputs = 4;  // of a tile, each way

// A tile has 1 to 4 outputs each way, m of them need m + 2 points: these. The last tile of a row or column makes as many
// outputs as are left, so nothing is computed that lies outside of the image.
constexpr int kPointsOf[kMostOutputs + 1][kPoints] = {
    {}, {0, 1, 5}, {0, 1, 2, 5}, {0, 1, 2, 3, 5}, {0, 1, 2, 3, 4, 5},
};

// Outputs of a tile, each way.
struct TileShape {
  int rows, columns;
};

// Distances between values of weights (outputs, inputs, 3, 3).
struct Steps {
  std::ptrdiff_t output, input, down, right;
};

// Rows (of `channels` floats) by places of a tile, in rows of kPoints for points and inputs, of kMostOutputs for outputs.
// Only those are there that the tile's shape has; points are counted as in kPointsOf. Rows at points may be written, and
// are readable, up to the next multiple of the width.
struct WinogradKernels {
  int width;    // floats of a vector
  int columns;  // of a packed panel: twice as many
  // V = B^T d B, of (rows + 2) x (columns + 2) inputs.
  void (*input_tile)(const float* const* inputs, float* const* points, TileShape shape, std::size_t channels);
  // Z = A y A^T, of rows x columns gradients of outputs.
  void (*gradient_tile)(const float* const* gradients, float* const* points, TileShape shape, std::size_t channels);
  // y = A^T M A.
  void (*output_tile)(const float* const* points, float* const* outputs, TileShape shape, std::size_t channels);
  // U = G g G^T of the first `outputs` of a panel and all inputs: g[i][j] of output k and input c lies at
  // `from + k * output + c * input + i * down + j * right`, U at `to + point * point_stride` as (inputs, columns).
  void (*weights)(const float* from, const Steps& steps, std::size_t outputs, std::size_t inputs, float* to,
                  std::size_t point_stride);
  // g = G^T U G of some inputs, where U is (inputs, outputs) at each point, in rows that lie `stride` apart.
  void (*weight_gradient)(const float* from, std::size_t point_stride, std::size_t stride, std::size_t inputs,
                          std::size_t outputs, float* to, const Steps& steps);
  // out (rows, outputs) = v (rows, inputs) u, where u lies in panels of (inputs, columns).
  void (*multiply)(const float* v, std::size_t v_stride, std::size_t rows, std::size_t inputs, const float* u,
                   std::size_t outputs, float* out, std::size_t out_stride);
  // out (inputs, outputs) = v (rows, inputs)^T z (rows, outputs), added to what is there unless it `begins`.
  void (*add_products)(const float* v, std::size_t v_stride, const float* z, std::size_t z_stride, std::size_t rows,
                       std::size_t inputs, std::size_t outputs, float* out, std::size_t out_stride, bool begins);
};

const WinogradKernels& winograd_kernels(Simd level);

extern const WinogradKernels kPortableWinograd;
#if defined(__x86_64__)
extern const WinogradKernels kAvx2Winograd;
extern const WinogradKernels kAvx512Winograd;
#endif

}  // namespace fasttrain
