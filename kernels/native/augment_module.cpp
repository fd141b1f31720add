#include "augment_module.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include "pixel_names.h"
#include "resample.h"

namespace py = pybind11;

namespace fasttrain {
namespace {

using Bytes = py::array_t<std::uint8_t, py::array::c_style>;
using Operations = py::array_t<std::int32_t, py::array::c_style | py::array::forcecast>;
using Arguments = py::array_t<float, py::array::c_style | py::array::forcecast>;
using Seeds = py::array_t<std::uint64_t, py::array::c_style | py::array::forcecast>;

constexpr py::ssize_t kMaxSide = 16384;  // an offset in an image then fits an int

bool has_shape_of(const py::array& out, const py::array& pixels, int axes) {
  bool fits = out.ndim() == axes && (out.flags() & py::array::c_style) && out.writeable();
  for (int axis = 0; fits && axis < axes; ++axis) fits = out.shape(axis) == pixels.shape(axis);
  return fits;
}

void augment(const Bytes& pixels, py::array& out, const std::string& dtype, const std::array<float, 3>& scale,
             const std::array<float, 3>& shift, const py::tuple& program, const py::object& masks, py::object& out_masks,
             int threads) {
  AugmentWork work{};
  work.kind = pixel_of(dtype);
  const bool fits = pixels.ndim() == 4 && pixels.shape(3) == 3 && has_shape_of(out, pixels, 4) &&
                    out.itemsize() == static_cast<py::ssize_t>(bytes_of(work.kind)) && pixels.shape(1) >= 1 &&
                    pixels.shape(2) >= 1 && pixels.shape(1) <= kMaxSide && pixels.shape(2) <= kMaxSide;
  if (!fits) throw py::value_error("pixels and out must be contiguous (B, H, W, 3) arrays of the right item sizes");
  const AugmentBatch batch = augment_batch_of(program, pixels.shape(0));
  work.batch = &batch;
  work.pixels = pixels.data();
  work.height = static_cast<int>(pixels.shape(1));
  work.width = static_cast<int>(pixels.shape(2));
  std::copy(scale.begin(), scale.end(), work.scale.scale);
  std::copy(shift.begin(), shift.end(), work.scale.shift);
  work.out = out.mutable_data();
  Bytes given, made;
  if (!masks.is_none()) {
    given = py::cast<Bytes>(masks);
    made = py::cast<Bytes>(out_masks);
    if (!has_shape_of(given, pixels, 3) || !has_shape_of(made, pixels, 3) || made.ptr() != out_masks.ptr()) {
      throw py::value_error("masks must be contiguous (B, H, W) uint8 arrays");
    }
    work.masks = given.data();
    work.out_masks = made.mutable_data();
  }
  const py::gil_scoped_release unlocked;
  augment_batch(work, threads);
}

// The masks of a batch, moved in place as a program moves its images.
void move_masks(Bytes& masks, const py::tuple& program, bool erases, int threads) {
  const bool fits = masks.ndim() == 3 && masks.writeable() && masks.shape(1) >= 1 && masks.shape(2) >= 1 &&
                    masks.shape(1) <= kMaxSide && masks.shape(2) <= kMaxSide;
  if (!fits) throw py::value_error("masks must be a writable, contiguous (B, H, W) uint8 array");
  const AugmentBatch batch = augment_batch_of(program, masks.shape(0));
  const MaskWork work{&batch, masks.mutable_data(), static_cast<int>(masks.shape(1)), static_cast<int>(masks.shape(2)),
                      erases};
  const py::gil_scoped_release unlocked;
  augment_masks(work, threads);
}

// Images of a batch, each mixed with the one that stands as far from the end as it does from the beginning, in place.
void mix_reversed(py::array_t<float, py::array::c_style> images, const Arguments& shares, int threads) {
  if (images.ndim() < 1 || shares.ndim() != 1 || shares.shape(0) != images.shape(0) || !images.writeable()) {
    throw py::value_error("images and shares must be of as many samples");
  }
  const auto count = static_cast<std::size_t>(images.shape(0));
  if (count < 2) return;
  const std::size_t each = static_cast<std::size_t>(images.size()) / count;
  float* first = images.mutable_data();
  const float* share = shares.data();
  const py::gil_scoped_release unlocked;
  std::atomic<std::size_t> next{0};
  const auto work = [&] {
    for (std::size_t i = next++; i < count / 2; i = next++) {
      const std::size_t j = count - 1 - i;
      float *one = first + each * i, *other = first + each * j;
      const float keeps = share[i], other_keeps = share[j];
      for (std::size_t k = 0; k < each; ++k) {
        const float a = one[k], b = other[k];
        one[k] = b + keeps * (a - b);
        other[k] = a + other_keeps * (b - a);
      }
    }
  };
  std::vector<std::thread> others;
  try {
    while (static_cast<int>(others.size()) + 1 < threads) others.emplace_back(work);
  } catch (...) {  // no more threads to be had: those that there are do the work
  }
  work();
  for (std::thread& thread : others) thread.join();
}

}  // namespace

AugmentBatch augment_batch_of(const py::tuple& program, py::ssize_t images) {
  if (program.size() != 8) throw py::value_error("a program has eight parts");
  const auto operations = py::cast<Operations>(program[0]);
  const auto arguments = py::cast<Arguments>(program[1]);
  const auto seeds = py::cast<Seeds>(program[2]);
  const bool fits = operations.ndim() == 2 && operations.shape(0) == images && arguments.ndim() == 3 &&
                    arguments.shape(0) == images && arguments.shape(1) == operations.shape(1) &&
                    arguments.shape(2) == kAugmentArguments && seeds.ndim() == 1 && seeds.shape(0) == images;
  if (!fits) throw py::value_error("operations, arguments and seeds must be of as many images and steps");
  if (operations.shape(1) > 255) throw py::value_error("at most 255 steps can be done to an image");
  AugmentBatch batch;
  batch.steps = static_cast<int>(operations.shape(1));
  batch.operations.assign(operations.data(), operations.data() + operations.size());
  batch.arguments.assign(arguments.data(), arguments.data() + arguments.size());
  batch.seeds.assign(seeds.data(), seeds.data() + seeds.size());
  const auto fill = py::cast<std::array<int, 3>>(program[3]);
  for (int i = 0; i < 3; ++i) batch.style.fill[i] = static_cast<std::uint8_t>(fill[i]);
  batch.style.mask_fill = static_cast<std::uint8_t>(py::cast<int>(program[4]));
  batch.style.bilinear = py::cast<bool>(program[5]);
  const auto mean = py::cast<std::array<float, 3>>(program[6]), deviation = py::cast<std::array<float, 3>>(program[7]);
  std::copy(mean.begin(), mean.end(), batch.style.noise_mean);
  std::copy(deviation.begin(), deviation.end(), batch.style.noise_deviation);
  for (std::size_t image = 0; image < batch.seeds.size(); ++image) {
    if (const char* fault = fault_of(batch.of(image))) throw py::value_error(fault);
  }
  return batch;
}

void bind_augment(py::module_& module) {
  module.def("augment", &augment, py::kw_only(), py::arg("pixels").noconvert(), py::arg("out").noconvert(),
             py::arg("dtype"), py::arg("scale"), py::arg("shift"), py::arg("program"), py::arg("masks").none(true),
             py::arg("out_masks").none(true), py::arg("threads"));
  module.def("augment_masks", &move_masks, py::arg("masks").noconvert(), py::arg("program"), py::arg("erases"),
             py::arg("threads"));
  module.def("mix_reversed", &mix_reversed, py::arg("images").noconvert(), py::arg("shares"), py::arg("threads"));
}

}  // namespace fasttrain
