// What stages of loading are held against, measured on this machine.
#pragma once

#include <cstddef>
#include <cstdint>

#include "simd.h"

namespace fasttrain {

// Multiply-adds of floats a nanosecond, on registers alone, with the widest vectors of an instruction set.
double peak_multiply_adds(Simd level);

// libjpeg-turbo's entropy decoding of a whole stream; the coefficients are kept, as its interface has it.
void decode_entropy(const std::uint8_t* data, std::size_t size);

// libjpeg-turbo's reading of a header, and what has to be set up for it.
void decode_header(const std::uint8_t* data, std::size_t size);

// libjpeg-turbo's decoding of a whole stream to RGB, with its defaults, into a few rows that are used again.
void decode_all(const std::uint8_t* data, std::size_t size);

}  // namespace fasttrain
