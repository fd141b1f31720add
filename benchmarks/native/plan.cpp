#include "plan.h"

#include <fstream>
#include <stdexcept>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

namespace fasttrain {

Job read_job(const char* path) {
  std::ifstream plan(path);
  Job job;
  std::getline(plan, job.file);
  plan >> job.size;
  Job::Item item{};
  View& view = item.view;
  int hflip = 0;
  while (plan >> item.offset >> item.length >> item.width >> item.height >> view.left >> view.top >> view.width >>
         view.height >> hflip) {
    view.resized_width = view.resized_height = job.size;
    view.columns = view.lines = view.pitch = job.size;
    view.filter = Filter::bilinear;
    view.hflip = hflip != 0;
    job.items.push_back(item);
  }
  if (job.items.empty()) throw std::runtime_error(std::string("there is no sample in the plan ") + path);
  return job;
}

Mapped::Mapped(const std::string& path) {
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  struct stat status{};
  if (descriptor < 0 || ::fstat(descriptor, &status) != 0) throw std::runtime_error("cannot open " + path);
  size_ = static_cast<std::size_t>(status.st_size);
  void* at = ::mmap(nullptr, size_, PROT_READ, MAP_SHARED, descriptor, 0);
  ::close(descriptor);
  if (at == MAP_FAILED) throw std::runtime_error("cannot map " + path);
  data_ = static_cast<const std::uint8_t*>(at);
}

Mapped::~Mapped() { ::munmap(const_cast<std::uint8_t*>(data_), size_); }

const std::uint8_t* Mapped::at(const Job::Item& item) const {
  if (item.length > size_ || item.offset > size_ - item.length) throw std::runtime_error("the plan leaves the file");
  return data_ + item.offset;
}

Output output_of(Pixel kind, bool normalised) {
  Output output{kind, {1, 1, 1}, {0, 0, 0}};
  if (!normalised) return output;
  const float mean[] = {0.485f, 0.456f, 0.406f}, deviation[] = {0.229f, 0.224f, 0.225f};
  for (int channel = 0; channel < 3; ++channel) {
    output.scale[channel] = 1 / (255 * deviation[channel]);
    output.shift[channel] = -mean[channel] / deviation[channel];
  }
  return output;
}

}  // namespace fasttrain
