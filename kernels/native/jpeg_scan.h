#pragma once

#include "jpeg_session.h"

namespace fasttrain {

enum class ScanVerdict { sound, damaged, unknown };

// Walk through the entropy code of a sequential Huffman-coded image with a single scan (ITU-T T.81, annex F.2), block by
// block, keeping nothing but the DC predictors.
//
// It sees more than libjpeg does: the last code of every restart interval has to end in the interval's last byte, no
// block may have more than 64 coefficients, and no mean of a block may lie far outside of the range of pixels.
//
// `decoder` stands behind jpeg_read_header. `data` is the whole file. On `sound`, `end` is the number of bytes up to and
// including the end marker; on `damaged`, `reason` says why; `unknown` is for streams that libjpeg has to judge.
ScanVerdict walk_scan(const jpeg_decompress_struct& decoder, const std::uint8_t* data, std::size_t size,
                      std::size_t& end, const char*& reason);

}  // namespace fasttrain
