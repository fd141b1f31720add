// Tables of 256 values that stand for operations on single values of a channel, as Pillow rounds them.
#pragma once

#include <cstdint>

#include "augment.h"

namespace fasttrain {

// Fill the table of an operation that needs no look at the image; false for any other operation.
bool fill_table(AugmentOp operation, const float* arguments, std::uint8_t (&table)[3][256]);

// value + factor away from `other`: 0 is `other`, 1 leaves values alone.
void blend_table(int other, float factor, std::uint8_t (&table)[3][256]);

// Of one channel's histogram.
void equalize_table(const std::uint32_t (&counts)[256], std::uint8_t (&table)[256]);
void autocontrast_table(const std::uint32_t (&counts)[256], std::uint8_t (&table)[256]);

}  // namespace fasttrain
