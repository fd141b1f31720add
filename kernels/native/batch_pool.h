// Persistent threads that fill batches: one batch after the other, each batch's samples in order, several at a time.
// One more thread goes ahead of them and has the system read what they will need.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "augment_batch.h"
#include "sample.h"

namespace fasttrain {

// A batch that is being filled. All but the constant members belong to the pool's lock.
struct BatchWork {
  std::vector<Sample> samples;
  std::vector<Target> targets;  // sample by sample
  int views = 1;                // targets of each sample
  Output output{};
  bool fast = false;
  std::unique_ptr<AugmentBatch> augment;  // of the targets, where they are augmented

  std::size_t next = 0;  // first sample that no thread has taken
  std::size_t busy = 0;  // threads that have to do with the batch
  bool cancelled = false;
  std::vector<Outcome> outcomes;
  std::vector<std::string> errors;

  bool finished() const { return busy == 0 && (cancelled || next == samples.size()); }
};

class BatchPool {
 public:
  // `nice` lowers the priority of the filling threads, as the command of that name does; on Linux.
  explicit BatchPool(int threads, int nice = 0);
  ~BatchPool();  // as close()
  BatchPool(const BatchPool&) = delete;
  BatchPool& operator=(const BatchPool&) = delete;

  // Queue a batch. Throws std::runtime_error when the pool is closed or belongs to another process (after a fork).
  void submit(const std::shared_ptr<BatchWork>& work);

  // Drop what no thread has taken yet, then wait for the samples in work: no thread touches the batch afterwards.
  void cancel(const std::shared_ptr<BatchWork>& work);

  // Whether the batch was finished (or cancelled) within the time.
  bool wait(const std::shared_ptr<BatchWork>& work, double seconds);

  // Cancel all batches and end the threads. A second call does nothing.
  void close();

 private:
  // The threads share it, so that a process forked off can forget the pool without touching its locks.
  struct State {
    std::mutex lock;
    std::condition_variable work_comes, work_goes;
    std::deque<std::shared_ptr<BatchWork>> queue;  // with samples that no thread has taken
    std::deque<std::shared_ptr<BatchWork>> unread;  // in whose samples read-ahead has not begun
    bool closing = false;
  };

  static void run(State& state, int nice);
  static void run_ahead(State& state);
  bool is_mine() const;

  int owner_;  // process that the threads live in
  std::unique_ptr<State> state_;
  std::vector<std::thread> threads_;
};

}  // namespace fasttrain
