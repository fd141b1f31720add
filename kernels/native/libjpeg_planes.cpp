#include "libjpeg_planes.h"

#include <algorithm>
#include <cstring>

namespace fasttrain {
namespace {

// Later versions of the interface tell the two sides apart.
#if JPEG_LIB_VERSION >= 70
int side_of(const jpeg_component_info& info) { return info.DCT_h_scaled_size; }
int least_side(const jpeg_decompress_struct& decoder) { return decoder.min_DCT_h_scaled_size; }
#else
int side_of(const jpeg_component_info& info) { return info.DCT_scaled_size; }
int least_side(const jpeg_decompress_struct& decoder) { return decoder.min_DCT_scaled_size; }
#endif

constexpr int kMaxLines = 4 * DCTSIZE;  // of a component in a row of MCUs

struct Session {
  jpeg_decompress_struct decoder{};
  ErrorManager errors;
  std::vector<LibjpegPlane> planes;
  std::vector<std::uint8_t> spare;           // lines below the last block
  std::vector<JSAMPROW> lines[3];
  JSAMPARRAY arrays[3] = {};

  Session() {
    install_error_manager(errors);
    decoder.err = &errors.base;
  }
  ~Session() { jpeg_destroy_decompress(&decoder); }

  void make_room(bool wants_samples) {
    planes.resize(static_cast<std::size_t>(decoder.num_components));
    for (int i = 0; i < decoder.num_components; ++i) {
      const jpeg_component_info& info = decoder.comp_info[i];
      LibjpegPlane& plane = planes[static_cast<std::size_t>(i)];
      plane.columns = static_cast<int>(info.width_in_blocks);
      plane.rows = static_cast<int>(info.height_in_blocks);
      const std::size_t blocks = std::size_t{info.width_in_blocks} * info.height_in_blocks;
      plane.side = side_of(info);
      const auto side = static_cast<std::size_t>(plane.side);
      wants_samples ? plane.samples.resize(blocks * side * side) : plane.blocks.resize(blocks * 64);
      spare.resize(std::max(spare.size(), info.width_in_blocks * side));
      lines[i].resize(kMaxLines);
      arrays[i] = lines[i].data();
    }
  }

  // Under setjmp: no objects with destructors in these.
  bool open(const std::uint8_t* data, std::size_t size) {
    if (setjmp(errors.jump)) return false;
    jpeg_create_decompress(&decoder);
    limit_scans(decoder, errors);
    jpeg_mem_src(&decoder, const_cast<unsigned char*>(data), size);
    jpeg_read_header(&decoder, TRUE);
    return true;
  }

  bool read_blocks() {
    if (setjmp(errors.jump)) return false;
    jvirt_barray_ptr* arrays_of_blocks = jpeg_read_coefficients(&decoder);
    for (int i = 0; i < decoder.num_components; ++i) {
      const jpeg_component_info& info = decoder.comp_info[i];
      for (JDIMENSION row = 0; row < info.height_in_blocks; ++row) {
        JBLOCKARRAY found = (*decoder.mem->access_virt_barray)(reinterpret_cast<j_common_ptr>(&decoder),
                                                               arrays_of_blocks[i], row, 1, FALSE);
        std::int16_t* to = planes[static_cast<std::size_t>(i)].blocks.data() + std::size_t{row} * info.width_in_blocks * 64;
        std::memcpy(to, found[0], std::size_t{info.width_in_blocks} * sizeof(JBLOCK));
      }
    }
    return true;
  }

  bool start_samples(int eighths) {
    if (setjmp(errors.jump)) return false;
    decoder.raw_data_out = TRUE;
    decoder.out_color_space = decoder.jpeg_color_space;
    decoder.dct_method = JDCT_ISLOW;
    decoder.scale_num = static_cast<unsigned>(eighths);
    decoder.scale_denom = 8;
    jpeg_start_decompress(&decoder);
    return true;
  }

  bool read_samples() {
    if (setjmp(errors.jump)) return false;
    const int least = least_side(decoder);
    for (int row = 0; decoder.output_scanline < decoder.output_height; ++row) {
      for (int i = 0; i < decoder.num_components; ++i) {
        const jpeg_component_info& info = decoder.comp_info[i];
        LibjpegPlane& plane = planes[static_cast<std::size_t>(i)];
        const int high = info.v_samp_factor * plane.side;
        for (int line = 0; line < high; ++line) {
          const int y = row * high + line;
          const std::size_t pitch = static_cast<std::size_t>(plane.columns) * plane.side;
          lines[i][static_cast<std::size_t>(line)] =
              y < plane.rows * plane.side ? plane.samples.data() + static_cast<std::size_t>(y) * pitch : spare.data();
        }
      }
      jpeg_read_raw_data(&decoder, arrays, static_cast<JDIMENSION>(decoder.max_v_samp_factor * least));
    }
    return true;
  }
};

}  // namespace

std::vector<LibjpegPlane> read_libjpeg_planes(const std::uint8_t* data, std::size_t size, bool wants_samples,
                                              int eighths) {
  Session session;
  if (!session.open(data, size)) throw JpegError(session.errors.reason);
  if (session.decoder.num_components > 3) throw JpegError("it has more than three components");
  if (wants_samples && !session.start_samples(eighths)) throw JpegError(session.errors.reason);
  session.make_room(wants_samples);
  if (!(wants_samples ? session.read_samples() : session.read_blocks())) throw JpegError(session.errors.reason);
  return std::move(session.planes);
}

}  // namespace fasttrain
