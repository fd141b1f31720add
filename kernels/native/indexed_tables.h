// Tables that tell what the next bits of a scan mean when its coefficients are wanted, one or two of them at a look-up.
#pragma once

#include <cstdint>

#include "jpeg_huffman.h"

namespace fasttrain {

constexpr int kPastBlock = 127;  // a reach that no block has

// The meaning of the next kStepBits bits, as one word: up to two coefficients, and the end of the block behind them.
// Places count from the last coefficient in zigzag order. Where there is no second coefficient, it is the first once more.
class Step {
 public:
  Step() : Step(0, kPastBlock, 0, 0, 0, 0, false) {}
  Step(int bits, int reach, int first_place, int first_value, int second_place, int second_value, bool ends)
      : packed_(static_cast<std::uint64_t>(bits) | static_cast<std::uint64_t>(ends) << 7 |
                static_cast<std::uint64_t>(reach) << 8 | static_cast<std::uint64_t>(first_place) << 16 |
                static_cast<std::uint64_t>(second_place) << 24 |
                static_cast<std::uint64_t>(static_cast<std::uint16_t>(first_value)) << 32 |
                static_cast<std::uint64_t>(static_cast<std::uint16_t>(second_value)) << 48) {}

  unsigned bits() const { return packed_ & 63; }
  bool ends() const { return packed_ >> 7 & 1; }
  // What must be left of the block for this to be in it: the second place, and one more if the end of the block follows,
  // which a full block does not have.
  unsigned reach() const { return packed_ >> 8 & 0xFF; }
  unsigned first_place() const { return packed_ >> 16 & 0xFF; }
  unsigned second_place() const { return packed_ >> 24 & 0xFF; }
  JCOEF first_value() const { return static_cast<JCOEF>(packed_ >> 32); }
  JCOEF second_value() const { return static_cast<JCOEF>(packed_ >> 48); }

 private:
  std::uint64_t packed_;
};

constexpr int kStepBits = 11;
constexpr int kStepsPerRefill = 56 / kStepBits;

class StepTable {
 public:
  void build(const HuffmanTable& table) {
    for (std::uint32_t index = 0; index < (1u << kStepBits); ++index) {
      steps_[index] = meaning(table, std::uint64_t{index} << (64 - kStepBits));
    }
  }
  Step find(std::uint64_t window) const { return steps_[window >> (64 - kStepBits)]; }

 private:
  static Step meaning(const HuffmanTable& table, std::uint64_t window) {
    unsigned bits = 0;
    int count = 0, places[2] = {}, values[2] = {}, place = 0;
    bool ends = false;
    while (!ends) {
      const Entry entry = table.find(window);
      if (!entry || bits + entry.bits() > kStepBits) break;
      if (entry.advance() == kBlockSize) {
        ends = true;
      } else if (count == 2 || entry.size() == 0) {
        break;  // a third coefficient, or sixteen zeros
      } else {
        place += entry.advance();
        places[count] = place;
        values[count] = value_of(entry, window);
        ++count;
      }
      bits += entry.bits();
      window <<= entry.bits();
    }
    if (bits == 0) return {};
    if (count == 0) return {static_cast<int>(bits), 1, kBlockSize, 0, kBlockSize, 0, true};
    if (count == 1) places[1] = places[0], values[1] = values[0];
    return {static_cast<int>(bits), place + (ends ? 1 : 0), places[0], values[0], places[1], values[1], ends};
  }

  Step steps_[1 << kStepBits];
};

}  // namespace fasttrain
