#include "jpeg_session.h"

namespace fasttrain {
namespace {

ErrorManager& manager_of(j_common_ptr cinfo) { return *reinterpret_cast<ErrorManager*>(cinfo->err); }

[[noreturn]] void give_up(j_common_ptr cinfo, const char* prefix) {
  ErrorManager& errors = manager_of(cinfo);
  char message[JMSG_LENGTH_MAX];
  errors.base.format_message(cinfo, message);
  std::snprintf(errors.reason, sizeof errors.reason, "%s%s", prefix, message);
  std::longjmp(errors.jump, 1);
}

void on_error(j_common_ptr cinfo) { give_up(cinfo, ""); }

void print_nothing(j_common_ptr) {}

constexpr int kMaxScans = 100;  // encoders write ten or so; browsers stop here too

void on_progress(j_common_ptr cinfo) {
  if (reinterpret_cast<j_decompress_ptr>(cinfo)->input_scan_number <= kMaxScans) return;
  ErrorManager& errors = manager_of(cinfo);
  std::snprintf(errors.reason, sizeof errors.reason, "it has more than %d scans; save it anew", kMaxScans);
  std::longjmp(errors.jump, 1);
}

// Whether the bytes that the decoder has just skipped on its way to a marker are mere padding. libjpeg reports their
// number when the source stands behind the last of them.
bool skipped_only_zeros(j_common_ptr cinfo) {
  if (!cinfo->is_decompressor) return false;
  const auto* decoder = reinterpret_cast<j_decompress_ptr>(cinfo);
  const int count = cinfo->err->msg_parm.i[0];
  const JOCTET* end = decoder->src->next_input_byte;
  for (int back = 1; back <= count; ++back) {
    if (end[-back] != 0) return false;
  }
  return true;
}

void on_message(j_common_ptr cinfo, int level) {
  if (level >= 0) return;  // a trace
  switch (cinfo->err->msg_code) {
    case JWRN_HIT_MARKER:
    case JWRN_HUFF_BAD_CODE:
    case JWRN_ARITH_BAD_CODE:
    case JWRN_MUST_RESYNC:
      give_up(cinfo, "its entropy code is damaged: ");
    case JWRN_JPEG_EOF:
      give_up(cinfo, "it is truncated: ");
    case JWRN_EXTRANEOUS_DATA:
      if (!skipped_only_zeros(cinfo)) give_up(cinfo, "its entropy code is damaged: ");
      return;
    default:
      return;  // odd headers: not the pixels' fault
  }
}

}  // namespace

void install_error_manager(ErrorManager& errors) {
  jpeg_std_error(&errors.base);
  errors.base.error_exit = on_error;
  errors.base.emit_message = on_message;
  errors.base.output_message = print_nothing;
  errors.reason[0] = '\0';
}

void limit_scans(jpeg_decompress_struct& decoder, ErrorManager& errors) {
  errors.progress = {};
  errors.progress.progress_monitor = on_progress;
  decoder.progress = &errors.progress;
}

bool may_hold_image(const jpeg_decompress_struct& decoder, std::size_t size) {
  // The first scan has a Huffman code of one bit at the least for the mean of each block (T.81, F.1.2.1, G.1.2.1).
  // Arithmetic codes have no such bound, nor have scans without means, which libjpeg lets pass in the first place.
  if (decoder.arith_code || decoder.Ss != 0) return true;
  std::uint64_t blocks = 0;
  for (int i = 0; i < decoder.comps_in_scan; ++i) {
    const jpeg_component_info& component = *decoder.cur_comp_info[i];
    blocks += std::uint64_t{component.width_in_blocks} * component.height_in_blocks;
  }
  return blocks / 8 <= size;
}

bool lacks_scan(const jpeg_decompress_struct& decoder) {
  for (int i = 0; i < decoder.num_components; ++i) {
    if (decoder.comp_info[i].quant_table == nullptr) return true;  // taken note of with a component's first scan
    if (decoder.progressive_mode && decoder.coef_bits[i][0] < 0) return true;
  }
  return false;
}

}  // namespace fasttrain
