// The device stage's part of the extension module.
#pragma once

#include <pybind11/pybind11.h>

namespace fasttrain {

void bind_colour(pybind11::module_& module);

}  // namespace fasttrain
