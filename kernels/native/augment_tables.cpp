#include "augment_tables.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace fasttrain {
namespace {

std::uint8_t blended(int value, int other, float factor) {
  const float result = static_cast<float>(other) + factor * static_cast<float>(value - other);
  return static_cast<std::uint8_t>(std::min(std::max(result, 0.0f), 255.0f));
}

int value_of(AugmentOp operation, const float* arguments, int value) {
  const int number = static_cast<int>(arguments[0]);
  switch (operation) {
    case AugmentOp::brightness:
      return blended(value, 0, arguments[0]);
    case AugmentOp::posterize:
      return number >= 8 ? value : value & ~((1 << (8 - std::max(number, 0))) - 1);
    case AugmentOp::solarize:
      return value < number ? value : 255 - value;
    case AugmentOp::solarize_add:
      return value < static_cast<int>(arguments[1]) ? std::min(value + number, 255) : value;
    case AugmentOp::invert:
      return 255 - value;
    case AugmentOp::gamma:
      return static_cast<int>(std::min((255 + 1 - 1e-3) * std::pow(value / 255.0, double(arguments[0])), 255.0));
    default:
      return value;
  }
}

}  // namespace

bool fill_table(AugmentOp operation, const float* arguments, std::uint8_t (&table)[3][256]) {
  switch (operation) {
    case AugmentOp::brightness:
    case AugmentOp::posterize:
    case AugmentOp::solarize:
    case AugmentOp::solarize_add:
    case AugmentOp::invert:
    case AugmentOp::gamma:
      break;
    default:
      return false;
  }
  for (int value = 0; value < 256; ++value) table[0][value] = std::uint8_t(value_of(operation, arguments, value));
  for (int channel = 1; channel < 3; ++channel) std::memcpy(table[channel], table[0], 256);
  return true;
}

void blend_table(int other, float factor, std::uint8_t (&table)[3][256]) {
  for (auto& channel : table) {
    for (int value = 0; value < 256; ++value) channel[value] = blended(value, other, factor);
  }
}

void equalize_table(const std::uint32_t (&counts)[256], std::uint8_t (&table)[256]) {
  for (int value = 0; value < 256; ++value) table[value] = std::uint8_t(value);
  std::uint64_t total = 0, last = 0;
  int levels = 0;
  for (const std::uint32_t count : counts) {
    total += count;
    if (count > 0) {
      last = count;
      ++levels;
    }
  }
  const std::uint64_t step = (total - last) / 255;
  if (levels <= 1 || step == 0) return;
  std::uint64_t sum = step / 2;
  for (int value = 0; value < 256; ++value) {
    table[value] = std::uint8_t(std::min<std::uint64_t>(sum / step, 255));
    sum += counts[value];
  }
}

void autocontrast_table(const std::uint32_t (&counts)[256], std::uint8_t (&table)[256]) {
  int low = 0, high = 255;
  while (low < 255 && counts[low] == 0) ++low;
  while (high > 0 && counts[high] == 0) --high;
  for (int value = 0; value < 256; ++value) table[value] = std::uint8_t(value);
  if (high <= low) return;
  const double scale = 255.0 / (high - low), offset = -low * scale;
  for (int value = 0; value < 256; ++value) {
    table[value] = std::uint8_t(std::min(std::max(value * scale + offset, 0.0), 255.0));
  }
}

}  // namespace fasttrain
