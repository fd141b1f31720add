#include "indexed_sample.h"

#include "image_decode.h"
#include "sample.h"

namespace fasttrain {

void IndexedSample::fill(const Sample& sample, const Targets& targets) {
  decoder_.open(sample.data, sample.length, sample.index, sample.entries);
  const IndexedHeader& header = decoder_.header();
  if (header.width != sample.width || header.height != sample.height) throw NotHandled();
  const auto count = static_cast<std::size_t>(targets.count);
  views_.resize(count);
  outs_.resize(count);
  for (std::size_t i = 0; i < count; ++i) {
    views_[i].plan(targets.first[i].view, header, targets.fast);
    outs_[i] = targets.first[i].window(targets.output.kind);
  }
  make_indexed_views(decoder_, views_, targets.output, outs_.data());
}

std::size_t IndexedSample::bytes() const {
  std::size_t bytes = decoder_.bytes();
  for (const IndexedView& view : views_) bytes += view.bytes();
  return bytes;
}

}  // namespace fasttrain
