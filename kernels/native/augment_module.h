#pragma once

#include <pybind11/pybind11.h>

#include "augment_batch.h"

namespace fasttrain {

void bind_augment(pybind11::module_& module);

// Read what Python gives as a program, of so many images.
AugmentBatch augment_batch_of(const pybind11::tuple& program, pybind11::ssize_t images);

}  // namespace fasttrain
