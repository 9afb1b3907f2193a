// How a long computation is asked to stop: a flag any thread may set, and a poll that the model calls once
// per layer.
#pragma once

#include <atomic>
#include <functional>
#include <utility>

#include "base/check.h"

namespace pocketvlm {

class StopFlag {
  public:
    void set() noexcept { is_set_.store(true, std::memory_order_relaxed); }
    bool is_set() const noexcept { return is_set_.load(std::memory_order_relaxed); }

  private:
    std::atomic<bool> is_set_{false};
};

// Polled between layers. `interrupt` lets the embedding language look for signals of its own; it may throw.
class StopPoll {
  public:
    StopPoll() = default;
    explicit StopPoll(const StopFlag* flag, std::function<void()> interrupt = {})
        : flag_(flag), interrupt_(std::move(interrupt)) {}

    // Throws Cancelled when the flag is set, or whatever `interrupt` throws.
    void check() const {
        if (flag_ != nullptr && flag_->is_set()) throw Cancelled("stopped by request");
        if (interrupt_) interrupt_();
    }

  private:
    const StopFlag* flag_ = nullptr;
    std::function<void()> interrupt_;
};

}  // namespace pocketvlm
