#include "loading_module.h"

#include <limits>
#include <memory>
#include <optional>
#include <stdexcept>

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include "augment_module.h"
#include "batch_pool.h"
#include "pixel_names.h"
#include "simd.h"

namespace py = pybind11;

namespace fasttrain {
namespace {

using Numbers = py::array_t<std::int64_t, py::array::c_style | py::array::forcecast>;
using Flags = py::array_t<std::uint8_t, py::array::c_style | py::array::forcecast>;

// Numbers that fit into no int become one that no check lets pass.
int narrow(std::int64_t value) {
  const bool fits = value >= std::numeric_limits<int>::min() && value <= std::numeric_limits<int>::max();
  return fits ? static_cast<int>(value) : -1;
}

template <class Array>
void check_shape(const Array& array, py::ssize_t count, py::ssize_t columns, const char* name) {
  const bool fits = columns == 1 ? array.ndim() == 1 && array.shape(0) == count
                                 : array.ndim() == 2 && array.shape(0) == count && array.shape(1) == columns;
  if (!fits) throw py::value_error(std::string(name) + " has another shape than the batch");
}

// A batch in the pool's hands, and all that its threads read and write.
class Filling {
 public:
  Filling(std::shared_ptr<BatchPool> pool, std::shared_ptr<BatchWork> work, py::array out,
          std::vector<py::buffer_info> buffers)
      : pool_(std::move(pool)), work_(std::move(work)), out_(std::move(out)), buffers_(std::move(buffers)) {}

  ~Filling() { cancel(); }
  Filling(const Filling&) = delete;
  Filling& operator=(const Filling&) = delete;

  bool wait(double seconds) {
    const py::gil_scoped_release unlocked;
    return pool_->wait(work_, seconds);
  }

  void cancel() {
    const py::gil_scoped_release unlocked;
    pool_->cancel(work_);
  }

  // (B,) outcome of each sample, and the reasons of those that failed. To be asked for when the batch is finished.
  py::tuple outcomes() {
    if (!wait(0)) throw std::runtime_error("the batch is still being filled");
    const std::size_t count = work_->outcomes.size();
    py::array_t<std::uint8_t> found(static_cast<py::ssize_t>(count));
    py::dict reasons;
    for (std::size_t i = 0; i < count; ++i) {
      found.mutable_at(i) = static_cast<std::uint8_t>(work_->outcomes[i]);
      if (work_->outcomes[i] == Outcome::failed) {
        const std::string& reason = work_->errors[i];
        reasons[py::int_(i)] = py::reinterpret_steal<py::str>(
            PyUnicode_DecodeUTF8(reason.data(), static_cast<py::ssize_t>(reason.size()), "replace"));
      }
    }
    return py::make_tuple(found, reasons);
  }

