#pragma once

#include <cstddef>
#include <cstdint>

#include <pybind11/pybind11.h>

namespace fasttrain {

// A contiguous view of any bytes-like object, which must not change meanwhile.
struct BufferView {
  explicit BufferView(const pybind11::buffer& buffer) : info(buffer.request()) {
    if (info.itemsize != 1 || info.ndim != 1 || (info.size > 1 && info.strides[0] != 1)) {
      throw pybind11::value_error("a contiguous buffer of bytes is needed");
    }
  }
  const std::uint8_t* data() const { return static_cast<const std::uint8_t*>(info.ptr); }
  std::size_t size() const { return static_cast<std::size_t>(info.size); }

  pybind11::buffer_info info;
};

}  // namespace fasttrain
