#include "benchmarks/time_kernel.h"

#include <algorithm>
#include <chrono>

#include "benchmarks/roofs.h"

namespace pocketvlm {

KernelTimes time_kernel(const KernelCase& kernel, const KernelShape& shape, const KernelTable& kernels,
                        ThreadPool& pool, int repeat) {
    constexpr double kSampleSeconds = 0.001, kMaxSeconds = 1.0;
    constexpr size_t kMinSamples = 3;
    const PreparedKernel prepared = kernel.prepare(kernels, shape, kReadBytes);
    int64_t turn = 0;
    const auto seconds = [&](int64_t calls) {
        const auto start = std::chrono::steady_clock::now();
        for (int64_t call = 0; call < calls; ++call, ++turn) {
            pool.parallel_for(prepared.num_tasks, [&](int64_t task) { prepared.run(task, turn); });
        }
        return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    };
    seconds(1);  // first use of the results' memory, and waking up threads
    const double one_call = std::max(1e-9, seconds(1));
    const auto calls = std::max<int64_t>(1, static_cast<int64_t>(kSampleSeconds / one_call));

    KernelTimes times{{}, prepared.bytes, prepared.operations};
    double all = 0;
    for (int i = 0; i < repeat && (all < kMaxSeconds || times.seconds.size() < kMinSamples); ++i) {
        const double sample = seconds(calls);
        all += sample;
        times.seconds.push_back(sample / static_cast<double>(calls));
    }
    return times;
}

}  // namespace pocketvlm
