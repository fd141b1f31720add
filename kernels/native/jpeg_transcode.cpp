#include "jpeg_transcode.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <utility>

#include "jpeg_scan.h"

// One copy of a hot loop for each instruction set, chosen when the module is loaded; musl cannot.
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__)
#define FASTTRAIN_CLONES __attribute__((target_clones("avx2", "default")))
#else
#define FASTTRAIN_CLONES
#endif

namespace fasttrain {
namespace {

using Matrix = float[DCTSIZE][DCTSIZE];

// Matrices that halve a signal of two blocks in the domain of its coefficients: if X1 and X2 are the DCT of 8 samples
// each, first X1 + second X2 is the DCT of the 8 means of two neighbours.
struct Halving {
  Matrix first, second;

  Halving() {
    double dct[DCTSIZE][DCTSIZE];
    for (int k = 0; k < DCTSIZE; ++k) {
      for (int n = 0; n < DCTSIZE; ++n) {
        dct[k][n] = (k == 0 ? std::sqrt(1.0 / 8) : std::sqrt(2.0 / 8)) * std::cos(M_PI * k * (2 * n + 1) / 16);
      }
    }
    for (int k = 0; k < DCTSIZE; ++k) {
      for (int j = 0; j < DCTSIZE; ++j) {
        double upper = 0, lower = 0;
        for (int n = 0; n < DCTSIZE / 2; ++n) {
          const double mean = (dct[j][2 * n] + dct[j][2 * n + 1]) / 2;
          upper += dct[k][n] * mean;
          lower += dct[k][n + DCTSIZE / 2] * mean;
        }
        first[k][j] = static_cast<float>(upper);
        second[k][j] = static_cast<float>(lower);
      }
    }
  }
};

const Halving kHalving;

using Row = float __attribute__((vector_size(sizeof(float) * DCTSIZE)));

// out = first * upper + second * lower, of which only the first `used` rows are not zero.
FASTTRAIN_CLONES void combine(const Halving& by, const Matrix& upper, const Matrix& lower, int used, Matrix& out) {
  Row sums[DCTSIZE] = {};
  for (int k = 0; k < used; ++k) {
    Row above, below;
    std::memcpy(&above, upper[k], sizeof above);
    std::memcpy(&below, lower[k], sizeof below);
    for (int row = 0; row < DCTSIZE; ++row) sums[row] += by.first[row][k] * above + by.second[row][k] * below;
  }
  std::memcpy(out, sums, sizeof sums);
}

// How many rows and columns of a block have to be looked at: behind them all is zero.
struct Extent {
  int rows = 0, columns = 0;

  void include(const JCOEF* block) {
    std::uint64_t all[2] = {};
    for (int row = 0; row < DCTSIZE; ++row) {
      std::uint64_t halves[2];
      std::memcpy(halves, block + row * DCTSIZE, sizeof halves);
      if (halves[0] | halves[1]) rows = std::max(rows, row + 1);
      all[0] |= halves[0];
      all[1] |= halves[1];
    }
    JCOEF columns_used[DCTSIZE];
    std::memcpy(columns_used, all, sizeof columns_used);
    for (int column = columns; column < DCTSIZE; ++column) {
      if (columns_used[column]) columns = column + 1;
    }
  }
};

FASTTRAIN_CLONES void transpose(const Matrix& in, Matrix& out) {
  for (int row = 0; row < DCTSIZE; ++row) {
    for (int column = 0; column < DCTSIZE; ++column) out[column][row] = in[row][column];
  }
}

FASTTRAIN_CLONES void dequantise(const JCOEF* block, const float* quanta, Matrix& out) {
  for (int i = 0; i < DCTSIZE2; ++i) (&out[0][0])[i] = static_cast<float>(block[i]) * quanta[i];
}

// Round to whole multiples of the new quanta, within what baseline Huffman codes can say.
FASTTRAIN_CLONES void quantise(const float* values, const float* inverse_quanta, JCOEF* out) {
  for (int i = 0; i < DCTSIZE2; ++i) {
    const float scaled = std::min(std::max(values[i] * inverse_quanta[i], -1023.0f), 1023.0f);
    out[i] = static_cast<JCOEF>(scaled + kToInteger - kToInteger);
  }
}

// Everything that must outlive a jump out of libjpeg.
struct Work {
  ErrorManager errors;
  jpeg_decompress_struct decoder{};
  jpeg_compress_struct encoder{};
  CoefficientPlane planes[3];  // what is read: the target itself where the sub-sampling stays, else `kept_chroma`
  float ratios[3][DCTSIZE2];
  jvirt_barray_ptr targets[3] = {};
  Output output;
  const char* damage = nullptr;

