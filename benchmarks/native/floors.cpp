#include "floors.h"

#include <algorithm>
#include <chrono>

#include "jpeg_session.h"

namespace fasttrain {
namespace {

constexpr long kTurns = 400000;
constexpr int kTries = 5;  // the fastest counts: a peak is what was not disturbed

// As many chains as there are registers for, which hides the latency of each. The attribute decides on the instructions;
// a * x + b becomes one of them where the instruction set has it.
#define MULTIPLY_ADD_LOOP(NAME, WIDTH, CHAINS, ATTRIBUTE)                           \
  ATTRIBUTE void NAME(float factor, float* sum) {                                    \
    typedef float Floats __attribute__((vector_size(4 * WIDTH)));                    \
    Floats chains[CHAINS];                                                           \
    Floats x = {}, y = {};                                                           \
    x += factor;                                                                     \
    y += 1.0f;                                                                       \
    _Pragma("GCC unroll 16") for (int c = 0; c < CHAINS; ++c) chains[c] = y * float(c); \
    for (long turn = 0; turn < kTurns; ++turn) {                                     \
      _Pragma("GCC unroll 16") for (int c = 0; c < CHAINS; ++c) chains[c] = chains[c] * x + y; \
    }                                                                                \
    for (int c = 0; c < CHAINS; ++c) {                                               \
      for (int i = 0; i < WIDTH; ++i) *sum += chains[c][i];                          \
    }                                                                                \
  }                                                                                  \
  constexpr double NAME##_work = double(WIDTH) * CHAINS * kTurns;

MULTIPLY_ADD_LOOP(portable_loop, 4, 14, )
#if defined(__x86_64__)
MULTIPLY_ADD_LOOP(avx2_loop, 8, 14, __attribute__((target("avx2,fma"))))
MULTIPLY_ADD_LOOP(avx512_loop, 16, 14, __attribute__((target("avx512f"))))
#endif

#undef MULTIPLY_ADD_LOOP

double rate_of(void (*loop)(float, float*), double work) {
  volatile float factor = 0.5f;
  volatile float kept;
  double best = 0.0;
  for (int attempt = 0; attempt < kTries; ++attempt) {
    float sum = 0.0f;
    const auto begun = std::chrono::steady_clock::now();
    loop(factor, &sum);
    const std::chrono::duration<double, std::nano> taken = std::chrono::steady_clock::now() - begun;
    kept = sum;
    best = std::max(best, work / taken.count());
  }
  (void)kept;
  return best;
}

enum class Depth { header, entropy, pixels };

// Under setjmp: no objects with destructors here.
bool decode(jpeg_decompress_struct& decoder, ErrorManager& errors, const std::uint8_t* data, std::size_t size,
            Depth depth) {
  if (setjmp(errors.jump)) return false;
  jpeg_create_decompress(&decoder);
  jpeg_mem_src(&decoder, const_cast<unsigned char*>(data), size);
  jpeg_read_header(&decoder, TRUE);
  if (depth == Depth::header) return true;
  if (depth == Depth::entropy) {
    jpeg_read_coefficients(&decoder);
  } else {
    constexpr int kRows = 8;
    decoder.out_color_space = JCS_RGB;
    jpeg_start_decompress(&decoder);
    JSAMPARRAY rows = (*decoder.mem->alloc_sarray)(reinterpret_cast<j_common_ptr>(&decoder), JPOOL_IMAGE,
                                                   3 * decoder.output_width, kRows);
    while (decoder.output_scanline < decoder.output_height) jpeg_read_scanlines(&decoder, rows, kRows);
  }
  jpeg_finish_decompress(&decoder);
  return true;
}

void decode_to(const std::uint8_t* data, std::size_t size, Depth depth) {
  jpeg_decompress_struct decoder{};
  ErrorManager errors;
  install_error_manager(errors);
  decoder.err = &errors.base;
  const bool sound = decode(decoder, errors, data, size, depth);
  jpeg_destroy_decompress(&decoder);
  if (!sound) throw JpegError(errors.reason);
}

}  // namespace

double peak_multiply_adds(Simd level) {
#if defined(__x86_64__)
  if (level == Simd::avx512) return rate_of(avx512_loop, avx512_loop_work);
  if (level == Simd::avx2) return rate_of(avx2_loop, avx2_loop_work);
#endif
  (void)level;
  return rate_of(portable_loop, portable_loop_work);
}

void decode_header(const std::uint8_t* data, std::size_t size) { decode_to(data, size, Depth::header); }

void decode_entropy(const std::uint8_t* data, std::size_t size) { decode_to(data, size, Depth::entropy); }

void decode_all(const std::uint8_t* data, std::size_t size) { decode_to(data, size, Depth::pixels); }

}  // namespace fasttrain
