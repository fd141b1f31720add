// Inverse DCTs into a few samples a block, as jidctred.c of libjpeg has them; plain integers.
#include "idct_kernels.h"

namespace fasttrain {
namespace {

// Wide enough for whatever damaged streams make.
using Wide = std::int64_t;

Wide descaled(Wide value, int shift) { return (value + (Wide{1} << (shift - 1))) >> shift; }

std::uint8_t sample_of(Wide value) {
  value += 128;
  return static_cast<std::uint8_t>(value < 0 ? 0 : value > 255 ? 255 : value);
}

// As the vector instructions multiply.
Wide dequantised(const std::int16_t* block, const std::int16_t* quantisation, int place) {
  return static_cast<std::int16_t>(block[place] * quantisation[place]);
}

void clear(std::int16_t* blocks, std::uint8_t* extents, int count) {
  __builtin_memset(blocks, 0, 128 * static_cast<std::size_t>(count));
  __builtin_memset(extents, 0, static_cast<std::size_t>(count));
}

struct Two {
  Wide sum, difference;
};

// Even frequencies but the mean have no part in two samples.
Two transformed(Wide mean, Wide v1, Wide v3, Wide v5, Wide v7, int shift) {
  const Wide even = mean * (1 << 15), odd = 29692 * v1 - 10426 * v3 + 6967 * v5 - 5906 * v7;
  return {descaled(even + odd, shift), descaled(even - odd, shift)};
}

#if !defined(__SSE2__)
void transform_to_half(const Wide* v, int stride, Wide* out, int shift) {
  const auto at = [&](int i) { return v[i * stride]; };
  const Wide mean = at(0) * (1 << 14), even = 15137 * at(2) - 6270 * at(6);
  const Wide inner = -1730 * at(7) + 11893 * at(5) - 17799 * at(3) + 8697 * at(1);
  const Wide outer = -4176 * at(7) - 4926 * at(5) + 7373 * at(3) + 20995 * at(1);
  out[0] = descaled(mean + even + outer, shift);
  out[1] = descaled(mean - even + inner, shift);
  out[2] = descaled(mean - even - inner, shift);
  out[3] = descaled(mean + even - outer, shift);
}
#endif

}  // namespace

#if !defined(__SSE2__)
void idct_half_portable(std::int16_t* blocks, std::uint8_t* extents, int count, const std::int16_t* quantisation,
                        std::uint8_t* out, std::size_t pitch) {
  for (int b = 0; b < count; ++b) {
    Wide v[64], columns[8][4], rows[4];
    for (int i = 0; i < 64; ++i) v[i] = dequantised(blocks + 64 * b, quantisation, i);
    for (int i = 0; i < 8; ++i) transform_to_half(v + i, 8, columns[i], 12);
    for (int r = 0; r < 4; ++r) {
      transform_to_half(&columns[0][r], 4, rows, 19);
      std::uint8_t* line = out + static_cast<std::size_t>(r) * pitch + 4 * b;
      for (int i = 0; i < 4; ++i) line[i] = sample_of(rows[i]);
    }
  }
  clear(blocks, extents, count);
}
#endif

void idct_quarter(std::int16_t* blocks, std::uint8_t* extents, int count, const std::int16_t* quantisation,
                  std::uint8_t* out, std::size_t pitch) {
  for (int b = 0; b < count; ++b) {
    const std::int16_t* block = blocks + 64 * b;
    Two columns[8];
    for (const int column : {0, 1, 3, 5, 7}) {
      const auto at = [&](int row) { return dequantised(block, quantisation, 8 * row + column); };
      columns[column] = transformed(at(0), at(1), at(3), at(5), at(7), 13);
    }
    const auto store_row = [&](std::uint8_t* row, Wide Two::*of) {
      const Two pair = transformed(columns[0].*of, columns[1].*of, columns[3].*of, columns[5].*of, columns[7].*of, 20);
      row[2 * b] = sample_of(pair.sum);
      row[2 * b + 1] = sample_of(pair.difference);
    };
    store_row(out, &Two::sum);
    store_row(out + pitch, &Two::difference);
  }
  clear(blocks, extents, count);
}

void idct_eighth(std::int16_t* blocks, std::uint8_t* extents, int count, const std::int16_t* quantisation,
                 std::uint8_t* out, std::size_t) {
  for (int b = 0; b < count; ++b) out[b] = sample_of(descaled(dequantised(blocks + 64 * b, quantisation, 0), 3));
  clear(blocks, extents, count);
}

}  // namespace fasttrain
