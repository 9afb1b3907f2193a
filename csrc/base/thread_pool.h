// A fixed set of worker threads that runs one parallel region at a time. What the tasks are is the caller's
// business.
#pragma once

#include <cstdint>
#include <memory>

#include "base/function_ref.h"

namespace pocketvlm {

// Threads this process may use: CPU affinity, cut by the CPU quota of its control group. At least 1.
int default_num_threads();

class ThreadPool {
  public:
    // The calling thread of a region works too, so num_threads - 1 workers are started. Throws InputError
    // below 1 or above 1024.
    explicit ThreadPool(int num_threads);
    ~ThreadPool();
    ThreadPool(const ThreadPool&) = delete;
    ThreadPool& operator=(const ThreadPool&) = delete;

    int num_threads() const noexcept;

    // Calls task(i) once for every i in [0, num_tasks), on any thread and in any order; returns when all are
    // done. One region runs at a time: a second caller waits. Tasks must not throw and must not start a
    // region themselves. After fork, the child's first region starts workers of its own.
    void parallel_for(int64_t num_tasks, FunctionRef<void(int64_t task)> task);

  private:
    struct State;
    std::unique_ptr<State> state_;
};

}  // namespace pocketvlm
