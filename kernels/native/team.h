// Threads for one call, where torch's own operations come before and after it.
#pragma once

#include <cstddef>
#include <functional>

namespace fasttrain {

// Calls work(job) for each job number below `jobs`, on at most `threads` threads, and returns when all are done.
//
// Torch's OpenMP threads wait for their next operation by spinning: threads beside them would fight with them for the cores.
// So the OpenMP library that is in the process already runs this, too, with the same threads; where there is none, threads
// are started.
void on_team(std::size_t jobs, int threads, const std::function<void(std::size_t)>& work);

}  // namespace fasttrain
