// The inner loops of colour jitter and normalisation. One source (colour_kernels.inc) is compiled for each instruction set.
#pragma once

#include <cstddef>
#include <cstdint>

#include "simd.h"

namespace fasttrain {

constexpr int kColourBlock = 256;  // pixels taken at a time: what is done to them stays in the first-level cache

// Pixels with their channels apart, values 0 to 1. Loops run over all of it, so that they need no rest.
struct ColourBlock {
  alignas(64) float red[kColourBlock], green[kColourBlock], blue[kColourBlock];
};

enum ColourOperation { kBrightness, kContrast, kSaturation, kHue, kNoOperation };

// value * scale + shift of each channel.
struct ColourScale {
  float scale[3], shift[3];
};

struct ColourKernels {
  // `count` pixels of three bytes; black behind them.
  void (*load)(const std::uint8_t* pixels, int count, ColourBlock& block);
  // `mean` is that of the luma of the whole image, for contrast.
  void (*apply)(ColourBlock& block, ColourOperation operation, float factor, float mean);
  // Sum of the luma of `count` pixels.
  float (*luma)(const ColourBlock& block, int count);
  // Scale, shift, round and store `count` pixels as float32, float16, bfloat16.
  void (*store[3])(const ColourBlock& block, int count, const ColourScale& scale, void* out);
  // The same without any jitter; the scale is that of bytes.
  void (*normalise[3])(const std::uint8_t* pixels, std::size_t count, const ColourScale& scale, void* out);
};

const ColourKernels& colour_kernels(Simd level);

// One for each instruction set that the build has. (AVX512 would gain nothing: these loops wait for memory.)
extern const ColourKernels kPortableColour;
#if defined(__x86_64__)
extern const ColourKernels kAvx2Colour;
#endif

}  // namespace fasttrain
