// Random numbers of a sample's pixels: a hash of (seed, stream, counter), so that they are the same on every machine.
// To be included in regions compiled for any instruction set.
#pragma once

#include <cstdint>

namespace fasttrain {
namespace {

#define AUGMENT_INLINE inline __attribute__((always_inline))

AUGMENT_INLINE std::uint32_t mixed_bits(std::uint32_t x) {  // Wellons' lowbias32
  x ^= x >> 16;
  x *= 0x7FEB352Du;
  x ^= x >> 15;
  x *= 0x846CA68Bu;
  x ^= x >> 16;
  return x;
}

AUGMENT_INLINE std::uint32_t random_bits(std::uint64_t seed, std::uint32_t stream, std::uint32_t counter) {
  const std::uint32_t low = static_cast<std::uint32_t>(seed), high = static_cast<std::uint32_t>(seed >> 32);
  return mixed_bits(mixed_bits(counter + low) ^ (high + stream * 0x9E3779B9u));
}

AUGMENT_INLINE float uniform_of(std::uint32_t bits) { return static_cast<float>(bits >> 8) * (1.0f / 16777216.0f); }

// Sum of four uniform bytes, standardised: mean 0, variance 1, at most 3.45 (Irwin-Hall).
AUGMENT_INLINE float normal_of(std::uint32_t bits) {
  const int sum = static_cast<int>((bits & 255) + (bits >> 8 & 255) + (bits >> 16 & 255) + (bits >> 24));
  return static_cast<float>(sum - 510) * (1.0f / 147.80054f);
}

#undef AUGMENT_INLINE

}  // namespace
}  // namespace fasttrain
