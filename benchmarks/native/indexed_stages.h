// The stages of the indexed way to a view, each by itself: what comes before it has to have been done.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "indexed_view.h"

namespace fasttrain {

class IndexedStages {
 public:
  // Make the index of a photo; false where it can have none.
  bool prepare(const std::uint8_t* data, std::size_t size);

  // Read the header and make the tables that the photo before did not have.
  void open();
  void plan(const View& view);
  // Decode the entropy code under the view, `timed` being called with what decodes two rows of MCUs.
  template <class Timed>
  void entropy(const Timed& timed) {
    const UnitRegion& region = views_.front().region();
    scan_.open(header(), index_.data());
    for (int row = region.top; row < region.bottom; row += 2) {
      const bool two = row + 1 < region.bottom;
      for (CoefficientRow& blocks : blocks_) blocks.shape(header().shape, region.right - region.left);
      timed([&] { scan_.decode(row, region.left, region.right, blocks_[0], two ? &blocks_[1] : nullptr); });
    }
  }
  // Decode the planes under the view, a few rows of MCUs at a time.
  void planes();
  // Decode the planes and make the view of them.
  void view(const Output& output, void* out);

  const IndexedHeader& header() const { return decoder_.header(); }
  double share() const;          // of the image's MCUs that are under the view
  double samples() const;        // that are decoded for it
  double multiply_adds() const;  // that its weights ask for

 private:

  const std::uint8_t* data_ = nullptr;
  std::size_t size_ = 0;
  std::vector<std::uint64_t> index_;
  IndexedDecoder decoder_;
  IndexedScan scan_;
  CoefficientRow blocks_[2];
  std::vector<IndexedView> views_{1};
};

}  // namespace fasttrain
