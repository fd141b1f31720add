#include "winograd_module.h"

#include <pybind11/numpy.h>

#include "winograd.h"

namespace py = pybind11;

namespace fasttrain {
namespace {

typedef py::array_t<float> Floats;

void require(bool fits) {
  if (!fits) throw py::value_error("images are contiguous (N, H, W, C) arrays, and weights (K, C, 3, 3), of float32");
}

// Images of `channels` channels, as many as the batch has.
void require_images(const Floats& images, const ImageBatch& batch, std::size_t channels) {
  require(images.ndim() == 4 && (images.flags() & py::array::c_style));
  const std::size_t wanted[4] = {batch.images, batch.height, batch.width, channels};
  for (int i = 0; i < 4; ++i) require(static_cast<std::size_t>(images.shape(i)) == wanted[i]);
}

ImageBatch batch_of(const Floats& images) {
  require(images.ndim() == 4);
  for (int i = 0; i < 4; ++i) require(images.shape(i) > 0);
  return {static_cast<std::size_t>(images.shape(0)), static_cast<std::size_t>(images.shape(1)),
          static_cast<std::size_t>(images.shape(2))};
}

template <class Value>
Filters<Value> filters_of(const Floats& weights, Value* data) {
  require(weights.ndim() == 4 && weights.shape(2) == 3 && weights.shape(3) == 3);
  std::ptrdiff_t steps[4];
  for (int i = 0; i < 4; ++i) {
    steps[i] = weights.strides(i) / static_cast<py::ssize_t>(sizeof(float));
    require(steps[i] * static_cast<py::ssize_t>(sizeof(float)) == weights.strides(i));
  }
  return {data,
          static_cast<std::size_t>(weights.shape(0)),
          static_cast<std::size_t>(weights.shape(1)),
          {steps[0], steps[1], steps[2], steps[3]}};
}

void convolve(const Floats& images, const Floats& weights, Floats& out, int threads) {
  const ImageBatch batch = batch_of(images);
  const auto filters = filters_of(weights, weights.data());
  require_images(images, batch, filters.inputs);
  require_images(out, batch, filters.outputs);
  float* const target = out.mutable_data();
  const float* const source = images.data();
  const py::gil_scoped_release unlocked;
  winograd_convolve(batch, source, filters, target, threads);
}

void weight_gradient(const Floats& images, const Floats& gradients, Floats& out, int threads) {
  const ImageBatch batch = batch_of(images);
  const auto filters = filters_of(out, out.mutable_data());
  require_images(images, batch, filters.inputs);
  require_images(gradients, batch, filters.outputs);
  const float *const source = images.data(), *const slopes = gradients.data();
  const py::gil_scoped_release unlocked;
  winograd_weight_gradient(batch, source, slopes, filters, threads);
}

}  // namespace

void bind_winograd(py::module_& module) {
  module.def("winograd_convolve", &convolve, py::kw_only(), py::arg("images").noconvert(),
             py::arg("weights").noconvert(), py::arg("out").noconvert(), py::arg("threads"));
  module.def("winograd_weight_gradient", &weight_gradient, py::kw_only(), py::arg("images").noconvert(),
             py::arg("gradients").noconvert(), py::arg("out").noconvert(), py::arg("threads"));
}

}  // namespace fasttrain
