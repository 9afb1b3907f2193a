// How long a kernel takes on the threads of a pool.
#pragma once

#include <vector>

#include "base/thread_pool.h"
#include "benchmarks/kernel_cases.h"

namespace pocketvlm {

struct KernelTimes {
    std::vector<double> seconds;  // per call, of several samples
    double bytes;                 // of a call, as of PreparedKernel
    double operations;
};

// Takes `repeat` samples of at least a millisecond each, of as many calls as that needs; fewer, but three,
// when they take longer than a second together.
KernelTimes time_kernel(const KernelCase& kernel, const KernelShape& shape, const KernelTable& kernels,
                        ThreadPool& pool, int repeat);

}  // namespace pocketvlm
