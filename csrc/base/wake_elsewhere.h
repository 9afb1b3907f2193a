// Linux may start a thread that is woken on the processor of the thread that wakes it, though others idle:
// one of the two waits there until the kernel balances its queues, for 2 to 4 ms as measured (Linux 6.18, two
// cores). For a region of parallel work that is as if there were one thread.
#pragma once

#include <pthread.h>

namespace pocketvlm {

// Of one thread that sleeps and is woken. The calls are ordered by the lock of the wait.
class WakeElsewhere {
  public:
    // By who is about to wake it: forbids it the processor of the caller, if it may use others.
    void before_wake(pthread_t sleeper) noexcept;
    // By the thread itself, awake: it may use all processors again that it could use before.
    void after_wake() noexcept;

  private:
    int forbidden_ = -1;
};

}  // namespace pocketvlm
