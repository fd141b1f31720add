// Which instructions the kernels may use, chosen once when the process starts and forcible for tests.
#pragma once

#include <string>
#include <vector>

namespace fasttrain {

enum class Simd { portable, avx2, avx512 };

// What this build and this processor can run, weakest first.
std::vector<Simd> usable_simd();

// The strongest of them, or what was forced.
Simd current_simd();

// Force a level; throws std::invalid_argument where it cannot run.
void force_simd(Simd level);

std::string simd_name(Simd level);

}  // namespace fasttrain
