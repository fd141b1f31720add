// Entropy-decodes parts of an indexed scan: any MCUs of a row, starting at the entry before them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "indexed_header.h"

namespace fasttrain {

// Quantised coefficients of some MCUs of one row: for each component its rows of blocks, each block in natural order (row
// by row of frequencies).
class CoefficientRow {
 public:
  // Room for `units` MCUs, zeroed.
  void shape(const ScanShape& shape, int units);

  std::size_t place(int component, int row) const { return base_[component] + static_cast<std::size_t>(row) * pitch_[component]; }
  JCOEF* block(std::size_t place) { return memory_.data() + place * 64; }
  // The zigzag number of a block's last coefficient that is not zero, or a greater one.
  std::uint8_t* extent(std::size_t place) { return extents_.data() + place; }
  std::size_t bytes() const { return memory_.capacity() * sizeof(JCOEF) + extents_.capacity(); }

 private:
  std::size_t base_[3] = {}, pitch_[3] = {};  // in blocks
  std::vector<JCOEF> memory_;
  std::vector<std::uint8_t> extents_;
};

struct ScanTables;  // what the Huffman codes of an image mean
struct Lane;        // the way through one row

class IndexedScan {
 public:
  IndexedScan();
  ~IndexedScan();
  IndexedScan(const IndexedScan&) = delete;
  IndexedScan& operator=(const IndexedScan&) = delete;

  // `index` has header.shape.entries() entries. All of it is only looked at, and has to stay. Throws JpegError.
  void open(const IndexedHeader& header, const std::uint64_t* index);

  // Decode the MCUs [left, right) of the rows `row` and, if it is to be decoded as well, `row + 1`. The rows' blocks must be
  // zero. Throws JpegError if the stream or the index is damaged in a way that shows; then they may hold anything.
  void decode(int row, int left, int right, CoefficientRow& first, CoefficientRow* second);

  std::size_t bytes() const;

 private:
  void enter(int row, int left, int right, Lane& lane, CoefficientRow& out);

  const IndexedHeader* header_ = nullptr;
  const std::uint64_t* index_ = nullptr;
  std::unique_ptr<ScanTables> tables_;
  std::unique_ptr<Lane[]> lanes_;
};

}  // namespace fasttrain
