#include "indexed_module.h"

#include <array>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include "buffer_view.h"
#include "indexed_view.h"
#include "libjpeg_planes.h"
#include "pixel_names.h"

namespace py = pybind11;

namespace fasttrain {
namespace {

using Entries = py::array_t<std::uint64_t, py::array::c_style | py::array::forcecast>;
using Numbers = py::array_t<std::int64_t, py::array::c_style | py::array::forcecast>;
using Region = std::array<int, 4>;

// The way of one sample after the other through the decoder, whose memory is used again.
class Reader {
 public:
  py::list coefficients(const py::buffer& buffer, const Entries& index, const Region& units) {
    const BufferView view(buffer);
    IndexedHeader header;
    read_indexed_header(view.data(), view.size(), header);
    if (static_cast<std::size_t>(index.size()) != header.shape.entries()) {
      throw JpegError("its random-access index has another length than its image");
    }
    const UnitRegion region = region_of(units, header.shape);
    scan_.open(header, index.data());
    const ScanShape& shape = header.shape;
    std::vector<py::array_t<std::int16_t>> found;
    for (int i = 0; i < shape.components; ++i) {
      found.emplace_back(std::vector<py::ssize_t>{(region.bottom - region.top) * shape.rows[i],
                                                  (region.right - region.left) * shape.columns[i], 64});
    }
    for (int row = region.top; row < region.bottom; row += 2) {
      const bool two = row + 1 < region.bottom;
      for (CoefficientRow& blocks : blocks_) blocks.shape(shape, region.right - region.left);
      scan_.decode(row, region.left, region.right, blocks_[0], two ? &blocks_[1] : nullptr);
      for (int i = 0; i < shape.components; ++i) {
        for (int r = 0; r < (two ? 2 : 1) * shape.rows[i]; ++r) {
          CoefficientRow& blocks = blocks_[r / shape.rows[i]];
          std::memcpy(found[static_cast<std::size_t>(i)].mutable_data((row - region.top) * shape.rows[i] + r, 0, 0),
                      blocks.block(blocks.place(i, r % shape.rows[i])),
                      static_cast<std::size_t>((region.right - region.left) * shape.columns[i]) * 128);
        }
      }
    }
    return py::cast(found);
  }

  py::list planes(const py::buffer& buffer, const Entries& index, const Region& units, int eighths) {
    const BufferView view(buffer);
    decoder_.open(view.data(), view.size(), index.data(), static_cast<std::size_t>(index.size()));
    const ScanShape& shape = decoder_.header().shape;
    const UnitRegion region = region_of(units, shape);
    if (eighths != 1 && eighths != 2 && eighths != 4 && eighths != 8) throw py::value_error("eighths are 1, 2, 4 or 8");
    decoder_.start(region, 1, eighths);
    int sides[3];
    std::vector<py::array_t<std::uint8_t>> found;
    for (int i = 0; i < shape.components; ++i) {
      sides[i] = block_side(decoder_.header(), i, eighths);
      found.emplace_back(std::vector<py::ssize_t>{(region.bottom - region.top) * shape.rows[i] * sides[i],
                                                  (region.right - region.left) * shape.columns[i] * sides[i]});
    }
    for (int row = region.top; row < region.bottom; ++row) {
      decoder_.decode_to(row + 1);
      for (int i = 0; i < shape.components; ++i) {
        const int high = sides[i] * shape.rows[i];
        for (int line = row * high; line < (row + 1) * high; ++line) {
          py::array_t<std::uint8_t>& plane = found[static_cast<std::size_t>(i)];
          std::memcpy(plane.mutable_data(line - region.top * high, 0), decoder_.line(i, line),
                      static_cast<std::size_t>(plane.shape(1)));
        }
      }
    }
    return py::cast(found);
  }

