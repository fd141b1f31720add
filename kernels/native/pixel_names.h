// The names by which Python asks for kinds of pixels and filters.
#pragma once

#include <string>

#include <pybind11/pybind11.h>

#include "resample_axis.h"
#include "resample_kernels.h"

namespace fasttrain {

inline Pixel pixel_of(const std::string& name) {
  if (name == "uint8") return Pixel::uint8;
  if (name == "float32") return Pixel::float32;
  if (name == "float16") return Pixel::float16;
  if (name == "bfloat16") return Pixel::bfloat16;
  throw pybind11::value_error("pixels are stored as uint8, float32, float16 or bfloat16, not as " + name);
}

inline Filter filter_of(const std::string& name) {
  if (name == "bilinear") return Filter::bilinear;
  if (name == "bicubic") return Filter::bicubic;
  throw pybind11::value_error("the filter is bilinear or bicubic, not " + name);
}

}  // namespace fasttrain
