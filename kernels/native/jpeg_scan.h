#pragma once

#include <algorithm>
#include <vector>

#include "jpeg_session.h"
#include "scan_index.h"

namespace fasttrain {

enum class ScanVerdict { sound, damaged, unknown };

// Where the coefficients of one component go: block by block in rows, each block in natural order (row by row of
// frequencies), already zeroed. Rows and columns are those of whole MCUs.
struct CoefficientPlane {
  std::vector<JBLOCKROW> rows;
  const float* ratios = nullptr;  // 64 factors that each coefficient is multiplied by and rounded; null keeps them
};

// Walk through the entropy code of a sequential Huffman-coded image with a single scan (ITU-T T.81, annex F.2), block
// by block. With `planes` (one a component, of the shape that plane_shape tells) the coefficients are kept there.
//
// It sees more than libjpeg does: the last code of every restart interval has to end in the interval's last byte, no
// block may have more than 64 coefficients, and no mean of a block may lie far outside of the range of pixels.
//
// `decoder` stands behind jpeg_read_header. `data` is the whole file. On `sound`, `end` is the number of bytes up to
// and including the end marker; on `damaged`, `reason` says why; `unknown` is for streams that libjpeg has to judge.
// `index`, which goes without `planes`, is complete afterwards if the stream is sound and of a kind that can be indexed.
ScanVerdict walk_scan(const jpeg_decompress_struct& decoder, const std::uint8_t* data, std::size_t size,
                      std::size_t& end, const char*& reason, CoefficientPlane* planes = nullptr,
                      ScanIndex* index = nullptr);

// Whether the mean of a block (a DC coefficient and its quantum) lies beyond twice the range of 8-bit pixels and `slack`.
inline bool is_wild_mean(int value, int quantum, int slack) {
  constexpr long kMaxMean = 2048;
  const long mean = static_cast<long>(value) * std::max(quantum, 1);
  return mean > kMaxMean + slack || mean < -kMaxMean - slack;
}
constexpr const char* kWildMean = "its entropy code is damaged: a block far too bright or too dark";

// Blocks of a component in whole MCUs.
struct PlaneShape {
  JDIMENSION across, down;
};
PlaneShape plane_shape(const jpeg_decompress_struct& decoder, int component);

// What an index would know of the image; no components where it knows nothing of its like. See scan_shape.
ScanShape shape_of(const jpeg_decompress_struct& decoder);

constexpr float kToInteger = 12582912.0f;  // 1.5 * 2^23: adding and subtracting it rounds to the nearest integer

// A coefficient on another scale, rounded and within what baseline Huffman codes can say.
inline JCOEF rescaled(int value, float ratio) {
  const float scaled = std::min(std::max(static_cast<float>(value) * ratio, -1023.0f), 1023.0f);
  return static_cast<JCOEF>(scaled + kToInteger - kToInteger);
}

}  // namespace fasttrain
