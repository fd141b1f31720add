// The part of the extension module that is about score matrices.
#pragma once

#include <pybind11/pybind11.h>

namespace fasttrain {

void bind_scores(pybind11::module_& module);

}  // namespace fasttrain
