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

void IndexedStages::plan(const View& view) { views_.front().plan(view, header()); }

void IndexedStages::planes() {
  const IndexedView& view = views_.front();
  decoder_.start(view.region(), view.held());
  decoder_.decode_to(view.region().bottom);
}

double IndexedStages::share() const {
  const UnitRegion& region = views_.front().region();
  const double units = static_cast<double>(region.right - region.left) * (region.bottom - region.top);
  return units / header().shape.across / header().shape.down;
}

double IndexedStages::samples() const {
  const ScanShape& shape = header().shape;
  double blocks = 0;
  for (int i = 0; i < shape.components; ++i) blocks += shape.columns[i] * shape.rows[i];
  return 64 * blocks * share() * shape.across * shape.down;
}

double IndexedStages::multiply_adds() const {
  double sum = 0;
  for (int i = 0; i < header().shape.components; ++i) {
    const Axis& x = views_.front().across(i);
    const Axis& y = views_.front().down(i);
    double vertical = 0, horizontal = 0;
    for (const int count : y.counts) vertical += count;
    for (const int count : x.counts) horizontal += count;
    sum += vertical * (x.high - x.low) + horizontal * static_cast<double>(y.counts.size());
  }
  return sum;
}

void IndexedStages::view(const Output& output, void* out) { make_indexed_views(decoder_, views_, output, &out); }

}  // namespace fasttrain
