// The Python face of the native kernels: bytes in, plain values out, the GIL released while they work.

#include <pybind11/pybind11.h>

#include "augment_module.h"
#include "buffer_view.h"
#include "colour_module.h"
#include "depthwise_module.h"
#include "indexed_module.h"
#include "jpeg_check.h"
#include "jpeg_repack.h"
#include "jpeg_session.h"
#include "jpeg_transcode.h"
#include "loading_module.h"
#include "permutohedral_module.h"
#include "score_module.h"
#include "winograd_module.h"

namespace py = pybind11;

#define FASTTRAIN_QUOTED(name) #name
#define FASTTRAIN_TEXT(name) FASTTRAIN_QUOTED(name)

namespace {

#ifdef LIBJPEG_TURBO_VERSION
constexpr const char* kJpegLibrary = "libjpeg-turbo " FASTTRAIN_TEXT(LIBJPEG_TURBO_VERSION);
#else
constexpr const char* kJpegLibrary = "libjpeg " FASTTRAIN_TEXT(JPEG_LIB_VERSION);
#endif

py::dict check(const py::buffer& buffer, bool with_index) {
  const fasttrain::BufferView view(buffer);
  fasttrain::JpegFacts facts;
  fasttrain::ScanIndex index;
  {
    py::gil_scoped_release unlocked;
    facts = fasttrain::check_jpeg(view.data(), view.size(), with_index ? &index : nullptr);
  }
  py::tuple factors(facts.components);
  for (int i = 0; i < facts.components; ++i) {
    factors[i] = py::make_tuple(facts.factors[i % 4][0], facts.factors[i % 4][1]);
  }
  py::dict result;
  result["length"] = facts.length;
  result["width"] = facts.width;
  result["height"] = facts.height;
  result["process"] = facts.process;
  result["precision"] = facts.precision;
  result["colour_space"] = facts.colour_space;
  result["factors"] = factors;
  result["restarts"] = facts.restarts;
  result["has_metadata"] = facts.has_metadata;
  result["has_profile"] = facts.has_profile;
  if (with_index) result["index"] = fasttrain::entries_of(index);
  return result;
}

py::object as_bytes(const std::optional<fasttrain::JpegStream>& stream) {
  if (!stream) return py::none();
  return py::bytes(reinterpret_cast<const char*>(stream->data.get()), stream->size);
}

py::object transcode(const py::buffer& buffer, int quality) {
  const fasttrain::BufferView view(buffer);
  std::optional<fasttrain::JpegStream> stream;
  {
    py::gil_scoped_release unlocked;
    stream = fasttrain::transcode_jpeg(view.data(), view.size(), quality);
  }
  return as_bytes(stream);
}

py::object repack(const py::buffer& buffer) {
  const fasttrain::BufferView view(buffer);
  std::optional<fasttrain::JpegStream> stream;
  {
    py::gil_scoped_release unlocked;
    stream = fasttrain::repack_jpeg(view.data(), view.size());
  }
  return as_bytes(stream);
}

}  // namespace

PYBIND11_MODULE(_native, module) {
  module.doc() = "Native kernels; use them through the modules of fasttrain.kernels.";
  py::register_exception_translator([](std::exception_ptr error) {
    try {
      if (error) std::rethrow_exception(error);
    } catch (const fasttrain::JpegError& failure) {
      PyErr_SetString(PyExc_ValueError, failure.what());
    }
  });
  module.attr("jpeg_library") = kJpegLibrary;
  module.def("check", &check, py::arg("data"), py::arg("with_index") = false);
  module.def("transcode", &transcode, py::arg("data"), py::arg("quality"));
  module.def("repack", &repack, py::arg("data"));
  fasttrain::bind_loading(module);
  fasttrain::bind_colour(module);
  fasttrain::bind_indexed(module);
  fasttrain::bind_augment(module);
  fasttrain::bind_scores(module);
  fasttrain::bind_winograd(module);
  fasttrain::bind_depthwise(module);
  fasttrain::bind_permutohedral(module);
}
