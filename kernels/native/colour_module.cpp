#include "colour_module.h"

#include <array>
#include <optional>
#include <string>

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include "colour.h"

namespace py = pybind11;

namespace fasttrain {
namespace {

using Bytes = py::array_t<std::uint8_t, py::array::c_style>;
using Operations = py::array_t<std::int32_t, py::array::c_style | py::array::forcecast>;
using Factors = py::array_t<float, py::array::c_style | py::array::forcecast>;

FloatKind kind_of(const std::string& name) {
  if (name == "float32") return FloatKind::float32;
  if (name == "float16") return FloatKind::float16;
  if (name == "bfloat16") return FloatKind::bfloat16;
  throw py::value_error("images are stored as float32, float16 or bfloat16, not as " + name);
}

template <class Array>
void check_operations(const Array& array, py::ssize_t samples) {
  if (array.ndim() != 2 || array.shape(0) != samples || array.shape(1) != 4) {
    throw py::value_error("operations and factors must be (B, 4)");
  }
}

void finish(const Bytes& pixels, py::array& out, const std::string& dtype, const std::array<float, 3>& scale,
            const std::array<float, 3>& shift, const std::optional<Operations>& operations,
            const std::optional<Factors>& factors, int threads) {
  ColourBatch batch{};
  batch.kind = kind_of(dtype);
  const py::ssize_t item = batch.kind == FloatKind::float32 ? 4 : 2;
  bool fits = pixels.ndim() == 4 && pixels.shape(3) == 3 && out.ndim() == 4 && out.itemsize() == item &&
              (out.flags() & py::array::c_style);
  for (py::ssize_t axis = 0; fits && axis < 4; ++axis) fits = pixels.shape(axis) == out.shape(axis);
  if (!fits) throw py::value_error("pixels and out must be contiguous (B, H, W, 3) arrays of the right item sizes");
  if (operations.has_value() != factors.has_value()) throw py::value_error("operations and factors belong together");
  if (operations) {
    check_operations(*operations, pixels.shape(0));
    check_operations(*factors, pixels.shape(0));
    for (py::ssize_t i = 0; i < operations->size(); ++i) {
      const std::int32_t operation = operations->data()[i];
      if (operation < kBrightness || operation > kNoOperation) throw py::value_error("operations are numbers 0 to 4");
    }
    batch.operations = operations->data();
    batch.factors = factors->data();
  }
  batch.pixels = pixels.data();
  batch.samples = static_cast<std::size_t>(pixels.shape(0));
  batch.pixels_each = static_cast<std::size_t>(pixels.shape(1) * pixels.shape(2));
  std::copy(scale.begin(), scale.end(), batch.scale.scale);
  std::copy(shift.begin(), shift.end(), batch.scale.shift);
  batch.out = out.mutable_data();
  const py::gil_scoped_release unlocked;
  finish_batch(batch, threads);
}

}  // namespace

void bind_colour(py::module_& module) {
  module.def("finish", &finish, py::kw_only(), py::arg("pixels").noconvert(), py::arg("out").noconvert(),
             py::arg("dtype"), py::arg("scale"), py::arg("shift"), py::arg("operations").none(true),
             py::arg("factors").none(true), py::arg("threads"));
}

}  // namespace fasttrain