  void views(const py::buffer& buffer, const Entries& index, py::array& out, const std::string& dtype,
             const std::array<float, 3>& scale, const std::array<float, 3>& shift, const std::string& filter,
             const Numbers& boxes, const Numbers& resized, const Numbers& windows, const std::vector<bool>& hflip,
             const std::vector<bool>& vflip, bool fast) {
    const BufferView view(buffer);
    Output output{};
    output.kind = pixel_of(dtype);
    std::copy(scale.begin(), scale.end(), output.scale);
    std::copy(shift.begin(), shift.end(), output.shift);
    const py::ssize_t count = out.ndim() == 4 ? out.shape(0) : 0;
    const bool fits = count > 0 && out.shape(1) == out.shape(2) && out.shape(1) >= 1 && out.shape(3) == 3 &&
                      out.itemsize() == static_cast<py::ssize_t>(bytes_of(output.kind)) &&
                      (out.flags() & py::array::c_style) && out.writeable();
    if (!fits) throw py::value_error("out must be a writable, contiguous (V, size, size, 3) array of the right item size");
    const auto is_shape = [&](const Numbers& array, py::ssize_t columns) {
      return array.ndim() == 2 && array.shape(0) == count && array.shape(1) == columns;
    };
    if (!is_shape(boxes, 4) || !is_shape(resized, 2) || !is_shape(windows, 2) ||
        static_cast<py::ssize_t>(hflip.size()) != count || static_cast<py::ssize_t>(vflip.size()) != count) {
      throw py::value_error("boxes, resized, windows and flips must be as many as out has views");
    }
    decoder_.open(view.data(), view.size(), index.data(), static_cast<std::size_t>(index.size()));
    const IndexedHeader& header = decoder_.header();
    const int size = static_cast<int>(out.shape(1));
    std::vector<void*> outs;
    views_.resize(static_cast<std::size_t>(count));
    for (py::ssize_t i = 0; i < count; ++i) {
      const auto number = [&](const Numbers& array, py::ssize_t column, std::int64_t least, std::int64_t most) {
        const std::int64_t value = array.at(i, column);
        if (value < least || value > most) throw py::value_error("a view that the image does not have");
        return static_cast<int>(value);
      };
      View one{};
      one.left = number(boxes, 0, 0, header.width - 1);
      one.top = number(boxes, 1, 0, header.height - 1);
      one.width = number(boxes, 2, 1, header.width - one.left);
      one.height = number(boxes, 3, 1, header.height - one.top);
      one.resized_width = number(resized, 0, size, 1 << 20);
      one.resized_height = number(resized, 1, size, 1 << 20);
      one.offset_x = number(windows, 0, 0, one.resized_width - size);
      one.offset_y = number(windows, 1, 0, one.resized_height - size);
      one.columns = one.lines = one.pitch = size;
      one.filter = filter_of(filter);
      one.hflip = hflip[static_cast<std::size_t>(i)];
      one.vflip = vflip[static_cast<std::size_t>(i)];
      views_[static_cast<std::size_t>(i)].plan(one, header, fast);
      outs.push_back(static_cast<std::uint8_t*>(out.mutable_data()) + i * out.strides(0));
    }
    const py::gil_scoped_release unlocked;
    make_indexed_views(decoder_, views_, output, outs.data());
  }

 private:
  static UnitRegion region_of(const Region& units, const ScanShape& shape) {
    const UnitRegion region{units[0], units[1], units[2], units[3]};
    if (region.left < 0 || region.top < 0 || region.left >= region.right || region.top >= region.bottom ||
        region.right > shape.across || region.bottom > shape.down) {
      throw py::value_error("MCUs that the image does not have");
    }
    return region;
  }

  IndexedDecoder decoder_;
  IndexedScan scan_;
  CoefficientRow blocks_[2];
  std::vector<IndexedView> views_;
};

template <class T>
py::array_t<T> shaped(const std::vector<T>& values, std::vector<py::ssize_t> shape) {
  return py::array_t<T>(std::move(shape), values.data());
}

py::list libjpeg_planes(const py::buffer& buffer, bool wants_samples, int eighths) {
  const BufferView view(buffer);
  py::list found;
  for (const LibjpegPlane& plane : read_libjpeg_planes(view.data(), view.size(), wants_samples, eighths)) {
    if (wants_samples) {
      found.append(shaped(plane.samples, {plane.side * plane.rows, plane.side * plane.columns}));
    } else {
      found.append(shaped(plane.blocks, {plane.rows, plane.columns, 64}));
    }
  }
  return found;
}

}  // namespace

py::object entries_of(const ScanIndex& index) {
  if (!index.is_complete()) return py::none();
  return py::array_t<std::uint64_t>(static_cast<py::ssize_t>(index.entries().size()), index.entries().data());
}

void bind_indexed(py::module_& module) {
  module.def("libjpeg_planes", &libjpeg_planes, py::arg("data"), py::arg("wants_samples"),
             py::arg("eighths"));
  py::class_<Reader>(module, "IndexedReader")
      .def(py::init<>())
      .def("coefficients", &Reader::coefficients, py::arg("data"), py::arg("index"), py::arg("units"))
      .def("planes", &Reader::planes, py::arg("data"), py::arg("index"), py::arg("units"), py::arg("eighths"))
      .def("views", &Reader::views, py::kw_only(), py::arg("data"), py::arg("index"), py::arg("out"), py::arg("dtype"),
           py::arg("scale"), py::arg("shift"), py::arg("filter"), py::arg("boxes"), py::arg("resized"),
           py::arg("windows"), py::arg("hflip"), py::arg("vflip"), py::arg("fast"));
}

}  // namespace fasttrain
