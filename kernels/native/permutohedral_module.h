// The part of the extension module that is about the permutohedral lattice.
#pragma once

#include <pybind11/pybind11.h>

namespace fasttrain {

void bind_permutohedral(pybind11::module_& module);

}  // namespace fasttrain
