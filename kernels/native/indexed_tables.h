// Tables that tell what the next bits of a scan mean when its coefficients are wanted, one or two of them at a look-up.
#pragma once

#include <cstdint>

#include "jpeg_huffman.h"

namespace fasttrain {

constexpr int kStepBits = 10;  // more would save steps, but the tables would leave the fastest cache
constexpr int kStepsPerRefill = 56 / kStepBits;
constexpr std::uint8_t kPastBlock = 127;  // a reach that no block has
constexpr std::uint8_t kEnds = 0x80;      // beside the number of bits

// The meaning of the next kStepBits bits: up to two coefficients, and the end of the block behind them. Places count from
// the last coefficient in zigzag order. Where there is no second coefficient, it is the first once more; where there is
// none at all, both lie beyond the block.
// A reach of kPastBlock stands for what does not fit.
struct Step {
  std::uint8_t bits;                        // and kEnds, if the last code ends the block
  std::uint8_t reach;                       // what must be left of the block for this to be in it: the second place, and
                                            // one more for the end of the block, which a full block does not have
  std::uint8_t first_place, second_place;
  std::int16_t first_value, second_value;
};

class StepTable {
 public:
  void build(const HuffmanTable& table) {
    static_assert(kStepBits <= kLookBits);
    Code codes[1 << kStepBits];
    for (std::uint32_t index = 0; index < (1u << kStepBits);) {
      const std::uint64_t window = std::uint64_t{index} << (64 - kStepBits);
      const Entry entry = table.find_short(window);
      const bool fits = entry && entry.bits() <= kStepBits;
      const Code code{static_cast<std::uint8_t>(fits ? entry.bits() : kStepBits + 1),
                      static_cast<std::uint8_t>(entry.advance()),
                      static_cast<std::int16_t>(fits ? value_of(entry, window) : 0)};
      const std::uint32_t next = index + (fits ? 1u << (kStepBits - entry.bits()) : 1u);  // further bits mean nothing to it
      if (!fits) steps_[index] = {0, kPastBlock, 0, 0, 0, 0};
      while (index < next) codes[index++] = code;
    }
    for (std::uint32_t index = 0; index < (1u << kStepBits); ++index) {
      if (codes[index].bits <= kStepBits) steps_[index] = joined(codes, index);
    }
  }

  const Step& find(std::uint64_t window) const { return steps_[window >> (64 - kStepBits)]; }

 private:
  struct Code {  // one code and its value, if they fit
    std::uint8_t bits, advance;
    std::int16_t value;

    bool ends() const { return advance == kBlockSize; }
  };

  static Step joined(const Code* codes, std::uint32_t index) {
    constexpr std::uint32_t mask = (1u << kStepBits) - 1;
    const Code& first = codes[index];
    if (first.ends()) return {static_cast<std::uint8_t>(first.bits | kEnds), 1, kBlockSize, kBlockSize, 0, 0};
    if (first.value == 0) return {0, kPastBlock, 0, 0, 0, 0};  // sixteen zeros
    Step step{first.bits, first.advance, first.advance, first.advance, first.value, first.value};
    const Code* next = &codes[index << step.bits & mask];
    if (next->bits + step.bits <= kStepBits && next->value != 0) {
      step.bits = static_cast<std::uint8_t>(step.bits + next->bits);
      step.reach = step.second_place = static_cast<std::uint8_t>(step.reach + next->advance);
      step.second_value = next->value;
      next = &codes[index << step.bits & mask];
    }
    if (next->bits + step.bits <= kStepBits && next->ends()) {
      step.bits = static_cast<std::uint8_t>((step.bits + next->bits) | kEnds);
      ++step.reach;
    }
    return step;
  }

  Step steps_[1 << kStepBits];
};

}  // namespace fasttrain
