// Passes over score matrices on a CPU: the column sums of row softmaxes, the final assignment, the ensemble.
#pragma once

#include <cstdint>
#include <vector>

#include "score_rows.h"

namespace fasttrain {

enum class ScoreSpace { logits, probs, log_probs };

struct ColumnSums {
  std::vector<double> sums;
  double log_normalisers;
  std::int64_t empty_row;  // the first row without a finite entry, or -1; the rest is meaningless then
};

// Sums over rows of softmax(scores / temperature + offsets), the same bits with any number of threads.
ColumnSums softmax_colsum(const ScoreMatrix& scores, const double* offsets, double temperature, int threads);

struct BestClasses {
  std::size_t top;
  std::int32_t* classes;  // (rows, top)
  float* values;
};

struct Assignment {  // what is to be filled, a number a row
  std::int32_t* label;
  float *probability, *margin;
  double* log_normaliser;
  BestClasses best;
};

// The first row without a finite entry, or -1.
std::int64_t assign(const ScoreMatrix& scores, const double* offsets, double temperature, int threads,
                    const Assignment& out);

// One of an ensemble's tables.
struct Ingredient {
  ScoreMatrix scores;
  bool is_probs;  // else logits or log-probabilities, between which a softmax makes no difference
  double weight, temperature;
  const std::int64_t* rows;     // row of the table for each row of the result, or null
  const std::int32_t* columns;  // column of the table for each column of the result, or null
};

struct Mixture {
  void* out;
  ScoreKind kind;
  std::size_t rows, columns;
  std::int32_t* label;
  BestClasses best;
};

void combine(const std::vector<Ingredient>& tables, ScoreSpace space, int threads, const Mixture& out);

// The `best.top` largest of padded values, descending, the earlier of equals first, as row `row`.
void find_best(const ScoreKernels& kernels, const float* values, std::size_t count, const BestClasses& best,
               std::size_t row);

}  // namespace fasttrain
