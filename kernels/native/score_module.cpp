#include "score_module.h"

#include <cmath>
#include <optional>
#include <string>
#include <vector>

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include "score_floors.h"
#include "score_passes.h"

namespace py = pybind11;

namespace fasttrain {
namespace {

typedef py::array_t<double, py::array::c_style> Doubles;
typedef py::array_t<float, py::array::c_style> Floats;
typedef py::array_t<std::int32_t, py::array::c_style> Ints;
typedef py::array_t<std::int64_t, py::array::c_style> Longs;

ScoreKind kind_of(const py::array& scores) {
  const bool fits = scores.dtype().kind() == 'f' && (scores.itemsize() == 2 || scores.itemsize() == 4) &&
                    scores.ndim() == 2 && (scores.flags() & py::array::c_style) && scores.shape(1) > 0;
  if (!fits) throw py::value_error("scores are contiguous (N, C) arrays of float16 or float32");
  return scores.itemsize() == 2 ? ScoreKind::half : ScoreKind::single;
}

ScoreMatrix matrix_of(const py::array& scores) {
  const ScoreKind kind = kind_of(scores);
  return {scores.data(), kind, static_cast<std::size_t>(scores.shape(0)), static_cast<std::size_t>(scores.shape(1))};
}

void require(bool fits) {
  if (!fits) throw py::value_error("shapes do not fit the scores");
}

// (N,) or, with `top`, (N, top).
template <class Array>
auto* filled(Array& array, std::size_t rows, py::ssize_t top = -1) {
  require(array.ndim() == (top < 0 ? 1 : 2) && array.shape(0) == static_cast<py::ssize_t>(rows));
  require(top < 0 || array.shape(1) == top);
  return array.mutable_data();
}

BestClasses best_of(Ints& classes, Floats& values, std::size_t rows, std::size_t columns) {
  require(classes.ndim() == 2 && static_cast<std::size_t>(classes.shape(1)) <= columns);
  const py::ssize_t top = classes.shape(1);
  return {static_cast<std::size_t>(top), filled(classes, rows, top), filled(values, rows, top)};
}

py::tuple softmax_colsum_of(const py::array& scores, const Doubles& offsets, double temperature, int threads) {
  const ScoreMatrix matrix = matrix_of(scores);
  require(offsets.ndim() == 1 && static_cast<std::size_t>(offsets.size()) == matrix.columns);
  ColumnSums found;
  {
    const py::gil_scoped_release unlocked;
    found = softmax_colsum(matrix, offsets.data(), temperature, threads);
  }
  return py::make_tuple(Doubles(static_cast<py::ssize_t>(found.sums.size()), found.sums.data()), found.log_normalisers,
                        found.empty_row);
}

std::int64_t assign_of(const py::array& scores, const Doubles& offsets, double temperature, int threads, Ints& label,
                       Floats& probability, Floats& margin, Doubles& log_normaliser, Ints& top_classes,
                       Floats& top_values) {
  const ScoreMatrix matrix = matrix_of(scores);
  require(offsets.ndim() == 1 && static_cast<std::size_t>(offsets.size()) == matrix.columns);
  const std::size_t rows = matrix.rows;
  const Assignment out{filled(label, rows), filled(probability, rows), filled(margin, rows),
                       filled(log_normaliser, rows), best_of(top_classes, top_values, rows, matrix.columns)};
  const py::gil_scoped_release unlocked;
  return assign(matrix, offsets.data(), temperature, threads, out);
}

template <class Index>
void require_below(const Index& index, std::size_t count, std::size_t limit) {
  require(index.ndim() == 1 && static_cast<std::size_t>(index.size()) == count);
  for (std::size_t i = 0; i < count; ++i) {
    require(index.data()[i] >= 0 && static_cast<std::size_t>(index.data()[i]) < limit);
  }
}

ScoreSpace space_of(const std::string& name) {
  if (name == "logits") return ScoreSpace::logits;
  if (name == "probs") return ScoreSpace::probs;
  if (name == "log_probs") return ScoreSpace::log_probs;
  throw py::value_error("the space is logits, probs or log_probs, not " + name);
}

void combine_of(const std::vector<py::array>& tables, const std::vector<double>& weights,
                const std::vector<double>& temperatures, const std::vector<bool>& is_probs,
                const std::vector<std::optional<Longs>>& rows, const std::vector<std::optional<Ints>>& columns,
                const std::string& space, py::array& out, Ints& label, Ints& top_classes, Floats& top_values,
                int threads) {
  const ScoreKind kind = kind_of(out);
  const auto count = static_cast<std::size_t>(out.shape(0)), width = static_cast<std::size_t>(out.shape(1));
  for (const std::size_t size : {weights.size(), temperatures.size(), is_probs.size(), rows.size(), columns.size()}) {
    require(size == tables.size());
  }
  std::vector<Ingredient> ingredients;
  for (std::size_t m = 0; m < tables.size(); ++m) {
    const ScoreMatrix matrix = matrix_of(tables[m]);
    require(matrix.columns == width && (rows[m] || matrix.rows == count));
    if (rows[m]) require_below(*rows[m], count, matrix.rows);
    if (columns[m]) require_below(*columns[m], width, width);
    ingredients.push_back({matrix, is_probs[m], weights[m], temperatures[m], rows[m] ? rows[m]->data() : nullptr,
                           columns[m] ? columns[m]->data() : nullptr});
  }
  const Mixture mixture{out.mutable_data(), kind, count, width, filled(label, count),
                        best_of(top_classes, top_values, count, width)};
  const ScoreSpace wanted = space_of(space);
  const py::gil_scoped_release unlocked;
  combine(ingredients, wanted, threads, mixture);
}

double powers_of_two(const Floats& values, float shift, Floats& out) {
  const std::size_t count = static_cast<std::size_t>(values.size());
  require(values.ndim() == 1 && count % kScorePadding == 0 && std::abs(shift) <= 1 << 20);
  filled(out, count);
  const std::vector<float> none(count);
  const auto& kernels = score_kernels(current_simd());
  return kernels.exponentials[1](values.data(), none.data(), count, 1.0f, shift, 0, out.mutable_data());
}

std::uint64_t read_floor_of(const py::array& scores, int threads) {
  const ScoreMatrix matrix = matrix_of(scores);
  const py::gil_scoped_release unlocked;
  return read_floor(matrix, threads);
}

double exponential_floor_of(const py::array& row, std::size_t repeats, int threads) {
  const ScoreMatrix matrix = matrix_of(row);
  require(matrix.rows == 1);
  const py::gil_scoped_release unlocked;
  return exponential_floor(matrix, repeats, threads);
}

}  // namespace

void bind_scores(py::module_& module) {
  module.def("softmax_colsum", &softmax_colsum_of, py::kw_only(), py::arg("scores"), py::arg("offsets").noconvert(),
             py::arg("temperature"), py::arg("threads"));
  module.def("assign", &assign_of, py::kw_only(), py::arg("scores"), py::arg("offsets").noconvert(),
             py::arg("temperature"), py::arg("threads"), py::arg("label").noconvert(), py::arg("probability").noconvert(),
             py::arg("margin").noconvert(), py::arg("log_normaliser").noconvert(), py::arg("top_classes").noconvert(),
             py::arg("top_values").noconvert());
  module.def("combine", &combine_of, py::kw_only(), py::arg("tables"), py::arg("weights"), py::arg("temperatures"),
             py::arg("is_probs"), py::arg("rows"), py::arg("columns"), py::arg("space"), py::arg("out"),
             py::arg("label").noconvert(), py::arg("top_classes").noconvert(), py::arg("top_values").noconvert(),
             py::arg("threads"));
  module.def("powers_of_two", &powers_of_two, py::kw_only(), py::arg("values").noconvert(), py::arg("shift"),
             py::arg("out").noconvert());
  module.def("read_floor", &read_floor_of, py::kw_only(), py::arg("scores"), py::arg("threads"));
  module.def("exponential_floor", &exponential_floor_of, py::kw_only(), py::arg("row"), py::arg("repeats"),
             py::arg("threads"));
}

}  // namespace fasttrain
