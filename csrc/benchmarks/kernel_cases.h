// Every kernel of the kernel table, set up to be called as the model calls it: the shapes of SmolVLM-256M,
// work split as a pool's threads share it, memory that is not in the cache because it was used a moment ago.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "kernels/kernel_table.h"

namespace pocketvlm {

// What the letters mean is the kernel's own affair: kernel_cases.cc says it beside each.
struct KernelShape {
    const char* use;  // where the model has it
    int64_t m, k, n;
    int64_t heads = 1;
};

struct PreparedKernel {
    int64_t num_tasks;  // which may run at the same time
    // Runs one task. Each turn takes other memory, as long as there is some.
    std::function<void(int64_t task, int64_t turn)> run;
    double bytes;       // that all tasks fetch from memory and, where they work in place, write back
    double operations;  // that they compute; a multiplication and an addition are two
};

struct KernelCase {
    const char* kernel;  // its column in the kernel table
    const char* kind;    // what it computes in, as kernels/roof/roof_table.h has it; empty: memory bounds it
    // memory_bytes: how much the turns together may take of what a call streams; one turn's at least.
    PreparedKernel (*prepare)(const KernelTable& kernels, const KernelShape& shape, int64_t memory_bytes);
    std::vector<KernelShape> shapes;
    bool is_bf16 = false;  // one of KernelTable::bf16, which a row may lack

    bool is_in(const KernelTable& kernels) const { return !is_bf16 || kernels.bf16 != nullptr; }
};

const std::vector<KernelCase>& kernel_cases();

}  // namespace pocketvlm
