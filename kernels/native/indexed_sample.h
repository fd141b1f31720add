// The way of a JPEG with a random-access index to its pixels: only what its views show is decoded.
#pragma once

#include <cstddef>
#include <vector>

#include "indexed_view.h"

namespace fasttrain {

struct Sample;
struct Targets;

// What one thread needs for it.
class IndexedSample {
 public:
  // Fill all views of a sample that lies in memory and has an index, from one decoding. Boxes and windows must be inside
  // of the sample. Throws JpegError where the stream or the index is damaged, and NotHandled for an image of another size
  // than the sample's.
  void fill(const Sample& sample, const Targets& targets);

  std::size_t bytes() const;  // of memory that depends on the image

 private:
  IndexedDecoder decoder_;
  std::vector<IndexedView> views_;
  std::vector<void*> outs_;
};

}  // namespace fasttrain
