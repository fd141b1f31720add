// One sample's way from its stored bytes to finished pixels.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "augment_batch.h"
#include "indexed_sample.h"
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
  const std::uint64_t* index = nullptr;  // random-access index of a JPEG in memory, if it has one
  std::size_t entries = 0;               // of the index
  int width = 0, height = 0;     // what the image has to be
  std::uint8_t* keep = nullptr;  // where the pixels of the whole image are to be left, if they are
};

// A view of a sample, and where its pixels go: into a frame, which may be larger than the view's window.
struct Target {
  View view;           // its pitch is the width of the frame
  void* out;           // the frame
  std::size_t entry;   // number of the view in the batch
  int height;          // of the frame
  int place_x, place_y;  // of the window in the frame

  std::size_t pixels() const { return static_cast<std::size_t>(view.pitch) * height; }
  // Where the window begins.
  void* window(Pixel kind) const {
    const std::size_t before = static_cast<std::size_t>(view.pitch) * place_y + place_x;
    return static_cast<std::uint8_t*>(out) + 3 * bytes_of(kind) * before;
  }
  bool is_filled() const { return view.columns == view.pitch && view.lines == height; }
};

// What is to be made of a sample: so many views of it, at least one.
struct Targets {
  const Target* first;
  int count;
  const Output& output;
  bool fast;  // decode faster and less exactly where that is possible
  const AugmentBatch* augment;  // what is done to each entry before it is normalised; null for nothing
};

enum class Outcome : std::uint8_t { pending, done, not_handled, failed };

// Memory of one thread.
struct Scratch {
  std::vector<Resampler> views;
  std::vector<std::uint8_t> file, rows;
  std::unique_ptr<IndexedSample> indexed;  // made when it is first needed
  Augmenter augmenter;
  std::vector<std::uint8_t> bytes;  // views before they are augmented
  std::vector<Target> targets;      // that go there

  // Give memory back after an image that took much of it.
  void trim();
};

// Fills all views of a sample from one decoding of it. Never throws; `error` is the reason of a failure, as a clause. What
// the targets and `keep` hold after anything but `done` is not to be shown.
Outcome fill_sample(const Sample& sample, const Targets& targets, Scratch& scratch, std::string& error);

// Ask the system to read a sample's bytes ahead; returns at once, and whatever goes wrong shows when they are read.
void read_ahead(const Sample& sample);

}  // namespace fasttrain
