#include "jpeg_transcode.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

namespace fasttrain {
namespace {

constexpr int kStrip = 2 * DCTSIZE;  // luma rows that the encoder takes at a time

// Rows of samples with room for whole blocks on the right, for one call of libjpeg's raw interface.
struct Plane {
  std::vector<JSAMPLE> samples;
  std::vector<JSAMPROW> rows;

  void shape(std::size_t width, std::size_t height) {
    samples.assign(width * height, 0);
    rows.resize(height);
    for (std::size_t y = 0; y < height; ++y) rows[y] = samples.data() + y * width;
  }
};

// Everything that must outlive a jump out of libjpeg.
struct Work {
  ErrorManager errors;
  jpeg_decompress_struct decoder{};
  jpeg_compress_struct encoder{};
  Plane source[3];  // as decoded: a strip of 16 luma rows and the chroma rows that belong to it
  Plane target[3];  // as encoded: 4:2:0
  unsigned char* stream = nullptr;
  unsigned long stream_size = 0;

  ~Work() {
    jpeg_destroy_decompress(&decoder);
    jpeg_destroy_compress(&encoder);
    std::free(stream);
  }
};

std::size_t padded(std::size_t length, std::size_t step) { return (length + step - 1) / step * step; }

bool is_handled(const jpeg_decompress_struct& decoder) {
  if (decoder.data_precision != 8) return false;
  const jpeg_component_info* parts = decoder.comp_info;
  if (decoder.num_components == 1) return decoder.jpeg_color_space == JCS_GRAYSCALE;
  if (decoder.num_components != 3 || decoder.jpeg_color_space != JCS_YCbCr) return false;
  if (parts[0].h_samp_factor > 2 || parts[0].v_samp_factor > 2) return false;
  return parts[1].h_samp_factor == 1 && parts[1].v_samp_factor == 1 && parts[2].h_samp_factor == 1 &&
         parts[2].v_samp_factor == 1;
}

// Continue a row to the right with its last real sample.
void extend(JSAMPROW row, std::size_t real, std::size_t total) {
  std::memset(row + real, row[real - 1], total - real);
}

// Halve rows of chroma where the source has twice as many samples as 4:2:0, by the mean of 2 or 4 of them. The rounding
// alternates along a row, as in libjpeg's own downsampling (jcsample.c), so that it has no drift.
void halve_row(const JSAMPLE* upper, const JSAMPLE* lower, JSAMPROW out, std::size_t count, bool across) {
  if (!across) {
    for (std::size_t x = 0; x < count; ++x) out[x] = static_cast<JSAMPLE>((upper[x] + lower[x] + (x & 1)) >> 1);
    return;
  }
  for (std::size_t x = 0; x < count; ++x) {
    const int sum = upper[2 * x] + upper[2 * x + 1] + lower[2 * x] + lower[2 * x + 1];
    out[x] = static_cast<JSAMPLE>((sum + 1 + (x & 1)) >> 2);
  }
}

class Transcoder {
 public:
  Transcoder(Work& work, int quality) : work_(work), quality_(quality) {}

  // Under setjmp; false after an error. `handled` tells whether the source is of a kind that can be transcoded.
  bool run(const std::uint8_t* data, std::size_t size, bool& handled);

 private:
  void prepare_planes();
  void start_encoder();
  void read_strip(std::size_t top);
  void write_strip(std::size_t top);
  void make_chroma(int component, std::size_t top);

