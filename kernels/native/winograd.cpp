#include "winograd.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <new>
#include <vector>

#include "team.h"
#include "winograd_kernels.h"

namespace fasttrain {
namespace {

constexpr std::size_t kLine = 16;  // floats of a cache line
constexpr int kAllPoints = kPoints * kPoints;
constexpr std::size_t kLeastTiles = 24, kMostTiles = 96;     // of a block that one thread works on
constexpr std::size_t kFewTiles = 12, kBlocksOfThread = 2;   // of small batches, so that all threads have work
constexpr std::size_t kSharedTiles = 96;                     // of a block that all threads work on
constexpr std::size_t kTilesAtOnce = 2, kInputsAtOnce = 48;  // that a thread takes of the latter
constexpr std::size_t kWeightFloats = std::size_t{5} << 20;  // at their points, at a time: what level 3 holds
constexpr std::size_t kPartialFloats = std::size_t{5} << 21;  // of all sums of parts of a batch together
constexpr std::size_t kLeastParts = 4, kMostParts = 16, kTilesOfPart = 192;
constexpr std::size_t kAddedAtOnce = 8192;

// Memory that a thread keeps from call to call: fresh pages would cost more than some of the steps.
class Scratch {
 public:
  float* floats(std::size_t count) {
    if (count > size_) {
      size_ = 0;
      memory_.reset();
      memory_.reset(static_cast<float*>(::operator new(count * sizeof(float), std::align_val_t{64})));
      size_ = count;
    }
    return memory_.get();
  }

 private:
  struct Free {
    void operator()(float* memory) const { ::operator delete(memory, std::align_val_t{64}); }
  };
  std::unique_ptr<float, Free> memory_;
  std::size_t size_ = 0;
};

Scratch& block_scratch() {
  thread_local Scratch scratch;
  return scratch;
}

Scratch& weight_scratch() {
  thread_local Scratch scratch;
  return scratch;
}

// Floats between rows: an odd number of cache lines, so that rows do not fight for the same places of a cache.
std::size_t row_stride(std::size_t channels) { return (channels + kLine - 1) / kLine / 2 * 2 * kLine + kLine; }

// Where the rows of a block's tiles lie at each of their points, and how many there are: a point that a tile's shape
// lacks has no row for it.
struct Tile {
  std::size_t image, y, x;  // of the first output
  TileShape shape;
  std::size_t row[2][2];  // by whether the point is one that the shape at the lower or the right edge lacks
};

class Grid {
 public:
  explicit Grid(const ImageBatch& batch) : batch_(batch) {
    down_ = (batch.height + kMostOutputs - 1) / kMostOutputs;
    across_ = (batch.width + kMostOutputs - 1) / kMostOutputs;
    last_ = {static_cast<int>(batch.height - (down_ - 1) * kMostOutputs),
             static_cast<int>(batch.width - (across_ - 1) * kMostOutputs)};
    find_lacking(last_.rows, lacks_down_);
    find_lacking(last_.columns, lacks_right_);
  }

  std::size_t of_image() const { return down_ * across_; }
  std::size_t tiles() const { return of_image() * batch_.images; }
  const ImageBatch& batch() const { return batch_; }

  bool lacks_down(int point) const { return lacks_down_[point]; }
  bool lacks_right(int point) const { return lacks_right_[point]; }

  // The tiles from `first` on; rows[a][b] becomes the number of rows at points of each kind.
  void list(std::size_t first, std::size_t count, std::vector<Tile>& tiles, std::size_t (&rows)[2][2]) const {
    tiles.resize(count);
    std::memset(rows, 0, sizeof rows);
    for (std::size_t i = 0; i < count; ++i) {
      const std::size_t number = first + i, place = number % of_image();
      const std::size_t y = place / across_, x = place % across_;
      const bool at_bottom = y + 1 == down_, at_right = x + 1 == across_;
      Tile& tile = tiles[i];
      tile.image = number / of_image();
      tile.y = y * kMostOutputs;
      tile.x = x * kMostOutputs;
      tile.shape = {at_bottom ? last_.rows : kMostOutputs, at_right ? last_.columns : kMostOutputs};
      for (int a = 0; a < 2; ++a) {
        for (int b = 0; b < 2; ++b) {
          tile.row[a][b] = rows[a][b];
          if (!(a && at_bottom) && !(b && at_right)) ++rows[a][b];
        }
      }
    }
  }

