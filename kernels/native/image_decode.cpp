#include "image_decode.h"

#include <algorithm>

namespace fasttrain {
namespace {

constexpr int kRowsAtOnce = 8;
constexpr std::size_t kTail = 4096;  // cameras put padding behind the end marker, but hardly more than this
constexpr int kSmoothedBy = 10;  // coefficients that libjpeg-turbo's smoothing looks at
constexpr std::uint64_t kMaxProgressiveBytes = std::uint64_t{1} << 30;  // of coefficients, which are held as a whole

bool has_end(const std::uint8_t* data, std::size_t size) {
  const std::size_t from = size - std::min(size, kTail);
  for (std::size_t at = size; at >= from + 2; --at) {
    if (data[at - 2] == 0xFF && data[at - 1] == 0xD9) return true;
  }
  return false;
}

}  // namespace

JpegRows::JpegRows(const std::uint8_t* data, std::size_t size, std::vector<std::uint8_t>& memory) : memory_(memory) {
  if (size < 4 || data[0] != 0xFF || data[1] != 0xD8 || !has_end(data, size)) throw NotHandled();
  install_error_manager(errors_);
  decoder_.err = &errors_.base;
  const bool read = read_header(data, size);
  const bool handled = read && is_handled();
  const bool whole = read && may_hold_image(decoder_, size);
  if (handled && whole) return;
  jpeg_destroy_decompress(&decoder_);  // the destructor of what was never constructed does not run
  if (!read) throw JpegError(errors_.reason);
  if (!handled) throw NotHandled();
  throw JpegError(kTooShort);
}

JpegRows::~JpegRows() { jpeg_destroy_decompress(&decoder_); }

bool JpegRows::is_handled() const {
  const J_COLOR_SPACE space = decoder_.jpeg_color_space;
  const bool usual = decoder_.data_precision == 8 && !decoder_.arith_code;
  const bool grey = space == JCS_GRAYSCALE && decoder_.num_components == 1;
  const bool colour = (space == JCS_YCbCr || space == JCS_RGB) && decoder_.num_components == 3;
  if (!usual || !(grey || colour)) return false;
  std::uint64_t bytes = 0;
  for (int i = 0; i < decoder_.num_components; ++i) {
    const jpeg_component_info& component = decoder_.comp_info[i];
    bytes += std::uint64_t{component.width_in_blocks} * component.height_in_blocks * sizeof(JBLOCK);
  }
  const bool held = decoder_.progressive_mode || decoder_.comps_in_scan < decoder_.num_components;
  return !held || bytes <= kMaxProgressiveBytes;
}

bool JpegRows::is_smoothed() const {
  if (decoder_.coef_bits == nullptr) return false;
  for (int i = 0; i < decoder_.num_components; ++i) {
    const int* bits = decoder_.coef_bits[i];
    if (std::any_of(bits + 1, bits + kSmoothedBy, [](int left) { return left != 0; })) return true;
  }
  return false;
}

void JpegRows::shrink(int eighths) {
  if (!shrink_under_jump(eighths)) throw JpegError(errors_.reason);
}

void JpegRows::start(const Region& region, int at_once) {
  if (!start_under_jump(region)) throw JpegError(errors_.reason);
  if (is_smoothed()) throw NotHandled();
  pitch_ = std::size_t{3} * decoder_.output_width;
  slots_ = at_once + kRowsAtOnce;
  kept_from_ = static_cast<int>(decoder_.output_scanline);
  if (memory_.size() < pitch_ * slots_) memory_.resize(pitch_ * slots_);
  at_once_ = at_once;
  pointers_.resize(at_once);
}

const std::uint8_t* const* JpegRows::rows(int first, int count) {
  kept_from_ = first + count - at_once_;
  if (static_cast<int>(decoder_.output_scanline) < first + count && !read_under_jump(first + count)) {
    throw JpegError(errors_.reason);
  }
  for (int i = 0; i < count; ++i) pointers_[i] = slot(first + i) + indent_;
  return pointers_.data();
}

// --- under setjmp: no objects with destructors from here on ---------------------------------------------------------

bool JpegRows::read_header(const std::uint8_t* data, std::size_t size) {
  if (setjmp(errors_.jump)) return false;
  jpeg_create_decompress(&decoder_);
  limit_scans(decoder_, errors_);
  jpeg_mem_src(&decoder_, const_cast<unsigned char*>(data), size);
  jpeg_read_header(&decoder_, TRUE);
  decoder_.out_color_space = JCS_RGB;
  decoder_.dct_method = JDCT_ISLOW;
  jpeg_calc_output_dimensions(&decoder_);
  return true;
}

bool JpegRows::shrink_under_jump(int eighths) {
  if (setjmp(errors_.jump)) return false;
  decoder_.scale_num = static_cast<unsigned>(eighths);
  decoder_.scale_denom = 8;
  decoder_.do_fancy_upsampling = FALSE;
  jpeg_calc_output_dimensions(&decoder_);
  return true;
}

bool JpegRows::start_under_jump(const Region& region) {
  if (setjmp(errors_.jump)) return false;
  jpeg_start_decompress(&decoder_);
  const auto whole = static_cast<JDIMENSION>(decoder_.output_width);
  // Upsampling of chroma looks at the next pixel, and finds none beyond the columns that are decoded.
  JDIMENSION left = static_cast<JDIMENSION>(std::max(region.left - 1, 0));
  JDIMENSION width = std::min(static_cast<JDIMENSION>(region.right + 1), whole) - left;
  if (left > 0 || width < whole) {
    jpeg_crop_scanline(&decoder_, &left, &width);
  }
  indent_ = std::size_t{3} * (static_cast<JDIMENSION>(region.left) - left);
  if (region.top > 0) jpeg_skip_scanlines(&decoder_, static_cast<JDIMENSION>(region.top));
  return true;
}

bool JpegRows::read_under_jump(int stop) {
  if (setjmp(errors_.jump)) return false;
  while (static_cast<int>(decoder_.output_scanline) < stop) {
    const int next = static_cast<int>(decoder_.output_scanline);
    const int room = std::min({kRowsAtOnce, kept_from_ + slots_ - next, static_cast<int>(decoder_.output_height) - next});
    JSAMPROW lines[kRowsAtOnce];
    for (int i = 0; i < room; ++i) lines[i] = slot(next + i);
    jpeg_read_scanlines(&decoder_, lines, static_cast<JDIMENSION>(room));
  }
  return true;
}

}  // namespace fasttrain
