#include "permutohedral_module.h"

#include <memory>

#include <pybind11/numpy.h>

#include "permutohedral.h"

namespace py = pybind11;

namespace fasttrain {
namespace {

typedef py::array_t<float> Floats;

void require(bool fits, const char* what) {
  if (!fits) throw py::value_error(what);
}

std::unique_ptr<Lattice> make(const Floats& features) {
  constexpr auto most = static_cast<py::ssize_t>(kLatticeDimensions);
  require(features.ndim() == 2 && features.shape(1) >= 1 && features.shape(1) <= most &&
              (features.flags() & py::array::c_style),
          "features are a contiguous (N, d) array of float32, with at most 8 dimensions");
  const float* const data = features.data();
  const auto points = static_cast<std::size_t>(features.shape(0));
  const auto dimensions = static_cast<std::size_t>(features.shape(1));
  const py::gil_scoped_release unlocked;
  return std::make_unique<Lattice>(data, points, dimensions);
}

void filter(const Lattice& lattice, const Floats& values, Floats& out) {
  require(values.ndim() == 2 && out.ndim() == 2 && (values.flags() & py::array::c_style) &&
              (out.flags() & py::array::c_style) && static_cast<std::size_t>(values.shape(0)) == lattice.points() &&
              out.shape(0) == values.shape(0) && out.shape(1) == values.shape(1),
          "values and out are contiguous (N, C) arrays of float32, of as many rows as there are features");
  const float* const source = values.data();
  float* const target = out.mutable_data();
  const auto channels = static_cast<std::size_t>(values.shape(1));
  const py::gil_scoped_release unlocked;
  lattice.filter(source, channels, target);
}

}  // namespace

void bind_permutohedral(py::module_& module) {
  py::class_<Lattice>(module, "Lattice")
      .def(py::init(&make), py::arg("features").noconvert())
      .def_property_readonly("vertices", &Lattice::vertices)
      .def("filter", &filter, py::kw_only(), py::arg("values").noconvert(), py::arg("out").noconvert());
}

}  // namespace fasttrain
