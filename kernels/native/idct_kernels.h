// Inverse DCT of quantised blocks into samples, to the bit as libjpeg's accurate integer method ("islow") has it, or at a
// half, a quarter or an eighth of the size as its reduced versions (jidctred.c) do.
#pragma once

#include <cstddef>
#include <cstdint>

#include "simd.h"

namespace fasttrain {

constexpr int kMaxBlocksAtOnce = 8;

// `count` blocks side by side, whose rows of samples go to `out` and `pitch` bytes further each. Up to
// kMaxBlocksAtOnce - 1 blocks more are read and written, which have to be zero. The blocks are zeroed. `quantisation` is in
// natural order, as the blocks are; `extents` tells the zigzag number of each block's last coefficient.
using Idct = void (*)(std::int16_t* blocks, std::uint8_t* extents, int count, const std::int16_t* quantisation,
                      std::uint8_t* out, std::size_t pitch);

// `side` is that of a block of samples: 8, 4, 2 or 1.
Idct idct_kernel(Simd level, int side = 8);

void idct_portable(std::int16_t* blocks, std::uint8_t* extents, int count, const std::int16_t* quantisation,
                   std::uint8_t* out, std::size_t pitch);
void idct_half_portable(std::int16_t* blocks, std::uint8_t* extents, int count, const std::int16_t* quantisation,
                        std::uint8_t* out, std::size_t pitch);
#if defined(__x86_64__)
void idct_avx2(std::int16_t* blocks, std::uint8_t* extents, int count, const std::int16_t* quantisation,
               std::uint8_t* out, std::size_t pitch);
void idct_half_avx2(std::int16_t* blocks, std::uint8_t* extents, int count, const std::int16_t* quantisation,
                    std::uint8_t* out, std::size_t pitch);
void idct_avx512(std::int16_t* blocks, std::uint8_t* extents, int count, const std::int16_t* quantisation,
                 std::uint8_t* out, std::size_t pitch);
void idct_half_avx512(std::int16_t* blocks, std::uint8_t* extents, int count, const std::int16_t* quantisation,
                      std::uint8_t* out, std::size_t pitch);
#endif
// Plain integers: what makes so few samples takes little time.
void idct_quarter(std::int16_t* blocks, std::uint8_t* extents, int count, const std::int16_t* quantisation,
                  std::uint8_t* out, std::size_t pitch);
void idct_eighth(std::int16_t* blocks, std::uint8_t* extents, int count, const std::int16_t* quantisation,
                 std::uint8_t* out, std::size_t pitch);

}  // namespace fasttrain
