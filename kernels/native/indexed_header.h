// The header of a JPEG that has a random-access index, read without setting up libjpeg, which would take longer.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>

#include <jpeglib.h>

#include "scan_index.h"

namespace fasttrain {

enum class ColourModel { grey, ycc, rgb };

struct IndexedComponent {
  int id = 0;
  int columns = 0, rows = 0;  // sampling factors as in the file
  int quantisation = 0;
  int dc = 0, ac = 0;
  int width = 0, height = 0;  // samples
};

struct IndexedHeader {
  int width = 0, height = 0;
  ColourModel colour = ColourModel::grey;
  IndexedComponent components[3];
  ScanShape shape;
  std::uint16_t quantisation[NUM_QUANT_TBLS][64];   // in zigzag order
  JHUFF_TBL huffman[2][NUM_HUFF_TBLS];              // DC, AC
  const std::uint8_t* scan = nullptr;               // the first byte of entropy code
  std::size_t scan_size = 0;                        // up to the end of the file
};

// The side of a component's blocks in an image that is decoded at `eighths` (1, 2, 4 or 8) of its size. Chroma of fewer
// samples is reduced the less, as libjpeg does it (jpeg_calc_output_dimensions in jdmaster.c).
int block_side(const IndexedHeader& header, int component, int eighths);

// Throws JpegError for a damaged header, and for an image of a kind that has no index.
void read_indexed_header(const std::uint8_t* data, std::size_t size, IndexedHeader& header);

}  // namespace fasttrain
