#pragma once

#include <pybind11/pybind11.h>

namespace fasttrain {

void bind_indexed(pybind11::module_& module);

}  // namespace fasttrain
