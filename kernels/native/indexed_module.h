#pragma once

#include <pybind11/pybind11.h>

#include "scan_index.h"

namespace fasttrain {

// The entries of an index, (entries,) uint64; None if it is not complete.
pybind11::object entries_of(const ScanIndex& index);

void bind_indexed(pybind11::module_& module);

}  // namespace fasttrain
