#include "batch_pool.h"

#include <algorithm>
#include <stdexcept>

#include <unistd.h>

#if defined(__linux__)
#include <pthread.h>
#include <sys/resource.h>
#endif

namespace fasttrain {
namespace {

constexpr std::size_t kReadAtOnce = 16;  // samples between looks at what the other threads have done meanwhile

void name_thread(const char* name) {
#if defined(__linux__)
  pthread_setname_np(pthread_self(), name);
#else
  (void)name;
#endif
}

// Those of the system's threads have a priority of their own on Linux alone, where 0 is the calling one.
void lower_priority(int nice) {
#if defined(__linux__)
  if (nice > 0) ::setpriority(PRIO_PROCESS, 0, ::getpriority(PRIO_PROCESS, 0) + nice);
#else
  (void)nice;
#endif
}

void forget(std::deque<std::shared_ptr<BatchWork>>& queue, const std::shared_ptr<BatchWork>& work) {
  queue.erase(std::remove(queue.begin(), queue.end(), work), queue.end());
}

}  // namespace

BatchPool::BatchPool(int threads, int nice) : owner_(::getpid()), state_(std::make_unique<State>()) {
  if (threads < 1) throw std::invalid_argument("a pool needs at least one thread");
  try {
    for (int i = 0; i < threads; ++i) threads_.emplace_back([state = state_.get(), nice] { run(*state, nice); });
    threads_.emplace_back([state = state_.get()] { run_ahead(*state); });
  } catch (...) {
    close();
    throw;
  }
}

BatchPool::~BatchPool() {
  close();
  if (is_mine()) return;
  // After a fork there are no threads here, and the locks are as the threads left them: neither can be used or freed.
  (void)state_.release();
  (void)new std::vector<std::thread>(std::move(threads_));
}

bool BatchPool::is_mine() const { return ::getpid() == owner_; }

void BatchPool::submit(const std::shared_ptr<BatchWork>& work) {
  if (!is_mine()) throw std::runtime_error("the threads of a loader do not survive a fork; make the loader in the child");
  work->outcomes.assign(work->samples.size(), Outcome::pending);
  work->errors.assign(work->samples.size(), std::string());
  {
    const std::lock_guard<std::mutex> held(state_->lock);
    if (state_->closing) throw std::runtime_error("the pool is closed");
    if (work->samples.empty()) return;
    state_->queue.push_back(work);
    state_->unread.push_back(work);
  }
  state_->work_comes.notify_all();
}

void BatchPool::cancel(const std::shared_ptr<BatchWork>& work) {
  if (!is_mine()) return;
  std::unique_lock<std::mutex> held(state_->lock);
  work->cancelled = true;
  forget(state_->queue, work);
  forget(state_->unread, work);
  state_->work_goes.notify_all();
  state_->work_goes.wait(held, [&] { return work->finished(); });
}

bool BatchPool::wait(const std::shared_ptr<BatchWork>& work, double seconds) {
  if (!is_mine()) throw std::runtime_error("the threads of a loader do not survive a fork; make the loader in the child");
  std::unique_lock<std::mutex> held(state_->lock);
  const auto finished = [&] { return work->finished(); };
  return state_->work_goes.wait_for(held, std::chrono::duration<double>(std::clamp(seconds, 0.0, 1e6)), finished);
}

void BatchPool::close() {
  if (!is_mine()) return;
  std::vector<std::thread> threads;
  {
    const std::lock_guard<std::mutex> held(state_->lock);
    threads.swap(threads_);
    state_->closing = true;
    for (const auto& work : state_->queue) work->cancelled = true;
    state_->queue.clear();
    state_->unread.clear();
  }
  state_->work_comes.notify_all();
  state_->work_goes.notify_all();
  for (std::thread& thread : threads) thread.join();
}

void BatchPool::run(State& state, int nice) {
  name_thread("fasttrain-load");
  lower_priority(nice);
  Scratch scratch;
  std::string error;
  std::unique_lock<std::mutex> held(state.lock);
  while (true) {
    state.work_comes.wait(held, [&] { return state.closing || !state.queue.empty(); });
    if (state.closing) return;
    const std::shared_ptr<BatchWork> work = state.queue.front();
    const std::size_t index = work->next++;
    ++work->busy;
    if (work->next >= work->samples.size()) state.queue.pop_front();
    held.unlock();
    error.clear();
    const Target* first = work->targets.data() + index * work->views;
    const Targets targets{first, work->views, work->output, work->fast, work->augment.get()};
    const Outcome outcome = fill_sample(work->samples[index], targets, scratch, error);
    held.lock();
    work->outcomes[index] = outcome;
    if (outcome == Outcome::failed) work->errors[index].swap(error);
    --work->busy;
    if (work->finished()) state.work_goes.notify_all();
  }
}

void BatchPool::run_ahead(State& state) {
  name_thread("fasttrain-ahead");
  std::unique_lock<std::mutex> held(state.lock);
  while (true) {
    state.work_comes.wait(held, [&] { return state.closing || !state.unread.empty(); });
    if (state.closing) return;
    const std::shared_ptr<BatchWork> work = state.unread.front();
    state.unread.pop_front();
    ++work->busy;
    std::size_t index = 0;
    while (!work->cancelled && (index = std::max(index, work->next)) < work->samples.size()) {
      const std::size_t stop = std::min(index + kReadAtOnce, work->samples.size());
      held.unlock();
      for (; index < stop; ++index) read_ahead(work->samples[index]);
      held.lock();
    }
    --work->busy;
    if (work->finished()) state.work_goes.notify_all();
  }
}

}  // namespace fasttrain