 private:
  static void find_lacking(int outputs, bool (&lacking)[kPoints]) {
    std::fill(lacking, lacking + kPoints, true);
    for (int i = 0; i < outputs + 2; ++i) lacking[kPointsOf[outputs][i]] = false;
  }

  ImageBatch batch_;
  std::size_t down_, across_;
  TileShape last_;
  bool lacks_down_[kPoints], lacks_right_[kPoints];
};

// A block's rows at all points.
struct Points {
  float* data;
  std::size_t stride, point_stride;  // of rows, of points

  static std::size_t floats(std::size_t channels, std::size_t tiles) { return kAllPoints * per_point(channels, tiles); }
  static Points at(float* data, std::size_t channels, std::size_t tiles) {
    return {data, row_stride(channels), per_point(channels, tiles)};
  }

  float* point(int number) const { return data + static_cast<std::size_t>(number) * point_stride; }

  // Addresses of a tile's rows, counted as in kPointsOf.
  void rows(const Grid& grid, const Tile& tile, float** out) const {
    for (int i = 0; i < tile.shape.rows + 2; ++i) {
      const int p = kPointsOf[tile.shape.rows][i];
      for (int j = 0; j < tile.shape.columns + 2; ++j) {
        const int q = kPointsOf[tile.shape.columns][j];
        const std::size_t row = tile.row[grid.lacks_down(p)][grid.lacks_right(q)];
        out[i * kPoints + j] = point(p * kPoints + q) + row * stride;
      }
    }
  }

 private:
  static std::size_t per_point(std::size_t channels, std::size_t tiles) { return tiles * row_stride(channels) + kLine; }
};

std::size_t rows_at(const Grid& grid, const std::size_t (&rows)[2][2], int point) {
  return rows[grid.lacks_down(point / kPoints)][grid.lacks_right(point % kPoints)];
}

// Addresses of a tile's inputs, those of the padding being `zeros`.
void input_rows(const Grid& grid, const Tile& tile, const float* images, std::size_t channels, const float* zeros,
                const float** out) {
  const ImageBatch& batch = grid.batch();
  for (int i = 0; i < tile.shape.rows + 2; ++i) {
    const std::size_t y = tile.y + static_cast<std::size_t>(i) - 1;  // -1 wraps, and is outside like all that is too large
    for (int j = 0; j < tile.shape.columns + 2; ++j) {
      const std::size_t x = tile.x + static_cast<std::size_t>(j) - 1;
      const bool inside = y < batch.height && x < batch.width;
      const std::size_t pixel = (tile.image * batch.height + y) * batch.width + x;
      out[i * kPoints + j] = inside ? images + pixel * channels : zeros;
    }
  }
}

template <class Value>
void output_rows(const Grid& grid, const Tile& tile, Value* images, std::size_t channels, Value** out) {
  const ImageBatch& batch = grid.batch();
  for (int i = 0; i < tile.shape.rows; ++i) {
    const std::size_t y = tile.y + static_cast<std::size_t>(i);
    Value* row = images + ((tile.image * batch.height + y) * batch.width + tile.x) * channels;
    for (int j = 0; j < tile.shape.columns; ++j) out[i * kMostOutputs + j] = row + static_cast<std::size_t>(j) * channels;
  }
}

// A block reads the weights at all points, inputs * outputs, and each of its tiles writes and reads inputs + outputs there:
// with more channels the larger block pays, which then lies in level 3.
std::size_t tiles_of_block(std::size_t inputs, std::size_t outputs) {
  return std::clamp(inputs * outputs / (inputs + outputs) * 3 / 4 / 6 * 6, kLeastTiles, kMostTiles);
}

void transform_input(const WinogradKernels& kernels, const Grid& grid, const Tile& tile, const float* images,
                     std::size_t channels, const float* zeros, const Points& to) {
  const float* inputs[kAllPoints];
  float* rows[kAllPoints];
  input_rows(grid, tile, images, channels, zeros, inputs);
  to.rows(grid, tile, rows);
  kernels.input_tile(inputs, rows, tile.shape, channels);
}

void transform_gradient(const WinogradKernels& kernels, const Grid& grid, const Tile& tile, const float* gradients,
                        std::size_t channels, const Points& to) {
  const float* outputs[kMostOutputs * kMostOutputs];
  float* rows[kAllPoints];
  output_rows(grid, tile, gradients, channels, outputs);
  to.rows(grid, tile, rows);
  kernels.gradient_tile(outputs, rows, tile.shape, channels);
}

void transform_output(const WinogradKernels& kernels, const Grid& grid, const Tile& tile, const Points& from,
                      float* images, std::size_t all_channels, std::size_t channels) {
  float *rows[kAllPoints], *outputs[kMostOutputs * kMostOutputs];
  from.rows(grid, tile, rows);
  output_rows(grid, tile, images, all_channels, outputs);
  kernels.output_tile(rows, outputs, tile.shape, channels);
}

// Sums of products at all points: for each of them (inputs, outputs), in rows `stride` apart.
struct Sums {
  std::size_t inputs, outputs, stride, point_stride;

