// The inverse DCT for AVX512: compiled for it here alone, run only where the processor has it.
#if defined(__x86_64__)

#include <immintrin.h>

#include "idct_kernels.h"

#include "avx512_begin.inc"

namespace {
using V = __m512i;
constexpr __mmask8 kAll = 0xFF;  // the forms without a mask make GCC warn of its own header
// The same row of four blocks.
inline V load_row(const std::int16_t* blocks, int row) {
  const auto of = [&](int block) {
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(blocks + 64 * block + 8 * row));
  };
  const __m256i low = _mm256_inserti128_si256(_mm256_castsi128_si256(of(0)), of(1), 1);
  const __m256i high = _mm256_inserti128_si256(_mm256_castsi128_si256(of(2)), of(3), 1);
  return _mm512_maskz_inserti64x4(kAll, _mm512_castsi256_si512(low), high, 1);
}
inline V load_quantisation(const std::int16_t* from) {
  return _mm512_maskz_broadcast_i32x4(0xFFFF, _mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
}
inline void store_two_rows(std::uint8_t* out, std::size_t pitch, V rows) {
  const V ordered = _mm512_maskz_permutexvar_epi64(kAll, _mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7), rows);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), _mm512_maskz_extracti64x4_epi64(kAll, ordered, 0));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + pitch), _mm512_maskz_extracti64x4_epi64(kAll, ordered, 1));
}
}  // namespace

#define BLOCKS 4
#define IDCT idct_avx512
#define HALF_IDCT idct_half_avx512
#define ALL_WORDS _mm512_set1_epi32
#define ALL_BYTES _mm512_set1_epi8
#define MADD _mm512_madd_epi16
#define MUL16 _mm512_mullo_epi16
#define ADD16 _mm512_add_epi16
#define ADD32 _mm512_add_epi32
#define SUB32 _mm512_sub_epi32
#define SHIFT32(a, count) _mm512_maskz_srai_epi32(0xFFFF, a, count)
#define PACK32 _mm512_packs_epi32
#define PACK16 _mm512_packs_epi16
#define XOR _mm512_xor_si512
#define LOW8 _mm512_unpacklo_epi8
#define HIGH8 _mm512_unpackhi_epi8
#define LOW16 _mm512_unpacklo_epi16
#define HIGH16 _mm512_unpackhi_epi16
#define LOW32(a, b) _mm512_maskz_unpacklo_epi32(0xFFFF, a, b)
#define HIGH32(a, b) _mm512_maskz_unpackhi_epi32(0xFFFF, a, b)
#define LOW64(a, b) _mm512_maskz_unpacklo_epi64(kAll, a, b)
#define HIGH64(a, b) _mm512_maskz_unpackhi_epi64(kAll, a, b)
#define LOAD_ROW load_row
#define LOAD_QUANT load_quantisation
#define STORE_TWO_ROWS store_two_rows
#include "idct_kernels.inc"

#include "simd_end.inc"

#endif
