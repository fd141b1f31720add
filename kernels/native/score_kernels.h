// The inner loops of score arithmetic. One source (score_kernels.inc) is compiled for each instruction set.
#pragma once

#include <cstddef>
#include <cstdint>

#include "simd.h"

namespace fasttrain {

// Rows of work are as long as the columns rounded up to this, so that loops over them need no rest.
constexpr std::size_t kScorePadding = 16;

// The largest of some values, its first position, and the largest of the others.
struct Leaders {
  float first, second;  // -FLT_MAX where there is none but -inf
  std::int32_t at;
};

// Scores are halves (index 0) or floats (index 1), read to their end and not beyond. All other rows are padded, and
// loops run over the padding: columns are a multiple of kScorePadding except in the last piece of a row.
struct ScoreKernels {
  // out = 2^(scores * scale + offsets - shift), as far as that lies within 2^-127 (0 below) and 2^100, and their sum.
  // The relative error of the power is at most 2e-7. |shift| <= 2^20, a whole number. Offsets are -inf in the padding.
  // The bytes of scores that lie `ahead` are fetched into the cache.
  double (*exponentials[2])(const void* scores, const float* offsets, std::size_t count, float scale, float shift,
                            std::ptrdiff_t ahead, float* out);
  // The same, after sums += weight * out: while a processor computes these, it has time to load and store those.
  double (*exchange[2])(const void* scores, const float* offsets, std::size_t count, float scale, float shift,
                        std::ptrdiff_t ahead, float* out, float weight, float* sums);
  // Largest scores * scale + offsets.
  float (*largest[2])(const void* scores, const float* offsets, std::size_t count, float scale);
  // sums += weights[r] * rows[r], of 4 rows.
  void (*accumulate)(const float* const* rows, const float* weights, std::size_t count, float* sums);
  // sums += weight * row.
  void (*accumulate_one)(const float* row, float weight, std::size_t count, float* sums);
  // totals += sums; sums = 0.
  void (*flush)(float* sums, std::size_t count, double* totals);
  // out = scores * scale + offsets, and lowest values in the padding.
  void (*shifted[2])(const void* scores, const float* offsets, std::size_t count, float scale, float* out);
  // out = scores, 0 in the padding; their sum.
  double (*widen[2])(const void* scores, std::size_t count, float* out);
  // values = log(max(values, least)), least > 0.
  void (*logarithms)(float* values, std::size_t count, float least);
  // totals += weight * scores.
  void (*add[2])(const void* scores, std::size_t count, double weight, double* totals);
  // out = totals - least, rounded; lowest values in the padding.
  void (*differences)(const double* totals, std::size_t count, double least, float* out);
  Leaders (*leaders)(const float* values, std::size_t count);
  // First position from `from` whose value is above the bound; `count` or more if there is none.
  std::size_t (*above)(const float* values, std::size_t from, std::size_t count, float bound);
  // Rounded to nearest even.
  void (*halves)(const float* values, std::size_t count, std::uint16_t* out);
};

const ScoreKernels& score_kernels(Simd level);

extern const ScoreKernels kPortableScores;
#if defined(__x86_64__)
extern const ScoreKernels kAvx2Scores;
extern const ScoreKernels kAvx512Scores;
#endif

}  // namespace fasttrain
