#pragma once

#include <pybind11/pybind11.h>

#include "buffer_view.h"
#include "scan_index.h"

namespace fasttrain {

// The entries of an index that was made of this stream, (entries,) uint64; None if it has none that can be used.
pybind11::object entries_of(const ScanIndex& index, const BufferView& view);

void bind_indexed(pybind11::module_& module);

}  // namespace fasttrain
