#include "depthwise_module.h"

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <optional>
#include <utility>

#include "depthwise.h"

namespace py = pybind11;

namespace fasttrain {
namespace {

typedef py::array_t<float> Floats;
typedef std::pair<std::size_t, std::size_t> Pair;  // down, across

void require(bool fits) {
  if (!fits) {
    throw py::value_error("images are contiguous (N, H, W, C) arrays, and weights (height, width, C), of float32, "
                          "whose sides fit stride and padding");
  }
}

std::size_t side(const Floats& array, int number) { return static_cast<std::size_t>(array.shape(number)); }

void require_array(const Floats& array, int dimensions) {
  require(array.ndim() == dimensions && (array.flags() & py::array::c_style) && array.size() > 0);
}

Side side_of(const Floats& images, const Floats& gradients, const Floats& weights, int number, std::size_t stride,
             std::size_t padding) {
  const Side found{side(images, number + 1), side(gradients, number + 1), side(weights, number), stride, padding};
  require(stride > 0 && padding < found.kernel && found.inputs + 2 * padding >= found.kernel &&
          found.outputs == (found.inputs + 2 * padding - found.kernel) / stride + 1);
  return found;
}

// `images` are those that went in, or the array for their gradients: both tell the shape.
DepthwiseShape shape_of(const Floats& images, const Floats& gradients, const Floats& weights, Pair stride,
                        Pair padding) {
  require_array(images, 4);
  require_array(gradients, 4);
  require_array(weights, 3);
  require(side(images, 0) == side(gradients, 0) && side(images, 3) == side(gradients, 3) &&
          side(images, 3) == side(weights, 2));
  return {side(images, 0), side(images, 3),
          side_of(images, gradients, weights, 0, stride.first, padding.first),
          side_of(images, gradients, weights, 1, stride.second, padding.second)};
}

void gradients_of(const Floats& images, const Floats& gradients, const Floats& weights, std::optional<Floats> by_images,
                  std::optional<Floats> by_weights, Pair stride, Pair padding, int threads) {
  const DepthwiseShape shape = shape_of(images, gradients, weights, stride, padding);
  float* outs[2] = {nullptr, nullptr};
  if (by_images) {
    shape_of(*by_images, gradients, weights, stride, padding);
    require(side(*by_images, 1) == shape.down.inputs && side(*by_images, 2) == shape.across.inputs);
    outs[0] = by_images->mutable_data();
  }
  if (by_weights) {
    shape_of(images, gradients, *by_weights, stride, padding);
    require(side(*by_weights, 0) == shape.down.kernel && side(*by_weights, 1) == shape.across.kernel);
    outs[1] = by_weights->mutable_data();
  }
  const float *const source = images.data(), *const slopes = gradients.data(), *const factors = weights.data();
  const py::gil_scoped_release unlocked;
  depthwise_gradients(shape, source, slopes, factors, outs[0], outs[1], threads);
}

}  // namespace

void bind_depthwise(py::module_& module) {
  module.def("depthwise_gradients", &gradients_of, py::kw_only(), py::arg("images").noconvert(),
             py::arg("gradients").noconvert(), py::arg("weights").noconvert(), py::arg("by_images").noconvert(),
             py::arg("by_weights").noconvert(), py::arg("stride"), py::arg("padding"), py::arg("threads"));
}

}  // namespace fasttrain
