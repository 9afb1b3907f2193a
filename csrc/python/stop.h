// How a long call from Python is asked to stop: by a StopFlag, or by a signal such as Ctrl-C.
#pragma once

#include <pybind11/pybind11.h>

#include <chrono>

#include "base/stop_flag.h"

namespace pocketvlm {

// A poll for a call that has released the GIL. It runs Python's signal handlers every 50 ms, in the thread
// that calls check(), and throws what they raise. `flag` may be null and outlives the poll.
inline StopPoll make_stop_poll(const StopFlag* flag) {
    using Clock = std::chrono::steady_clock;
    return StopPoll(flag, [last = Clock::now()]() mutable {
        const Clock::time_point now = Clock::now();
        if (now - last < std::chrono::milliseconds(50)) return;
        last = now;
        const pybind11::gil_scoped_acquire gil;
        if (PyErr_CheckSignals() != 0) throw pybind11::error_already_set();
    });
}

}  // namespace pocketvlm
