// What benchmarks/stages.py wants done: photos in a file, and a view of each.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "resample.h"

namespace fasttrain {

struct Job {
  std::string file;
  int size = 0;
  struct Item {
    std::size_t offset, length;
    int width, height;
    View view;
  };
  std::vector<Item> items;
};

// The plan's first line is the file that holds the streams, the second the side of the views; each further line a sample:
// offset, length, width, height, and its view as left, top, width, height, hflip.
Job read_job(const char* path);

// A file as the loader has it: mapped, its pages in the page cache but not yet in this process.
class Mapped {
 public:
  explicit Mapped(const std::string& path);
  ~Mapped();
  Mapped(const Mapped&) = delete;
  Mapped& operator=(const Mapped&) = delete;

  const std::uint8_t* at(const Job::Item& item) const;

 private:
  const std::uint8_t* data_;
  std::size_t size_;
};

// Normalised as ImageNet is, in units of 0 to 255, or as it is.
Output output_of(Pixel kind, bool normalised);

}  // namespace fasttrain
