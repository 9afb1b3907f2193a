// Measures the loops of kernels/roof on the threads of a pool: what kernels are held against.
#pragma once

#include <cstdint>

#include "base/thread_pool.h"
#include "kernels/roof/roof_table.h"

namespace pocketvlm {

// What is read in one pass, by all threads together: more than most last-level caches hold.
inline constexpr int64_t kReadBytes = int64_t{256} << 20;

// The highest rate of several slices of a few milliseconds that take `seconds` together, on all threads of
// the pool: operations per second, a multiplication and an addition counting as two, or bytes per second.
// Throws Error when a loop does not compute what its contract says.
double measure_roof(const Roof& roof, ThreadPool& pool, double seconds);

}  // namespace pocketvlm
