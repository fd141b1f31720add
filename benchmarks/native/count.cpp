// Runs one stage of the indexed way over photos, for a profiler that counts what `counted_stage` executes.
// Compiled and called by benchmarks/studies/instructions.py.
//
// count PLAN STAGE, the stage being open, plan, entropy, planes, or view_ with a type of pixels behind it; planes and views
// hold what came before them. Prints the number of photos.

#include <cstdio>
#include <functional>
#include <stdexcept>
#include <string>
#include <vector>

#include "indexed_stages.h"
#include "jpeg_session.h"
#include "plan.h"

extern "C" __attribute__((noinline)) void counted_stage(const std::function<void()>& work) {
  work();
  __asm__ volatile("" ::: "memory");  // so that the call above is not the last thing done, and stays a call
}

namespace fasttrain {
namespace {

Pixel pixel_of(const std::string& name) {
  if (name == "uint8") return Pixel::uint8;
  if (name == "float16") return Pixel::float16;
  if (name == "float32") return Pixel::float32;
  throw std::runtime_error("no such type of pixels: " + name);
}

class Count {
 public:
  Count(const Job& job, const std::string& stage)
      : job_(job), file_(job.file), stage_(stage), batch_(std::size_t{3} * sizeof(float) * job.size * job.size) {
    if (stage.rfind("view_", 0) == 0) output_ = output_of(pixel_of(stage.substr(5)), true);
  }

  // The number of photos. `counting` wraps what is to be counted.
  template <class Counting>
  int run(const Counting& counting) {
    int photos = 0;
    for (const Job::Item& item : job_.items) {
      if (!stages_.prepare(file_.at(item), item.length)) continue;
      ++photos;
      const auto step = [&](const char* name, const std::function<void()>& work) {
        stage_ == name ? counting(work) : work();
      };
      step("open", [&] { stages_.open(); });
      step("plan", [&] { stages_.plan(item.view); });
      if (stage_ == "entropy") stages_.entropy(counting);
      if (stage_ == "planes") counting([&] { stages_.planes(); });
      if (stage_.rfind("view_", 0) == 0) counting([&] { stages_.view(output_, batch_.data()); });
    }
    return photos;
  }

 private:
  const Job& job_;
  const Mapped file_;
  const std::string stage_;
  std::vector<std::uint8_t> batch_;
  Output output_{};
  IndexedStages stages_;
};

}  // namespace
}  // namespace fasttrain

int main(int count, char** arguments) {
  if (count != 3) {
    std::fprintf(stderr, "usage: count PLAN STAGE\n");
    return 2;
  }
  try {
    const fasttrain::Job job = fasttrain::read_job(arguments[1]);
    std::printf("%d\n", fasttrain::Count(job, arguments[2]).run(counted_stage));
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
