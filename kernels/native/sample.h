// One sample's way from its stored bytes to finished pixels.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "resample.h"

namespace fasttrain {

enum class Stored : std::uint8_t {
  other = 0,      // what the caller has to decode
  jpeg = 1,       // a JPEG stream in memory, taken as it is
  raw = 2,        // RGB pixels in memory
  jpeg_file = 3,  // an image file, or a part of a file, to be shown upright; `other` where it is no plain JPEG
};

struct Sample {
  Stored stored = Stored::other;
  const std::uint8_t* data = nullptr;  // in memory
  std::uint64_t offset = 0, length = 0;  // in the file: length 0 for all of it; in memory: length
  std::string path;
  int width = 0, height = 0;  // what the image has to be
  View view{};
};

enum class Outcome : std::uint8_t { pending, done, not_handled, failed };

// Memory of one thread.
struct Scratch {
  ResampleScratch resample;
  std::vector<std::uint8_t> file, rows;

  // Give memory back after an image that took much of it.
  void trim();
};

// Fills `out`, of size x size pixels. Never throws; `error` is the reason of a failure, as a clause. What `out` holds after
// anything but `done` is not to be shown.
Outcome fill_sample(const Sample& sample, const Output& output, bool fast, Scratch& scratch, void* out,
                    std::string& error);

// Why a sample's box, window or bytes cannot be right; null when they can.
const char* fault_of(const Sample& sample);

}  // namespace fasttrain
