#include "jpeg_check.h"

#include <cstring>

#include "indexed_header.h"
#include "jpeg_scan.h"

namespace fasttrain {
namespace {

constexpr std::uint64_t kMaxCoefficientBytes = std::uint64_t{2} << 30;  // a progressive image is held as a whole

// What the header's segments tell and libjpeg does not.
void scan_segments(const std::uint8_t* data, std::size_t size, JpegFacts& facts) {
  std::size_t at = 2;
  while (at + 4 <= size && data[at] == 0xFF) {
    const int marker = data[at + 1];
    if (marker == 0xFF) {  // a fill byte
      ++at;
      continue;
    }
    if (marker == 0xDA || marker == 0xD9) return;
    if (marker == 0x01 || (marker >= 0xD0 && marker <= 0xD8)) {  // without a length
      at += 2;
      continue;
    }
    const std::size_t length = std::size_t{data[at + 2]} << 8 | data[at + 3];
    const bool is_frame = marker >= 0xC0 && marker <= 0xCF && marker != 0xC4 && marker != 0xC8 && marker != 0xCC;
    if (is_frame) facts.process = marker;
    if (marker == 0xE1) facts.has_metadata = true;
    if (marker == 0xE2 && length >= 13 && at + 15 <= size && std::memcmp(data + at + 4, "ICC_PROFILE", 11) == 0) {
      facts.has_profile = true;
    }
    at += 2 + length;
  }
}

std::uint64_t coefficient_bytes(const jpeg_decompress_struct& decoder) {
  std::uint64_t blocks = 0;
  for (int i = 0; i < decoder.num_components; ++i) {
    blocks += std::uint64_t{decoder.comp_info[i].width_in_blocks} * decoder.comp_info[i].height_in_blocks;
  }
  return blocks * sizeof(JBLOCK);
}

// Reads the entropy code of a single-scan image row by row; nothing is kept.
void walk_single_scan(jpeg_decompress_struct& decoder) {
  decoder.out_color_space = decoder.jpeg_color_space;
  decoder.do_fancy_upsampling = FALSE;
  decoder.dct_method = JDCT_IFAST;
  jpeg_start_decompress(&decoder);
  // libjpeg does not look at rows that are skipped up to the end, so the last one has to be read.
  jpeg_skip_scanlines(&decoder, decoder.output_height - 1);
  JSAMPARRAY row = (*decoder.mem->alloc_sarray)(reinterpret_cast<j_common_ptr>(&decoder), JPOOL_IMAGE,
                                                decoder.output_width * decoder.output_components, 1);
  while (decoder.output_scanline < decoder.output_height) jpeg_read_scanlines(&decoder, row, 1);
}

void note_header(const jpeg_decompress_struct& decoder, JpegFacts& facts) {
  facts.width = static_cast<int>(decoder.image_width);
  facts.height = static_cast<int>(decoder.image_height);
  facts.components = decoder.num_components;
  facts.precision = decoder.data_precision;
  facts.colour_space = decoder.jpeg_color_space;
  facts.restarts = decoder.restart_interval != 0;
  for (int i = 0; i < decoder.num_components && i < 4; ++i) {
    facts.factors[i] = {decoder.comp_info[i].h_samp_factor, decoder.comp_info[i].v_samp_factor};
  }
}

// Whether the decoder of indexed images, which knows fewer markers, sees in the header what libjpeg does.
bool is_read_alike(const jpeg_decompress_struct& decoder, const std::uint8_t* data, std::size_t size) {
  IndexedHeader header;
  try {
    read_indexed_header(data, size, header);
  } catch (const JpegError&) {
    return false;
  }
  const J_COLOR_SPACE colours[] = {JCS_GRAYSCALE, JCS_YCbCr, JCS_RGB};
  return header.scan == decoder.src->next_input_byte && header.width == static_cast<int>(decoder.image_width) &&
         header.height == static_cast<int>(decoder.image_height) &&
         colours[static_cast<int>(header.colour)] == decoder.jpeg_color_space;
}

struct Decoder {  // freed when memory for the scan runs out, too
  jpeg_decompress_struct base{};

  ~Decoder() { jpeg_destroy_decompress(&base); }
};

// Under setjmp: no objects with destructors here.
bool run(jpeg_decompress_struct& decoder, ErrorManager& errors, const std::uint8_t* data, std::size_t size,
         JpegFacts& facts, const char*& damage, ScanIndex* index) {
  decoder.err = &errors.base;
  if (setjmp(errors.jump)) return false;
  jpeg_create_decompress(&decoder);
  limit_scans(decoder, errors);
  jpeg_mem_src(&decoder, const_cast<unsigned char*>(data), size);
  jpeg_read_header(&decoder, TRUE);
  note_header(decoder, facts);  // libjpeg forgets it when it has finished
  const ScanVerdict verdict = walk_scan(decoder, data, size, facts.length, damage, nullptr, index);
  if (verdict != ScanVerdict::unknown) return verdict == ScanVerdict::sound;
  if (jpeg_has_multiple_scans(&decoder)) {
    if (!may_hold_image(decoder, size)) {
      damage = kTooShort;
      return false;
    }
    jpeg_calc_output_dimensions(&decoder);
    if (coefficient_bytes(decoder) > kMaxCoefficientBytes) {
      damage = "it is progressive and too large to be checked; save it as a baseline JPEG";
      return false;
    }
    jpeg_read_coefficients(&decoder);
    if (lacks_scan(decoder)) {
      damage = kLacksScan;
      return false;
    }
  } else {
    walk_single_scan(decoder);
  }
  jpeg_finish_decompress(&decoder);
  facts.length = static_cast<std::size_t>(decoder.src->next_input_byte - data);
  return true;
}

}  // namespace

JpegFacts check_jpeg(const std::uint8_t* data, std::size_t size, ScanIndex* index) {
  if (size < 4 || data[0] != 0xFF || data[1] != 0xD8) throw JpegError("it is not a JPEG");
  JpegFacts facts;
  scan_segments(data, size, facts);
  ErrorManager errors;
  install_error_manager(errors);
  Decoder decoder;
  const char* damage = nullptr;
  const bool sound = run(decoder.base, errors, data, size, facts, damage, index);
  if (!sound) throw JpegError(damage != nullptr ? damage : errors.reason);
  if (index != nullptr && index->is_complete() && !is_read_alike(decoder.base, data, size)) index->drop();
  return facts;
}

}  // namespace fasttrain