  Sums(std::size_t inputs_, std::size_t outputs_) : inputs(inputs_), outputs(outputs_) {
    stride = (outputs + kLine - 1) / kLine * kLine;
    point_stride = inputs * stride + kLine;
  }
  std::size_t floats() const { return kAllPoints * point_stride; }
};

// Into how many parts a batch is taken, each with sums of its own: threads then need not wait for each other, as they must
// within each block where sums are so large that there is room for one.
std::size_t parts_of(std::size_t sum_floats, std::size_t tiles) {
  const std::size_t most = std::min({kPartialFloats / sum_floats, tiles / kTilesOfPart, kMostParts});
  std::size_t parts = kLeastParts;
  while (2 * parts <= most) parts *= 2;
  return parts <= most ? parts : 1;
}

// The sums over tiles from `first` on, before `last`, in blocks of `size`.
void sum_products(const WinogradKernels& kernels, const Grid& grid, std::size_t first, std::size_t last,
                  std::size_t size, const float* images, const float* gradients, const float* zeros, const Sums& sums,
                  float* out, int threads) {
  const std::size_t inputs = sums.inputs, outputs = sums.outputs, v_floats = Points::floats(inputs, size);
  float* const memory = block_scratch().floats(v_floats + Points::floats(outputs, size));
  const Points v = Points::at(memory, inputs, size), z = Points::at(memory + v_floats, outputs, size);
  std::vector<Tile> tiles;
  const std::size_t pieces = (inputs + kInputsAtOnce - 1) / kInputsAtOnce;
  for (std::size_t start = first; start < last; start += size) {
    std::size_t rows[2][2];
    grid.list(start, std::min(size, last - start), tiles, rows);
    on_team((tiles.size() + kTilesAtOnce - 1) / kTilesAtOnce, threads, [&](std::size_t job) {
      const std::size_t end = std::min(tiles.size(), (job + 1) * kTilesAtOnce);
      for (std::size_t i = job * kTilesAtOnce; i < end; ++i) {
        transform_input(kernels, grid, tiles[i], images, inputs, zeros, v);
        transform_gradient(kernels, grid, tiles[i], gradients, outputs, z);
      }
    });
    on_team(kAllPoints * pieces, threads, [&](std::size_t job) {
      const int point = static_cast<int>(job / pieces);
      const std::size_t c = job % pieces * kInputsAtOnce;
      kernels.add_products(v.point(point) + c, v.stride, z.point(point), z.stride, rows_at(grid, rows, point),
                           std::min(kInputsAtOnce, inputs - c), outputs,
                           out + static_cast<std::size_t>(point) * sums.point_stride + c * sums.stride, sums.stride,
                           start == first);
    });
  }
}

// Adds the sums of the other parts to those of the first.
void add_parts(float* sums, std::size_t floats, std::size_t parts, int threads) {
  on_team((floats + kAddedAtOnce - 1) / kAddedAtOnce, threads, [&](std::size_t job) {
    const std::size_t first = job * kAddedAtOnce, last = std::min(floats, first + kAddedAtOnce);
    for (std::size_t part = 1; part < parts; ++part) {
      const float* other = sums + part * floats;
      for (std::size_t i = first; i < last; ++i) sums[i] += other[i];
    }
  });
}

}  // namespace

void winograd_convolve(const ImageBatch& batch, const float* images, const Filters<const float>& weights, float* out,
                       int threads) {
  const WinogradKernels& kernels = winograd_kernels(current_simd());
  const Grid grid(batch);
  const std::size_t inputs = weights.inputs;
  const auto columns = static_cast<std::size_t>(kernels.columns);
  const std::size_t panel_floats = inputs * columns, all_panels = (weights.outputs + columns - 1) / columns;
  const std::size_t pieces = (kAllPoints * panel_floats * all_panels + kWeightFloats - 1) / kWeightFloats;
  const std::size_t step = (all_panels + pieces - 1) / pieces * columns;  // outputs at a time
  const std::size_t blocks = kBlocksOfThread * static_cast<std::size_t>(std::max(threads, 1));
  const std::size_t size = std::min(tiles_of_block(inputs, weights.outputs),
                                    std::max(kFewTiles, ((grid.tiles() + blocks - 1) / blocks + 5) / 6 * 6));
  const std::vector<float> zeros(inputs);
  for (std::size_t k = 0; k < weights.outputs; k += step) {
    const std::size_t outputs = std::min(step, weights.outputs - k);
    const std::size_t panels = (outputs + columns - 1) / columns, point_stride = panels * panel_floats + kLine;
    float* const u = weight_scratch().floats(kAllPoints * point_stride);
    on_team(panels, threads, [&](std::size_t panel) {
      const std::size_t first = panel * columns;
      const float* from = weights.data + static_cast<std::ptrdiff_t>(k + first) * weights.steps.output;
      kernels.weights(from, weights.steps, std::min(columns, outputs - first), inputs, u + panel * panel_floats,
                      point_stride);
    });
    on_team((grid.tiles() + size - 1) / size, threads, [&](std::size_t job) {
      thread_local std::vector<Tile> tiles;
      std::size_t rows[2][2];
      grid.list(job * size, std::min(size, grid.tiles() - job * size), tiles, rows);
      const std::size_t v_floats = Points::floats(inputs, size);
      float* const memory = block_scratch().floats(v_floats + Points::floats(outputs, size));
      const Points v = Points::at(memory, inputs, size), m = Points::at(memory + v_floats, outputs, size);
      for (const Tile& tile : tiles) transform_input(kernels, grid, tile, images, inputs, zeros.data(), v);
      for (int point = 0; point < kAllPoints; ++point) {
        kernels.multiply(v.point(point), v.stride, rows_at(grid, rows, point), inputs,
                         u + static_cast<std::size_t>(point) * point_stride, outputs, m.point(point), m.stride);
      }
      for (const Tile& tile : tiles) transform_output(kernels, grid, tile, m, out + k, weights.outputs, outputs);
    });
  }
}

void winograd_weight_gradient(const ImageBatch& batch, const float* images, const float* gradients,
                              const Filters<float>& out, int threads) {
  const WinogradKernels& kernels = winograd_kernels(current_simd());
  const Grid grid(batch);
  const Sums layout(out.inputs, out.outputs);
  const std::vector<float> zeros(out.inputs);
  const std::size_t tiles = grid.tiles(), parts = parts_of(layout.floats(), tiles);
  float* const sums = weight_scratch().floats(parts * layout.floats());
  if (parts == 1) {
    sum_products(kernels, grid, 0, tiles, kSharedTiles, images, gradients, zeros.data(), layout, sums, threads);
  } else {
    on_team(parts, threads, [&](std::size_t part) {
      const std::size_t first = part * tiles / parts, last = (part + 1) * tiles / parts;
      sum_products(kernels, grid, first, last, tiles_of_block(out.inputs, out.outputs), images, gradients,
                   zeros.data(), layout, sums + part * layout.floats(), 1);
    });
    add_parts(sums, layout.floats(), parts, threads);
  }
  constexpr std::size_t kAtOnce = 8;
  on_team((out.inputs + kAtOnce - 1) / kAtOnce, threads, [&](std::size_t job) {
    const std::size_t c = job * kAtOnce;
    kernels.weight_gradient(sums + c * layout.stride, layout.point_stride, layout.stride,
                            std::min(kAtOnce, out.inputs - c), out.outputs,
                            out.data + static_cast<std::ptrdiff_t>(c) * out.steps.input, out.steps);
  });
}

}  // namespace fasttrain
