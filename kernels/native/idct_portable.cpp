// The inverse DCT for any processor: SSE2 on x86-64, plain integers elsewhere.
#include "idct_kernels.h"

#if defined(__SSE2__)

#include <emmintrin.h>

namespace {
using V = __m128i;
inline V load_row(const std::int16_t* blocks, int row) {
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(blocks + 8 * row));
}
inline void store_two_rows(std::uint8_t* out, std::size_t pitch, V rows) {
  _mm_storel_epi64(reinterpret_cast<__m128i*>(out), rows);
  _mm_storel_epi64(reinterpret_cast<__m128i*>(out + pitch), _mm_unpackhi_epi64(rows, rows));
}
}  // namespace

#define BLOCKS 1
#define IDCT idct_portable
#define HALF_IDCT idct_half_portable
#define ALL_WORDS _mm_set1_epi32
#define ALL_BYTES _mm_set1_epi8
#define MADD _mm_madd_epi16
#define MUL16 _mm_mullo_epi16
#define ADD16 _mm_add_epi16
#define ADD32 _mm_add_epi32
#define SUB32 _mm_sub_epi32
#define SHIFT32 _mm_srai_epi32
#define PACK32 _mm_packs_epi32
#define PACK16 _mm_packs_epi16
#define XOR _mm_xor_si128
#define LOW8 _mm_unpacklo_epi8
#define HIGH8 _mm_unpackhi_epi8
#define LOW16 _mm_unpacklo_epi16
#define HIGH16 _mm_unpackhi_epi16
#define LOW32 _mm_unpacklo_epi32
#define HIGH32 _mm_unpackhi_epi32
#define LOW64 _mm_unpacklo_epi64
#define HIGH64 _mm_unpackhi_epi64
#define LOAD_ROW load_row
#define LOAD_QUANT(from) _mm_loadu_si128(reinterpret_cast<const __m128i*>(from))
#define STORE_TWO_ROWS store_two_rows
#include "idct_kernels.inc"

#else

// As jidctint.c of libjpeg.
namespace fasttrain {
namespace {

template <int shift>
void transform(std::int32_t* v, int stride) {
  const auto at = [&](int i) -> std::int32_t& { return v[i * stride]; };
  const auto descaled = [](std::int32_t value) { return (value + (1 << (shift - 1))) >> shift; };
  const std::int32_t z1 = (at(2) + at(6)) * 4433;
  const std::int32_t even2 = z1 - at(6) * 15137, even3 = z1 + at(2) * 6270;
  const std::int32_t sum = (at(0) + at(4)) * 8192, difference = (at(0) - at(4)) * 8192;
  const std::int32_t tmp10 = sum + even3, tmp13 = sum - even3, tmp11 = difference + even2, tmp12 = difference - even2;
  const std::int32_t z5 = (at(7) + at(3) + at(5) + at(1)) * 9633;
  const std::int32_t y1 = (at(7) + at(1)) * -7373, y2 = (at(5) + at(3)) * -20995;
  const std::int32_t y3 = (at(7) + at(3)) * -16069 + z5, y4 = (at(5) + at(1)) * -3196 + z5;
  const std::int32_t odd0 = at(7) * 2446 + y1 + y3, odd1 = at(5) * 16819 + y2 + y4;
  const std::int32_t odd2 = at(3) * 25172 + y2 + y3, odd3 = at(1) * 12299 + y1 + y4;
  at(0) = descaled(tmp10 + odd3);
  at(7) = descaled(tmp10 - odd3);
  at(1) = descaled(tmp11 + odd2);
  at(6) = descaled(tmp11 - odd2);
  at(2) = descaled(tmp12 + odd1);
  at(5) = descaled(tmp12 - odd1);
  at(3) = descaled(tmp13 + odd0);
  at(4) = descaled(tmp13 - odd0);
}

// What 16-bit coefficients of damaged streams make must not overflow.
std::int32_t limited(std::int32_t value, std::int32_t limit) {
  return value < -limit ? -limit : value > limit ? limit : value;
}

}  // namespace

void idct_portable(std::int16_t* blocks, std::uint8_t* extents, int count, const std::int16_t* quantisation,
                   std::uint8_t* out, std::size_t pitch) {
  for (int b = 0; b < count; ++b, blocks += 64, out += 8) {
    std::int32_t v[64];
    for (int i = 0; i < 64; ++i) v[i] = limited(static_cast<std::int16_t>(blocks[i] * quantisation[i]), 8191);
    for (int i = 0; i < 8; ++i) transform<11>(v + i, 8);
    for (int i = 0; i < 64; ++i) v[i] = limited(v[i], 8191);
    for (int i = 0; i < 8; ++i) transform<18>(v + 8 * i, 1);
    for (int i = 0; i < 64; ++i) {
      const std::int32_t value = v[i] + 128;
      out[static_cast<std::size_t>(i / 8) * pitch + static_cast<std::size_t>(i % 8)] =
          static_cast<std::uint8_t>(value < 0 ? 0 : value > 255 ? 255 : value);
    }
    for (int i = 0; i < 64; ++i) blocks[i] = 0;
    extents[b] = 0;
  }
}

}  // namespace fasttrain

#endif

namespace fasttrain {

Idct idct_kernel(Simd level, int side) {
  if (side == 1) return idct_eighth;
  if (side == 2) return idct_quarter;
#if defined(__x86_64__)
  if (level == Simd::avx512) return side == 4 ? idct_half_avx512 : idct_avx512;
  if (level == Simd::avx2) return side == 4 ? idct_half_avx2 : idct_avx2;
#endif
  (void)level;
  return side == 4 ? idct_half_portable : idct_portable;
}

}  // namespace fasttrain
