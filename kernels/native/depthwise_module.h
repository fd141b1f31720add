// The part of the extension module that is about depthwise convolutions.
#pragma once

#include <pybind11/pybind11.h>

namespace fasttrain {

void bind_depthwise(pybind11::module_& module);

}  // namespace fasttrain
