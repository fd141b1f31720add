#include "simd.h"

#include <algorithm>
#include <atomic>
#include <stdexcept>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace fasttrain {
namespace {

#if defined(__x86_64__)
// Clang before version 19 has no __builtin_cpu_supports("f16c").
bool has_f16c() {
  unsigned a, b, c, d;
  return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}
#endif

std::atomic<Simd>& chosen() {
  static std::atomic<Simd> level{usable_simd().back()};
  return level;
}

}  // namespace

std::vector<Simd> usable_simd() {
  std::vector<Simd> usable{Simd::portable};
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
  if (avx2) usable.push_back(Simd::avx2);
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  if (avx2 && avx512) usable.push_back(Simd::avx512);
#endif
  return usable;
}

Simd current_simd() { return chosen().load(std::memory_order_relaxed); }

void force_simd(Simd level) {
  const std::vector<Simd> usable = usable_simd();
  if (std::find(usable.begin(), usable.end(), level) == usable.end()) {
    throw std::invalid_argument("this processor cannot run " + simd_name(level) + " code");
  }
  chosen().store(level, std::memory_order_relaxed);
}

std::string simd_name(Simd level) {
  switch (level) {
    case Simd::avx512:
      return "avx512";
    case Simd::avx2:
      return "avx2";
    default:
      return "portable";
  }
}

}  // namespace fasttrain
