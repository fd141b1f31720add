// The zigzag sequence of a block's coefficients (ITU-T T.81, figure A.6).
#pragma once

#include <cstdint>

namespace fasttrain {

// The natural place (row by row of frequencies) of each number in the sequence. What lies beyond a block is 64.
struct ZigzagOrder {
  std::uint8_t places[192];
};

constexpr ZigzagOrder zigzag_order() {
  ZigzagOrder order{};
  int row = 0, column = 0;
  for (int i = 0; i < 64; ++i) {
    order.places[i] = static_cast<std::uint8_t>(8 * row + column);
    const bool goes_up = (row + column) % 2 == 0;
    if (goes_up ? column == 7 : row != 7) {
      ++row;
      if (!goes_up && column > 0) --column;
    } else {
      ++column;
      if (goes_up && row > 0) --row;
    }
  }
  for (int i = 64; i < 192; ++i) order.places[i] = 64;
  return order;
}

constexpr ZigzagOrder kZigzag = zigzag_order();
static_assert(kZigzag.places[2] == 8 && kZigzag.places[3] == 16 && kZigzag.places[4] == 9 && kZigzag.places[35] == 56 &&
              kZigzag.places[36] == 57 && kZigzag.places[62] == 62 && kZigzag.places[63] == 63);

}  // namespace fasttrain
