// The inverse DCT for AVX2: compiled for it here alone, run only where the processor has it.
#if defined(__x86_64__)

#include <immintrin.h>

#include "idct_kernels.h"

#include "avx2_begin.inc"

namespace {
using V = __m256i;
// The same row of two blocks.
inline V load_row(const std::int16_t* blocks, int row) {
  const __m128i first = _mm_loadu_si128(reinterpret_cast<const __m128i*>(blocks + 8 * row));
  return _mm256_inserti128_si256(_mm256_castsi128_si256(first),
                                 _mm_loadu_si128(reinterpret_cast<const __m128i*>(blocks + 64 + 8 * row)), 1);
}
inline V load_quantisation(const std::int16_t* from) {
  return _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
}
inline void store_two_rows(std::uint8_t* out, std::size_t pitch, V rows) {
  const V ordered = _mm256_permute4x64_epi64(rows, 0xD8);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(out), _mm256_castsi256_si128(ordered));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(out + pitch), _mm256_extracti128_si256(ordered, 1));
}
}  // namespace

#define BLOCKS 2
#define IDCT idct_avx2
#define HALF_IDCT idct_half_avx2
#define ALL_WORDS _mm256_set1_epi32
#define ALL_BYTES _mm256_set1_epi8
#define MADD _mm256_madd_epi16
#define MUL16 _mm256_mullo_epi16
#define ADD16 _mm256_add_epi16
#define ADD32 _mm256_add_epi32
#define SUB32 _mm256_sub_epi32
#define SHIFT32 _mm256_srai_epi32
#define PACK32 _mm256_packs_epi32
#define PACK16 _mm256_packs_epi16
#define XOR _mm256_xor_si256
#define LOW8 _mm256_unpacklo_epi8
#define HIGH8 _mm256_unpackhi_epi8
#define LOW16 _mm256_unpacklo_epi16
#define HIGH16 _mm256_unpackhi_epi16
#define LOW32 _mm256_unpacklo_epi32
#define HIGH32 _mm256_unpackhi_epi32
#define LOW64 _mm256_unpacklo_epi64
#define HIGH64 _mm256_unpackhi_epi64
#define LOAD_ROW load_row
#define LOAD_QUANT load_quantisation
#define STORE_TWO_ROWS store_two_rows
#include "idct_kernels.inc"

#include "simd_end.inc"

#endif
