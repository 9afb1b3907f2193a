#include "base/wake_elsewhere.h"

#include <sched.h>

namespace pocketvlm {

#if defined(__linux__)

// Where processors cannot be chosen, which a sandbox may forbid, or there are more than a set holds, all
// stays as it is.

void WakeElsewhere::before_wake(pthread_t sleeper) noexcept {
    const int here = sched_getcpu();
    cpu_set_t allowed;
    if (here < 0 || here >= CPU_SETSIZE) return;
    if (pthread_getaffinity_np(sleeper, sizeof allowed, &allowed) != 0) return;
    if (!CPU_ISSET(here, &allowed) || CPU_COUNT(&allowed) == 1) return;
    CPU_CLR(here, &allowed);
    if (pthread_setaffinity_np(sleeper, sizeof allowed, &allowed) == 0) forbidden_ = here;
}

void WakeElsewhere::after_wake() noexcept {
    if (forbidden_ < 0) return;
    cpu_set_t allowed;
    if (sched_getaffinity(0, sizeof allowed, &allowed) == 0) {
        CPU_SET(forbidden_, &allowed);
        sched_setaffinity(0, sizeof allowed, &allowed);
    }
    forbidden_ = -1;
}

#else

void WakeElsewhere::before_wake(pthread_t) noexcept {}
void WakeElsewhere::after_wake() noexcept {}

#endif

}  // namespace pocketvlm