  ~Work() {
    jpeg_destroy_decompress(&decoder);
    jpeg_destroy_compress(&encoder);
  }
};

// Chroma on its way, kept by each thread from image to image: fresh memory costs as much as filling it.
thread_local std::vector<std::array<JCOEF, DCTSIZE2>> kept_chroma[3];

bool is_handled(const jpeg_decompress_struct& decoder) {
  if (decoder.data_precision != 8) return false;
  const jpeg_component_info* parts = decoder.comp_info;
  if (decoder.num_components == 1) return decoder.jpeg_color_space == JCS_GRAYSCALE;
  if (decoder.num_components != 3 || decoder.jpeg_color_space != JCS_YCbCr) return false;
  if (parts[0].h_samp_factor > 2 || parts[0].v_samp_factor > 2) return false;
  return parts[1].h_samp_factor == 1 && parts[1].v_samp_factor == 1 && parts[2].h_samp_factor == 1 &&
         parts[2].v_samp_factor == 1;
}

class Transcoder {
 public:
  Transcoder(Work& work, int quality) : work_(work), quality_(quality) {}

  // Under setjmp; false after an error. `handled` tells whether the source is of a kind that can be transcoded.
  bool run(const std::uint8_t* data, std::size_t size, bool& handled);

 private:
  bool check_tables();
  void set_up_encoder();
  void set_up_planes();
  bool read(const std::uint8_t* data, std::size_t size);
  bool read_by_libjpeg();
  bool stays(int component) const;  // whether a component's sub-sampling is that of the target
  void fill(int component);
  void halve(int component, std::size_t row, std::size_t column, const float* quanta, Matrix& out);
  JBLOCKROW target_row(int component, std::size_t row);

