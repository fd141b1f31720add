#include "team.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#include <dlfcn.h>

namespace fasttrain {
namespace {

struct Team {
  explicit Team(std::size_t count, const std::function<void(std::size_t)>& function) : jobs(count), work(function) {}

  void run() {
    try {
      for (std::size_t job = next++; job < jobs; job = next++) work(job);
    } catch (...) {  // no memory
      const std::lock_guard<std::mutex> held(lock);
      failure = std::current_exception();
    }
  }

  std::size_t jobs;
  const std::function<void(std::size_t)>& work;
  std::atomic<std::size_t> next{0};
  std::mutex lock;
  std::exception_ptr failure;
};

// What compilers make of `#pragma omp parallel`; libgomp has it, and LLVM's libomp for its sake.
typedef void (*Parallel)(void (*)(void*), void*, unsigned, unsigned);

Parallel find_openmp() { return reinterpret_cast<Parallel>(::dlsym(RTLD_DEFAULT, "GOMP_parallel")); }

void run_threads(Team& team, std::size_t count) {
  std::vector<std::thread> others;
  try {
    while (others.size() + 1 < count) others.emplace_back([&team] { team.run(); });
  } catch (...) {  // no more threads to be had: those that there are do the work
  }
  team.run();
  for (std::thread& other : others) other.join();
}

}  // namespace

void on_team(std::size_t jobs, int threads, const std::function<void(std::size_t)>& work) {
  Team team(jobs, work);
  const std::size_t count = std::min<std::size_t>(static_cast<std::size_t>(std::max(threads, 1)), jobs);
  if (count < 2) {
    team.run();
  } else if (const Parallel parallel = find_openmp()) {
    parallel([](void* given) { static_cast<Team*>(given)->run(); }, &team, static_cast<unsigned>(count), 0);
  } else {
    run_threads(team, count);
  }
  if (team.failure) std::rethrow_exception(team.failure);
}

}  // namespace fasttrain
