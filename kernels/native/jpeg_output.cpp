#include "jpeg_output.h"

#include <algorithm>

namespace fasttrain {
namespace {

constexpr std::size_t kMinCapacity = 4096;

Output& output_of(j_compress_ptr encoder) { return *reinterpret_cast<Output*>(encoder->dest); }

// Make room behind the first `used` bytes.
void grow(j_compress_ptr encoder, std::size_t used, std::size_t capacity) {
  Output& output = output_of(encoder);
  auto* moved = static_cast<unsigned char*>(std::realloc(output.stream.data.get(), capacity));
  if (moved == nullptr) ERREXIT1(encoder, JERR_OUT_OF_MEMORY, 0);  // the old memory is kept, and freed by its owner
  static_cast<void>(output.stream.data.release());
  output.stream.data.reset(moved);
  output.capacity = capacity;
  output.base.next_output_byte = moved + used;
  output.base.free_in_buffer = capacity - used;
}

void on_start(j_compress_ptr) {}

// libjpeg calls it when the buffer is full, whatever `free_in_buffer` says.
boolean on_full(j_compress_ptr encoder) {
  const std::size_t used = output_of(encoder).capacity;
  grow(encoder, used, 2 * used);
  return TRUE;
}

void on_end(j_compress_ptr encoder) {
  Output& output = output_of(encoder);
  output.stream.size = output.capacity - output.base.free_in_buffer;
}

}  // namespace

void write_to(jpeg_compress_struct& encoder, Output& output, std::size_t expected) {
  output.base.init_destination = on_start;
  output.base.empty_output_buffer = on_full;
  output.base.term_destination = on_end;
  encoder.dest = &output.base;
  grow(&encoder, 0, std::max(expected, kMinCapacity));
}

}  // namespace fasttrain
