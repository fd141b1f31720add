// What no pass over scores can be faster than; for benchmarks.
#pragma once

#include <cstdint>

#include "score_rows.h"

namespace fasttrain {

// Reads every byte once, on several threads; returns some function of them.
std::uint64_t read_floor(const ScoreMatrix& scores, int threads);

// Takes the exponentials of one row, which stays in the cache, so many times on each of the threads, and stores them
// over each other; returns a sum.
double exponential_floor(const ScoreMatrix& row, std::size_t repeats, int threads);

}  // namespace fasttrain
