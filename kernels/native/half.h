// Rounds floats to float16 where x86 has no instruction for it. To be included in regions compiled for any instruction set.
#pragma once

#include <cstdint>

namespace fasttrain {
namespace {

inline __attribute__((always_inline)) std::uint16_t rounded_half(float value) {  // to nearest even; finite values
#if defined(__aarch64__)
  const __fp16 half = static_cast<__fp16>(value);
  std::uint16_t result;
  __builtin_memcpy(&result, &half, 2);
  return result;
#else
  std::uint32_t bits;
  __builtin_memcpy(&bits, &value, 4);
  const std::uint32_t sign = bits >> 16 & 0x8000;
  bits &= 0x7FFFFFFF;
  if (bits >= 0x47800000) return static_cast<std::uint16_t>(sign | 0x7C00);  // 65536 and above: infinity
  if (bits < 0x38800000) {  // below 2^-14: the sum with 0.5 rounds to the denormal's last bit
    float sum;
    __builtin_memcpy(&sum, &bits, 4);
    sum += 0.5f;
    std::uint32_t denormal;
    __builtin_memcpy(&denormal, &sum, 4);
    return static_cast<std::uint16_t>(sign | (denormal - 0x3F000000));
  }
  return static_cast<std::uint16_t>(sign | ((bits + 0xC8000FFF + (bits >> 13 & 1)) >> 13));
#endif
}

}  // namespace
}  // namespace fasttrain