  Work& work_;
  int quality_;
};

bool Transcoder::stays(int component) const {
  const jpeg_component_info& luma = work_.decoder.comp_info[0];
  return component == 0 || (luma.h_samp_factor == 2 && luma.v_samp_factor == 2);
}

JBLOCKROW Transcoder::target_row(int component, std::size_t row) {
  const auto common = reinterpret_cast<j_common_ptr>(&work_.encoder);
  const auto number = static_cast<JDIMENSION>(row);
  return (*work_.encoder.mem->access_virt_barray)(common, work_.targets[component], number, 1, TRUE)[0];
}

bool Transcoder::check_tables() {
  for (int i = 0; i < work_.decoder.num_components; ++i) {
    const int number = work_.decoder.comp_info[i].quant_tbl_no;
    if (number >= 0 && number < NUM_QUANT_TBLS && work_.decoder.quant_tbl_ptrs[number] != nullptr) continue;
    work_.damage = "its header is damaged: a quantisation table is missing";
    return false;
  }
  return true;
}

void Transcoder::set_up_planes() {
  const jpeg_decompress_struct& decoder = work_.decoder;
  for (int i = 0; i < decoder.num_components; ++i) {
    const PlaneShape shape = plane_shape(decoder, i);
    CoefficientPlane& plane = work_.planes[i];
    plane.rows.resize(shape.down);
    if (stays(i)) {
      const JQUANT_TBL* from = decoder.quant_tbl_ptrs[decoder.comp_info[i].quant_tbl_no];
      const JQUANT_TBL* to = work_.encoder.quant_tbl_ptrs[work_.encoder.comp_info[i].quant_tbl_no];
      for (int k = 0; k < DCTSIZE2; ++k) work_.ratios[i][k] = static_cast<float>(from->quantval[k]) / to->quantval[k];
      plane.ratios = work_.ratios[i];
      for (JDIMENSION row = 0; row < shape.down; ++row) plane.rows[row] = target_row(i, row);
      continue;
    }
    kept_chroma[i].assign(std::size_t{shape.across} * shape.down, {});
    for (JDIMENSION row = 0; row < shape.down; ++row) {
      plane.rows[row] = reinterpret_cast<JBLOCKROW>(kept_chroma[i].data() + std::size_t{row} * shape.across);
    }
  }
}

bool Transcoder::read(const std::uint8_t* data, std::size_t size) {
  std::size_t end;
  const ScanVerdict verdict = walk_scan(work_.decoder, data, size, end, work_.damage, work_.planes);
  return verdict == ScanVerdict::unknown ? read_by_libjpeg() : verdict == ScanVerdict::sound;
}

// Progressive images and the like: libjpeg collects the coefficients, and lets any mean of a block pass.
bool Transcoder::read_by_libjpeg() {
  jpeg_decompress_struct& decoder = work_.decoder;
  const auto common = reinterpret_cast<j_common_ptr>(&decoder);
  jvirt_barray_ptr* arrays = jpeg_read_coefficients(&decoder);
  if (lacks_scan(decoder)) {
    work_.damage = kLacksScan;
    return false;
  }
  for (int i = 0; i < decoder.num_components; ++i) {
    const jpeg_component_info& info = decoder.comp_info[i];
    const float* ratios = work_.planes[i].ratios;
    const int quantum = decoder.quant_tbl_ptrs[info.quant_tbl_no]->quantval[0];
    for (JDIMENSION row = 0; row < info.height_in_blocks; ++row) {
      const JCOEF* from = (*decoder.mem->access_virt_barray)(common, arrays[i], row, 1, FALSE)[0][0];
      JCOEF* to = work_.planes[i].rows[row][0];
      for (std::size_t k = 0; k < std::size_t{info.width_in_blocks} * DCTSIZE2; ++k) {
        if (k % DCTSIZE2 == 0 && is_wild_mean(from[k], quantum, 0)) {
          work_.damage = kWildMean;
          return false;
        }
        to[k] = ratios ? rescaled(from[k], ratios[k % DCTSIZE2]) : from[k];
      }
    }
  }
  return true;
}

void Transcoder::set_up_encoder() {
  jpeg_compress_struct& encoder = work_.encoder;
  const bool grey = work_.decoder.num_components == 1;
  encoder.image_width = work_.decoder.image_width;
  encoder.image_height = work_.decoder.image_height;
  encoder.input_components = grey ? 1 : 3;
  encoder.in_color_space = grey ? JCS_GRAYSCALE : JCS_YCbCr;
  jpeg_set_defaults(&encoder);
  jpeg_set_quality(&encoder, quality_, TRUE);
  const int luma = grey ? 1 : 2;
  encoder.comp_info[0].h_samp_factor = encoder.comp_info[0].v_samp_factor = luma;
  const auto common = reinterpret_cast<j_common_ptr>(&encoder);
  for (int i = 0; i < encoder.num_components; ++i) {
    const int factor = i == 0 ? luma : 1;
    const JDIMENSION unit = static_cast<JDIMENSION>(DCTSIZE * luma / factor);  // pixels of one block
    const JDIMENSION across = (encoder.image_width + unit - 1) / unit, down = (encoder.image_height + unit - 1) / unit;
    const auto padded = [factor](JDIMENSION blocks) { return (blocks + factor - 1) / factor * factor; };
    work_.targets[i] =
        (*encoder.mem->request_virt_barray)(common, JPOOL_IMAGE, TRUE, padded(across), padded(down), factor);
  }
  (*encoder.mem->realize_virt_arrays)(common);
}

// One block of chroma from the two or four blocks of the source in its place. Blocks beyond the image's edge are not in
// every source; nothing of them is ever seen, so the last ones stand for them.
void Transcoder::halve(int component, std::size_t row, std::size_t column, const float* quanta, Matrix& out) {
  const CoefficientPlane& plane = work_.planes[component];
  const PlaneShape shape = plane_shape(work_.decoder, component);
  const bool across = work_.decoder.comp_info[0].h_samp_factor == 1;
  const bool down = work_.decoder.comp_info[0].v_samp_factor == 1;
  const std::size_t above = std::min<std::size_t>(down ? 2 * row : row, shape.down - 1);
  const std::size_t below = std::min<std::size_t>(2 * row + 1, shape.down - 1);
  Extent extent;
  Matrix halves[2];  // halved in height (where that is needed), of the left and the right block
  for (int right = 0; right <= (across ? 1 : 0); ++right) {
    const std::size_t x = std::min<std::size_t>(across ? 2 * column + right : column, shape.across - 1);
    const JCOEF* upper = plane.rows[above][x];
    Matrix upper_values, lower_values;
    extent.include(upper);
    if (!down) {
      dequantise(upper, quanta, halves[right]);
      continue;
    }
    const JCOEF* lower = plane.rows[below][x];
    extent.include(lower);
    dequantise(upper, quanta, upper_values);
    dequantise(lower, quanta, lower_values);
    combine(kHalving, upper_values, lower_values, extent.rows, halves[right]);
  }
  if (!across) {
    std::memcpy(out, halves[0], sizeof out);
    return;
  }
  // Halving in width is the same from the other side: out = left first^T + right second^T.
  Matrix left_turned, right_turned, turned;
  transpose(halves[0], left_turned);
  transpose(halves[1], right_turned);
  combine(kHalving, left_turned, right_turned, extent.columns, turned);
  transpose(turned, out);
}

// Make the target's blocks of a component whose sub-sampling changes.
void Transcoder::fill(int component) {
  const jpeg_decompress_struct& decoder = work_.decoder;
  const JQUANT_TBL* from = decoder.quant_tbl_ptrs[decoder.comp_info[component].quant_tbl_no];
  const JQUANT_TBL* to = work_.encoder.quant_tbl_ptrs[work_.encoder.comp_info[component].quant_tbl_no];
  float quanta[DCTSIZE2], inverse[DCTSIZE2];
  for (int k = 0; k < DCTSIZE2; ++k) {
    quanta[k] = from->quantval[k];
    inverse[k] = 1.0f / to->quantval[k];
  }
  constexpr std::size_t kUnit = 2 * DCTSIZE;  // pixels of one block
  const std::size_t across = (decoder.image_width + kUnit - 1) / kUnit;
  const std::size_t down = (decoder.image_height + kUnit - 1) / kUnit;
  for (std::size_t row = 0; row < down; ++row) {
    JBLOCKROW target = target_row(component, row);
    for (std::size_t column = 0; column < across; ++column) {
      Matrix halved;
      halve(component, row, column, quanta, halved);
      quantise(&halved[0][0], inverse, target[column]);
    }
  }
}

bool Transcoder::run(const std::uint8_t* data, std::size_t size, bool& handled) {
  jpeg_decompress_struct& decoder = work_.decoder;
  jpeg_compress_struct& encoder = work_.encoder;
  decoder.err = encoder.err = &work_.errors.base;
  if (setjmp(work_.errors.jump)) return false;
  jpeg_create_decompress(&decoder);
  limit_scans(decoder, work_.errors);
  jpeg_create_compress(&encoder);
  jpeg_mem_src(&decoder, const_cast<unsigned char*>(data), size);
  jpeg_read_header(&decoder, TRUE);
  handled = is_handled(decoder) && std::uint64_t{decoder.image_width} * decoder.image_height <= kMaxPixels;
  if (!handled) return true;
  if (!check_tables()) return false;
  if (!may_hold_image(decoder, size)) {
    work_.damage = kTooShort;
    return false;
  }
  write_to(encoder, work_.output, size);
  set_up_encoder();
  set_up_planes();
  if (!read(data, size)) return false;
  for (int i = 0; i < decoder.num_components; ++i) {
    if (!stays(i)) fill(i);
  }
  jpeg_write_coefficients(&encoder, work_.targets);
  jpeg_finish_compress(&encoder);
  return true;
}

}  // namespace

std::optional<JpegStream> transcode_jpeg(const std::uint8_t* data, std::size_t size, int quality) {
  if (size < 4 || data[0] != 0xFF || data[1] != 0xD8) throw JpegError("it is not a JPEG");
  Work work;
  install_error_manager(work.errors);
  bool handled = false;
  Transcoder transcoder(work, quality);
  if (!transcoder.run(data, size, handled)) throw JpegError(work.damage != nullptr ? work.damage : work.errors.reason);
  if (!handled) return std::nullopt;
  return std::move(work.output.stream);
}

}  // namespace fasttrain