  Work& work_;
  int quality_;
  std::size_t width_ = 0, height_ = 0;
  int across_ = 1, down_ = 1;  // luma samples for each chroma sample in the source
};

void Transcoder::prepare_planes() {
  const jpeg_decompress_struct& decoder = work_.decoder;
  width_ = decoder.image_width;
  height_ = decoder.image_height;
  across_ = decoder.comp_info[0].h_samp_factor;
  down_ = decoder.comp_info[0].v_samp_factor;
  if (decoder.num_components == 1) across_ = down_ = 1;  // a single component has no ratio to others
  const std::size_t luma_width = padded(width_, kStrip);
  work_.source[0].shape(luma_width, kStrip);
  work_.target[0].shape(luma_width, kStrip);
  for (int i = 1; i < decoder.num_components; ++i) {
    work_.source[i].shape(padded(width_, kStrip) / across_ + DCTSIZE, kStrip / down_);
    work_.target[i].shape(luma_width / 2, DCTSIZE);
  }
}

void Transcoder::start_encoder() {
  jpeg_compress_struct& encoder = work_.encoder;
  const bool grey = work_.decoder.num_components == 1;
  encoder.image_width = static_cast<JDIMENSION>(width_);
  encoder.image_height = static_cast<JDIMENSION>(height_);
  encoder.input_components = grey ? 1 : 3;
  encoder.in_color_space = grey ? JCS_GRAYSCALE : JCS_YCbCr;
  jpeg_set_defaults(&encoder);
  jpeg_set_quality(&encoder, quality_, TRUE);
  encoder.dct_method = JDCT_ISLOW;
  encoder.raw_data_in = TRUE;
  if (!grey) {
    encoder.comp_info[0].h_samp_factor = encoder.comp_info[0].v_samp_factor = 2;
    encoder.comp_info[1].h_samp_factor = encoder.comp_info[1].v_samp_factor = 1;
    encoder.comp_info[2].h_samp_factor = encoder.comp_info[2].v_samp_factor = 1;
  }
  jpeg_start_compress(&encoder, TRUE);
}

// Decode the rows of a strip; at the bottom the last real row is repeated.
void Transcoder::read_strip(std::size_t top) {
  jpeg_decompress_struct& decoder = work_.decoder;
  const int step = down_ * DCTSIZE;  // luma rows of one call
  for (int first = 0; first < kStrip && top + first < height_; first += step) {
    JSAMPARRAY parts[3];
    for (int i = 0; i < decoder.num_components; ++i) {
      parts[i] = work_.source[i].rows.data() + (i == 0 ? first : first / down_);
    }
    jpeg_read_raw_data(&decoder, parts, static_cast<JDIMENSION>(step));
  }
}

void Transcoder::make_chroma(int component, std::size_t top) {
  Plane& source = work_.source[component];
  Plane& target = work_.target[component];
  const std::size_t real_width = (width_ + across_ - 1) / across_;       // samples of the source that show something
  const std::size_t real_height = (height_ - top + down_ - 1) / down_;   // rows of it in this strip
  const std::size_t out_width = (width_ + 1) / 2;
  const std::size_t total = padded(out_width, DCTSIZE);
  for (std::size_t y = 0; y < DCTSIZE; ++y) {
    const std::size_t last = std::min<std::size_t>(real_height, kStrip / down_) - 1;
    const std::size_t first_row = std::min(y * (2 / down_), last);
    const std::size_t second_row = std::min(y * (2 / down_) + (2 / down_) - 1, last);
    JSAMPROW upper = source.rows[first_row];
    JSAMPROW lower = source.rows[second_row];
    if (across_ == 2 && down_ == 2) {
      std::memcpy(target.rows[y], upper, real_width);
    } else {
      if (across_ == 1 && real_width % 2) upper[real_width] = upper[real_width - 1], lower[real_width] = lower[real_width - 1];
      halve_row(upper, lower, target.rows[y], out_width, across_ == 1);
    }
    extend(target.rows[y], out_width, total);
  }
}

void Transcoder::write_strip(std::size_t top) {
  jpeg_compress_struct& encoder = work_.encoder;
  const std::size_t real_rows = std::min<std::size_t>(kStrip, height_ - top);
  Plane& luma = work_.source[0];
  for (std::size_t y = 0; y < real_rows; ++y) extend(luma.rows[y], width_, padded(width_, kStrip));
  for (std::size_t y = real_rows; y < kStrip; ++y) {
    std::memcpy(luma.rows[y], luma.rows[real_rows - 1], padded(width_, kStrip));
  }
  JSAMPARRAY parts[3] = {luma.rows.data(), nullptr, nullptr};
  if (encoder.num_components == 1) {
    for (int first = 0; first < kStrip && top + first < padded(height_, DCTSIZE); first += DCTSIZE) {
      parts[0] = luma.rows.data() + first;
      jpeg_write_raw_data(&encoder, parts, DCTSIZE);
    }
    return;
  }
  for (int i = 1; i < 3; ++i) {
    make_chroma(i, top);
    parts[i] = work_.target[i].rows.data();
  }
  jpeg_write_raw_data(&encoder, parts, kStrip);
}

bool Transcoder::run(const std::uint8_t* data, std::size_t size, bool& handled) {
  work_.decoder.err = &work_.errors.base;
  work_.encoder.err = &work_.errors.base;
  if (setjmp(work_.errors.jump)) return false;
  jpeg_create_decompress(&work_.decoder);
  jpeg_create_compress(&work_.encoder);
  jpeg_mem_src(&work_.decoder, const_cast<unsigned char*>(data), size);
  jpeg_read_header(&work_.decoder, TRUE);
  handled = is_handled(work_.decoder);
  if (!handled) return true;
  prepare_planes();
  work_.decoder.raw_data_out = TRUE;
  work_.decoder.dct_method = JDCT_ISLOW;
  work_.decoder.do_fancy_upsampling = FALSE;
  work_.decoder.out_color_space = work_.decoder.jpeg_color_space;
  jpeg_start_decompress(&work_.decoder);
  jpeg_mem_dest(&work_.encoder, &work_.stream, &work_.stream_size);
  start_encoder();
  for (std::size_t top = 0; top < height_; top += kStrip) {
    read_strip(top);
    write_strip(top);
  }
  jpeg_finish_decompress(&work_.decoder);
  jpeg_finish_compress(&work_.encoder);
  return true;
}

}  // namespace

std::optional<std::vector<std::uint8_t>> transcode_jpeg(const std::uint8_t* data, std::size_t size, int quality) {
  if (size < 4 || data[0] != 0xFF || data[1] != 0xD8) throw JpegError("it is not a JPEG");
  Work work;
  install_error_manager(work.errors);
  bool handled = false;
  Transcoder transcoder(work, quality);
  if (!transcoder.run(data, size, handled)) throw JpegError(work.errors.reason);
  if (!handled) return std::nullopt;
  return std::vector<std::uint8_t>(work.stream, work.stream + work.stream_size);
}

}  // namespace fasttrain