 private:
  std::shared_ptr<BatchPool> pool_;
  std::shared_ptr<BatchWork> work_;
  py::array out_;
  std::vector<py::buffer_info> buffers_;
};

struct Sources {
  const Flags& stored;
  const std::vector<py::buffer_info>& buffers;
  const Numbers& buffer;
  const Numbers& offsets;
  const Numbers& lengths;
  const std::vector<std::optional<std::string>>& paths;
};

// Where sample i lies; what would lie outside of its buffer is left to the caller.
void locate(const Sources& sources, py::ssize_t i, Sample& sample) {
  const std::int64_t offset = sources.offsets.at(i), length = sources.lengths.at(i), number = sources.buffer.at(i);
  const auto stored = static_cast<Stored>(sources.stored.at(i));
  if (offset < 0 || length < 0) return;
  sample.length = static_cast<std::uint64_t>(length);
  if (stored == Stored::jpeg_file) {
    const auto& path = sources.paths[static_cast<std::size_t>(i)];
    if (!path || path->find('\0') != std::string::npos) return;
    sample.path = *path;
    sample.offset = static_cast<std::uint64_t>(offset);
    sample.stored = stored;
  } else if (stored == Stored::jpeg || stored == Stored::raw) {
    if (number < 0 || number >= static_cast<std::int64_t>(sources.buffers.size())) return;
    const py::buffer_info& info = sources.buffers[static_cast<std::size_t>(number)];
    if (length > info.size || offset > info.size - length) return;
    sample.data = static_cast<const std::uint8_t*>(info.ptr) + offset;
    sample.stored = stored;
  }
}

// Random-access indices: (B, 3) number of the buffer, offset and length in bytes, 0 for none; or nothing at all. What
// cannot be there is the caller's mistake; whether an index fits its image is seen when it is used.
void locate_indices(const std::vector<py::buffer_info>& buffers, const Numbers& index, std::vector<Sample>& samples) {
  if (index.size() == 0) return;
  check_shape(index, static_cast<py::ssize_t>(samples.size()), 3, "index");
  for (std::size_t i = 0; i < samples.size(); ++i) {
    const auto row = static_cast<py::ssize_t>(i);
    const std::int64_t number = index.at(row, 0), offset = index.at(row, 1), length = index.at(row, 2);
    if (length == 0) continue;
    const bool known = number >= 0 && number < static_cast<std::int64_t>(buffers.size());
    const py::ssize_t size = known ? buffers[static_cast<std::size_t>(number)].size : 0;
    if (offset < 0 || length < 0 || length > size || offset > size - length) {
      throw py::value_error("a random-access index lies outside of its buffer");
    }
    const auto* start = static_cast<const std::uint8_t*>(buffers[static_cast<std::size_t>(number)].ptr) + offset;
    if (reinterpret_cast<std::uintptr_t>(start) % alignof(std::uint64_t) != 0 || length % 8 != 0) {
      throw py::value_error("a random-access index is not made of aligned entries of 8 bytes");
    }
    samples[i].index = reinterpret_cast<const std::uint64_t*>(start);
    samples[i].entries = static_cast<std::size_t>(length) / 8;
  }
}

void check_bytes(const py::buffer_info& info) {
  if (info.itemsize != 1 || info.ndim != 1 || (info.size > 1 && info.strides[0] != 1)) {
    throw py::value_error("a contiguous buffer of bytes is needed");
  }
}

std::vector<py::buffer_info> open_buffers(const py::list& buffers) {
  std::vector<py::buffer_info> opened;
  for (const py::handle& buffer : buffers) {
    opened.push_back(py::cast<py::buffer>(buffer).request());
    check_bytes(opened.back());
  }
  return opened;
}

// Where the pixels of whole images are left: at `offsets`, unless those are negative.
void keep_pixels(std::vector<Sample>& samples, const py::buffer_info& kept, const Numbers& offsets) {
  if (kept.readonly) throw py::value_error("what is to keep pixels must be writable");
  check_shape(offsets, static_cast<py::ssize_t>(samples.size()), 1, "keep_at");
  for (std::size_t i = 0; i < samples.size(); ++i) {
    Sample& sample = samples[i];
    const std::int64_t offset = offsets.at(static_cast<py::ssize_t>(i));
    if (offset < 0 || sample.width < 1 || sample.height < 1) continue;
    const std::int64_t room = kept.size - offset, row = std::int64_t{3} * sample.width;
    if (room < row || room / row < sample.height) throw py::value_error("an image has no room where it is to be kept");
    sample.keep = static_cast<std::uint8_t*>(kept.ptr) + offset;
  }
}

std::unique_ptr<Filling> submit(const std::shared_ptr<BatchPool>& pool, const py::array& out, const std::string& dtype,
                                const std::array<float, 3>& scale, const std::array<float, 3>& shift, bool fast,
                                const std::string& filter, const Flags& stored, const py::list& buffers,
                                const Numbers& buffer, const Numbers& offsets, const Numbers& lengths,
                                const std::vector<std::optional<std::string>>& paths, const Numbers& sizes,
                                const Numbers& index, const Numbers& boxes, const Numbers& resized,
                                const Numbers& windows, const Flags& hflip, const Flags& vflip, const py::object& keep,
                                const Numbers& keep_at, const py::object& program,
                                const Numbers& places) {
  auto work = std::make_shared<BatchWork>();
  work->output.kind = pixel_of(dtype);
  std::copy(scale.begin(), scale.end(), work->output.scale);
  std::copy(shift.begin(), shift.end(), work->output.shift);
  work->fast = fast;
  const auto item = static_cast<py::ssize_t>(bytes_of(work->output.kind));
  const bool fits = out.ndim() == 4 && out.shape(1) >= 1 && out.shape(2) >= 1 && out.shape(3) == 3 &&
                    out.itemsize() == item && (out.flags() & py::array::c_style) && out.writeable();
  if (!fits) throw py::value_error("out must be a writable, contiguous (B, height, width, 3) array of the right item size");
  const py::ssize_t entries = out.shape(0), count = stored.size();
  if (count > 0 ? entries == 0 || entries % count != 0 : entries != 0) {
    throw py::value_error("out must hold the same number of views of each sample, at least one");
  }
  const int height = narrow(out.shape(1)), width = narrow(out.shape(2));
  const bool placed = places.size() > 0;
  if (placed) check_shape(places, entries, 4, "places");
  check_shape(stored, count, 1, "stored");
  check_shape(buffer, count, 1, "buffer");
  check_shape(offsets, count, 1, "offsets");
  check_shape(lengths, count, 1, "lengths");
  check_shape(sizes, count, 2, "sizes");
  check_shape(boxes, entries, 4, "boxes");
  check_shape(resized, entries, 2, "resized");
  check_shape(windows, entries, 2, "windows");
  check_shape(hflip, entries, 1, "hflip");
  check_shape(vflip, entries, 1, "vflip");
  if (static_cast<py::ssize_t>(paths.size()) != count) throw py::value_error("paths has another length than the batch");
  std::vector<py::buffer_info> opened = open_buffers(buffers);
  const Sources sources{stored, opened, buffer, offsets, lengths, paths};
  const Filter kind = filter_of(filter);
  work->samples.resize(static_cast<std::size_t>(count));
  for (py::ssize_t i = 0; i < count; ++i) {
    Sample& sample = work->samples[static_cast<std::size_t>(i)];
    locate(sources, i, sample);
    sample.width = narrow(sizes.at(i, 0));
    sample.height = narrow(sizes.at(i, 1));
  }
  locate_indices(opened, index, work->samples);
  if (!keep.is_none()) {
    opened.push_back(py::cast<py::buffer>(keep).request(true));
    check_bytes(opened.back());
    keep_pixels(work->samples, opened.back(), keep_at);
  }
  work->views = count > 0 ? narrow(entries / count) : 1;
  work->targets.resize(static_cast<std::size_t>(entries));
  auto* first = static_cast<std::uint8_t*>(const_cast<void*>(out.data()));
  const std::size_t stride = static_cast<std::size_t>(item) * 3 * height * width;
  for (py::ssize_t e = 0; e < entries; ++e) {
    Target& target = work->targets[static_cast<std::size_t>(e % count * work->views + e / count)];
    target.view = {narrow(boxes.at(e, 0)),   narrow(boxes.at(e, 1)),   narrow(boxes.at(e, 2)),
                   narrow(boxes.at(e, 3)),   narrow(resized.at(e, 0)), narrow(resized.at(e, 1)),
                   narrow(windows.at(e, 0)), narrow(windows.at(e, 1)), placed ? narrow(places.at(e, 2)) : width,
                   placed ? narrow(places.at(e, 3)) : height, width, kind, hflip.at(e) != 0, vflip.at(e) != 0};
    target.height = height;
    target.place_x = placed ? narrow(places.at(e, 0)) : 0;
    target.place_y = placed ? narrow(places.at(e, 1)) : 0;
    target.out = first + stride * static_cast<std::size_t>(e);
    target.entry = static_cast<std::size_t>(e);
  }
  if (!program.is_none()) {
    work->augment = std::make_unique<AugmentBatch>(augment_batch_of(py::cast<py::tuple>(program), entries));
  }
  auto filling = std::make_unique<Filling>(pool, work, out, std::move(opened));
  pool->submit(work);
  return filling;
}

}  // namespace

void bind_loading(py::module_& module) {
  py::class_<Filling>(module, "Filling")
      .def("wait", &Filling::wait, py::arg("seconds"))
      .def("cancel", &Filling::cancel)
      .def("outcomes", &Filling::outcomes);
  py::class_<BatchPool, std::shared_ptr<BatchPool>>(module, "BatchPool")
      .def(py::init<int, int>(), py::arg("threads"), py::arg("nice"))
      .def("close", &BatchPool::close, py::call_guard<py::gil_scoped_release>())
      .def("submit", &submit, py::kw_only(), py::arg("out"), py::arg("dtype"), py::arg("scale"), py::arg("shift"),
           py::arg("fast"), py::arg("filter"), py::arg("stored"), py::arg("buffers"), py::arg("buffer"),
           py::arg("offsets"), py::arg("lengths"), py::arg("paths"), py::arg("sizes"), py::arg("index"),
           py::arg("boxes"), py::arg("resized"), py::arg("windows"), py::arg("hflip"), py::arg("vflip"),
           py::arg("keep"), py::arg("keep_at"), py::arg("program").none(true), py::arg("places"));
  module.def("usable_simd", [] {
    std::vector<std::string> names;
    for (const Simd level : usable_simd()) names.push_back(simd_name(level));
    return names;
  });
  module.def("current_simd", [] { return simd_name(current_simd()); });
  module.def(
      "force_simd",
      [](const std::string& name) {
        for (const Simd level : usable_simd()) {
          if (simd_name(level) == name) return force_simd(level);
        }
        throw py::value_error("this processor and build cannot run " + name + " code");
      },
      py::arg("name"));
}

}  // namespace fasttrain
