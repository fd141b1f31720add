#include "jpeg_repack.h"

#include <cstring>
#include <utility>

#include "jpeg_check.h"
#include "jpeg_scan.h"

namespace fasttrain {
namespace {

constexpr unsigned kWholeSegment = 0xFFFF;

enum class Outcome {
  damaged,
  unknown,  // it is not for us, and has not been checked either
  left,     // it is sound, and stays as it is
  coded
};

// Everything that must outlive a jump out of libjpeg.
struct Work {
  ErrorManager errors;
  jpeg_decompress_struct decoder{};
  jpeg_compress_struct encoder{};
  Output output;
  const char* damage = nullptr;
  jpeg_saved_marker_ptr last_of_header = nullptr;
  bool is_read = false;

  ~Work() {
    jpeg_destroy_decompress(&decoder);
    jpeg_destroy_compress(&encoder);
  }
};

bool is_handled(const jpeg_decompress_struct& decoder) {
  return decoder.data_precision == 8 && shape_of(decoder).components != 0 &&
         std::uint64_t{decoder.image_width} * decoder.image_height <= kMaxPixels;
}

// Whether a progressive image has been sent to the last bit. Where not, decoders smooth what they show.
bool is_refined(const jpeg_decompress_struct& decoder) {
  if (!decoder.progressive_mode) return true;
  for (int i = 0; i < decoder.num_components; ++i) {
    for (const int missing : decoder.coef_bits[i]) {
      if (missing != 0) return false;
    }
  }
  return true;
}

bool same(const JHUFF_TBL* one, const JHUFF_TBL* other) {
  if (one == nullptr) return true;  // not in use
  return other != nullptr && std::memcmp(one->bits + 1, other->bits + 1, 16) == 0 &&
         std::memcmp(one->huffval, other->huffval, sizeof one->huffval) == 0;
}

// Whether the source was made with codes of its own. `encoder` has the standard's.
bool has_own_codes(const jpeg_decompress_struct& decoder, const jpeg_compress_struct& encoder) {
  if (decoder.progressive_mode || decoder.arith_code) return true;
  for (int i = 0; i < NUM_HUFF_TBLS; ++i) {
    if (!same(decoder.dc_huff_tbl_ptrs[i], encoder.dc_huff_tbl_ptrs[i])) return true;
    if (!same(decoder.ac_huff_tbl_ptrs[i], encoder.ac_huff_tbl_ptrs[i])) return true;
  }
  return false;
}

void write_segments(Work& work) {
  bool in_header = work.last_of_header != nullptr;
  for (jpeg_saved_marker_ptr segment = work.decoder.marker_list; segment != nullptr; segment = segment->next) {
    // JFIF and Adobe segments say what the colours are, but those behind the first scan come too late for that.
    const bool is_late = !in_header && (segment->marker == JPEG_APP0 || segment->marker == JPEG_APP0 + 14);
    if (!is_late) jpeg_write_marker(&work.encoder, segment->marker, segment->data, segment->data_length);
    if (segment == work.last_of_header) in_header = false;
  }
}

jpeg_saved_marker_ptr last_segment(const jpeg_decompress_struct& decoder) {
  jpeg_saved_marker_ptr last = decoder.marker_list;
  while (last != nullptr && last->next != nullptr) last = last->next;
  return last;
}

// Whether libjpeg has failed at what is sound, but cannot be coded as it should be.
bool has_no_code(const Work& work) {
  const int reason = work.errors.base.msg_code;
  return work.is_read && (reason == JERR_BAD_DCT_COEF || reason == JERR_MISMATCHED_QUANT_TABLE);
}

void write(Work& work, jvirt_barray_ptr* coefficients, std::size_t size) {
  jpeg_compress_struct& encoder = work.encoder;
  jpeg_create_compress(&encoder);
  write_to(encoder, work.output, size + size / 4);
  jpeg_copy_critical_parameters(&work.decoder, &encoder);
  encoder.arith_code = FALSE;
  encoder.optimize_coding = has_own_codes(work.decoder, encoder) ? TRUE : FALSE;
  encoder.write_JFIF_header = encoder.write_Adobe_marker = FALSE;  // they come with the other segments
  jpeg_write_coefficients(&encoder, coefficients);
  write_segments(work);
  jpeg_finish_compress(&encoder);
}

// Under setjmp: no objects with destructors here.
Outcome run(Work& work, const std::uint8_t* data, std::size_t size) {
  jpeg_decompress_struct& decoder = work.decoder;
  decoder.err = work.encoder.err = &work.errors.base;
  if (setjmp(work.errors.jump)) return has_no_code(work) ? Outcome::left : Outcome::damaged;
  jpeg_create_decompress(&decoder);
  limit_scans(decoder, work.errors);
  jpeg_save_markers(&decoder, JPEG_COM, kWholeSegment);
  for (int i = 0; i < 16; ++i) jpeg_save_markers(&decoder, JPEG_APP0 + i, kWholeSegment);
  jpeg_mem_src(&decoder, const_cast<unsigned char*>(data), size);
  jpeg_read_header(&decoder, TRUE);
  if (!is_handled(decoder)) return Outcome::unknown;
  work.last_of_header = last_segment(decoder);
  std::size_t end;
  const ScanVerdict verdict = walk_scan(decoder, data, size, end, work.damage);
  if (verdict == ScanVerdict::damaged) return Outcome::damaged;
  if (verdict == ScanVerdict::sound && decoder.restart_interval == 0) return Outcome::left;
  if (!may_hold_image(decoder, size)) {
    work.damage = kTooShort;
    return Outcome::damaged;
  }
  jvirt_barray_ptr* coefficients = jpeg_read_coefficients(&decoder);
  if (lacks_scan(decoder)) {
    work.damage = kLacksScan;
    return Outcome::damaged;
  }
  work.is_read = true;
  if (!is_refined(decoder)) return Outcome::left;
  write(work, coefficients, size);
  return Outcome::coded;
}

bool can_be_indexed(const JpegStream& stream) {
  ScanIndex index;
  try {
    check_jpeg(stream.data.get(), stream.size, &index);
  } catch (const JpegError&) {  // libjpeg lets pass what a walk does not, such as means far out of range
    return false;
  }
  return index.is_complete();
}

}  // namespace

std::optional<JpegStream> repack_jpeg(const std::uint8_t* data, std::size_t size) {
  if (size < 4 || data[0] != 0xFF || data[1] != 0xD8) throw JpegError("it is not a JPEG");
  Work work;
  install_error_manager(work.errors);
  const Outcome outcome = run(work, data, size);
  if (outcome == Outcome::damaged) throw JpegError(work.damage != nullptr ? work.damage : work.errors.reason);
  if (outcome == Outcome::unknown) check_jpeg(data, size);
  if (outcome != Outcome::coded || !can_be_indexed(work.output.stream)) return std::nullopt;
  return std::move(work.output.stream);
}

}  // namespace fasttrain
