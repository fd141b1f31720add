#include "augment_batch.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <exception>
#include <mutex>
#include <thread>

namespace fasttrain {
namespace {

std::size_t item_of(Pixel kind) { return kind == Pixel::uint8 ? 1 : kind == Pixel::float32 ? 4 : 2; }

void augment_image(const AugmentWork& work, std::size_t image, Augmenter& augmenter) {
  const std::size_t count = static_cast<std::size_t>(work.height) * work.width;
  std::memcpy(augmenter.begin(work.height, work.width), work.pixels + 3 * count * image, 3 * count);
  if (work.masks != nullptr) std::memcpy(augmenter.begin_mask(), work.masks + count * image, count);
  augmenter.run(work.batch->of(image), work.batch->style);
  augmenter.store(work.kind, work.scale, static_cast<std::uint8_t*>(work.out) + 3 * count * image * item_of(work.kind));
  if (work.masks != nullptr) augmenter.store_mask(work.out_masks + count * image);
}

void augment_mask(const MaskWork& work, std::size_t image, Augmenter& augmenter) {
  const std::size_t count = static_cast<std::size_t>(work.height) * work.width;
  std::uint8_t* mask = work.masks + count * image;
  std::memcpy(augmenter.begin_mask_alone(work.height, work.width), mask, count);
  augmenter.run_mask(work.batch->of(image), work.batch->style, work.erases);
  augmenter.store_mask(mask);
}

// One image after the other, by so many threads.
template <class Work>
void share(std::size_t images, int threads, const Work& work) {
  std::atomic<std::size_t> next{0};
  std::mutex lock;
  std::exception_ptr failure;
  const auto run = [&] {
    try {
      Augmenter augmenter;
      for (std::size_t image = next++; image < images; image = next++) work(image, augmenter);
    } catch (...) {
      const std::lock_guard<std::mutex> held(lock);
      failure = std::current_exception();
    }
  };
  std::vector<std::thread> others;
  const std::size_t wanted = std::min<std::size_t>(static_cast<std::size_t>(std::max(threads, 1)), images);
  try {
    while (others.size() + 1 < wanted) others.emplace_back(run);
  } catch (...) {  // no more threads to be had: those that there are do the work
  }
  run();
  for (std::thread& other : others) other.join();
  if (failure) std::rethrow_exception(failure);
}

}  // namespace

void augment_batch(const AugmentWork& work, int threads) {
  share(work.batch->seeds.size(), threads,
        [&](std::size_t image, Augmenter& augmenter) { augment_image(work, image, augmenter); });
}

void augment_masks(const MaskWork& work, int threads) {
  share(work.batch->seeds.size(), threads,
        [&](std::size_t image, Augmenter& augmenter) { augment_mask(work, image, augmenter); });
}

}  // namespace fasttrain
