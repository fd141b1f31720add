#include "indexed_stages.h"

#include "jpeg_check.h"

namespace fasttrain {

bool IndexedStages::prepare(const std::uint8_t* data, std::size_t size) {
  data_ = data;
  size_ = size;
  ScanIndex index;
  check_jpeg(data, size, &index);
  index_ = index.entries();
  return index.is_complete();
}

void IndexedStages::open() { decoder_.open(data_, size_, index_.data(), index_.size()); }

void IndexedStages::plan(const View& view) {
  views_.front().plan(view, header());
  scan_.open(header(), index_.data());
}

void IndexedStages::planes() {
  const IndexedView& view = views_.front();
  decoder_.start(view.region(), view.held());
  decoder_.decode_to(view.region().bottom);
}

void IndexedStages::view(const Output& output, void* out) { make_indexed_views(decoder_, views_, output, &out); }

}  // namespace fasttrain
