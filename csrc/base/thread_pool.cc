#include "base/thread_pool.h"

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <condition_variable>
#include <mutex>
#include <new>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "base/aligned_buffer.h"
#include "base/check.h"
#include "base/control_group.h"
#include "base/wake_elsewhere.h"

namespace pocketvlm {
namespace {

constexpr int kMaxThreads = 1024;

// How long a waiting thread looks before it sleeps: longer than what lies between two regions of a forward
// pass or between two tokens of an answer, and short enough that an idle process uses no CPU.
constexpr std::chrono::microseconds kLooking(200);
constexpr int kLooksPerTime = 64;

void relax() noexcept {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

// Returns whether `ready` became true in time.
template <typename F>
bool spin_until(const F& ready) {
    for (int look = 0; look < kLooksPerTime; ++look, relax()) {
        if (ready()) return true;
    }
    const auto end = std::chrono::steady_clock::now() + kLooking;
    while (std::chrono::steady_clock::now() < end) {
        for (int look = 0; look < kLooksPerTime; ++look, relax()) {
            if (ready()) return true;
        }
    }
    return false;
}

// How many forks lie between the first process and this one.
std::atomic<uint64_t> forks{0};
void count_forks() {
    static const int registered = pthread_atfork(nullptr, nullptr, [] { forks.fetch_add(1); });
    if (registered != 0) throw std::bad_alloc();
}

}  // namespace

int default_num_threads() {
    int threads = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
#if defined(__linux__)
    cpu_set_t allowed;
    if (sched_getaffinity(0, sizeof allowed, &allowed) == 0) threads = std::max(1, CPU_COUNT(&allowed));
#endif
    if (const auto quota = control_group_cpu_quota()) {
        threads = std::min(threads, std::max(1, static_cast<int>(std::ceil(*quota))));
    }
    return threads;
}

// Workers wait for `region` to change, take tasks until none is left, and say in their share that they have
// finished it. Whoever waits spins first, and says that it is about to sleep before it looks a last time;
// whoever ends the wait does so before it looks whether anybody sleeps. Of two threads that write one word
// and then read the other's in this order (sequentially consistent), one sees what the other wrote: nobody
// sleeps through it, and no lock is taken while all are awake.
//
// Between two cores a cache line takes about 100 ns, and a token has 150 regions: what the caller tells the
// workers is one line, and each share is written by its owner.
struct ThreadPool::State {
    static constexpr uint64_t kRestarting = ~uint64_t{0};

    const int num_threads;
    std::atomic<uint64_t> owner;  // `forks` of the process whose threads these are

    // Neighbouring tasks read neighbouring memory: each thread has a run of them.
    struct alignas(kCacheLine) Share {
        std::atomic<uint64_t> next{0};  // region << 32 | task, of the region that was begun last
        std::atomic<uint32_t> finished{0};
    };

    struct alignas(kCacheLine) Command {
        std::atomic<uint32_t> region{0};
        uint32_t num_tasks = 0;
        std::optional<FunctionRef<void(int64_t)>> task;
    };

    struct Shared {
        explicit Shared(int threads)
            : shares(static_cast<size_t>(threads)), workers(static_cast<size_t>(threads - 1)) {}

        Command command;
        std::vector<Share> shares;
        alignas(kCacheLine) std::atomic<int> sleeping_workers{0};
        std::atomic<bool> caller_sleeps{false};
        std::atomic<bool> quit{false};
        alignas(kCacheLine) std::mutex one_region;
        std::mutex sleep;
        struct Worker {
            std::thread thread;
            bool sleeps = false;  // these two under the lock
            WakeElsewhere wake;
        };
        std::condition_variable wake;  // workers: a region began, or the end
        std::condition_variable done;  // the caller: a worker finished
        std::vector<Worker> workers;
    };
    std::unique_ptr<Shared> shared;

    explicit State(int threads) : num_threads(threads), owner(forks.load()) { start(); }

    void start() {
        shared = std::make_unique<Shared>(num_threads);
        for (size_t i = 0; i < shared->workers.size(); ++i) {
            shared->workers[i].thread = std::thread([s = shared.get(), i] { work(*s, i + 1); });
        }
    }

    // A forked child has none of the workers and may hold locked mutexes: it leaves the old state behind,
    // unfreed, and starts anew. Threads of the child that come at the same time wait for the first.
    void follow_fork() {
        const uint64_t here = forks.load(std::memory_order_relaxed);
        uint64_t seen = owner.load(std::memory_order_acquire);
        if (seen == here) return;
        if (seen != kRestarting && owner.compare_exchange_strong(seen, kRestarting)) {
            shared.release();
            start();
            owner.store(here, std::memory_order_release);
        }
        while (owner.load(std::memory_order_acquire) != here) std::this_thread::yield();
    }

    // Takes the next task of a share, or returns num_tasks. The first to come in a region begins it: the
    // owner may be asleep.
    static uint64_t take(Shared& s, size_t owner, uint32_t region) {
        Share& share = s.shares[owner];
        const uint64_t tasks = s.command.num_tasks, threads = s.shares.size();
        const uint64_t first = owner * tasks / threads, end = (owner + 1) * tasks / threads;
        uint64_t seen = share.next.load(std::memory_order_relaxed);
        while (true) {
            const uint64_t task = seen >> 32 == region ? seen & 0xffffffffu : first;
            if (task >= end) return tasks;
            const uint64_t taken = uint64_t{region} << 32 | (task + 1);
            if (share.next.compare_exchange_weak(seen, taken, std::memory_order_relaxed)) return task;
        }
    }

    // A thread's own share, and then what others have left of theirs.
    static void take_tasks(Shared& s, size_t thread, uint32_t region) {
        const size_t count = s.shares.size();
        const uint64_t none = s.command.num_tasks;
        for (size_t other = 0; other < count; ++other) {
            const size_t owner = (thread + other) % count;
            for (uint64_t i; (i = take(s, owner, region)) != none;)
                (*s.command.task)(static_cast<int64_t>(i));
        }
    }

    static void work(Shared& s, size_t thread) {
        uint32_t seen = 0;
        while (true) {
            const auto ready = [&] { return s.command.region.load() != seen || s.quit.load(); };
            if (!spin_until(ready)) {
                Shared::Worker& self = s.workers[thread - 1];
                std::unique_lock<std::mutex> lock(s.sleep);
                s.sleeping_workers.fetch_add(1);
                self.sleeps = true;
                s.wake.wait(lock, ready);
                self.sleeps = false;
                s.sleeping_workers.fetch_sub(1);
                lock.unlock();
                self.wake.after_wake();
            }
            if (s.quit.load()) return;
            seen = s.command.region.load();
            take_tasks(s, thread, seen);
            s.shares[thread].finished.store(seen);
            if (s.caller_sleeps.load()) {
                // The lock makes sure that the caller is waiting by now.
                const std::lock_guard<std::mutex> lock(s.sleep);
                s.done.notify_one();
            }
        }
    }

    void run(uint32_t num_tasks, FunctionRef<void(int64_t)> task) {
        Shared& s = *shared;
        const std::lock_guard<std::mutex> one_region(s.one_region);
        s.command.task = task;
        s.command.num_tasks = num_tasks;
        const uint32_t region = s.command.region.fetch_add(1) + 1;
        if (s.sleeping_workers.load() > 0) {
            const std::lock_guard<std::mutex> lock(s.sleep);
            for (Shared::Worker& worker : s.workers) {
                if (worker.sleeps) worker.wake.before_wake(worker.thread.native_handle());
            }
            s.wake.notify_all();
        }
        take_tasks(s, 0, region);
        const auto finished = [&] {
            return std::all_of(s.shares.begin() + 1, s.shares.end(),
                               [&](const Share& share) { return share.finished.load() == region; });
        };
        if (!spin_until(finished)) {
            std::unique_lock<std::mutex> lock(s.sleep);
            s.caller_sleeps.store(true);
            s.done.wait(lock, finished);
            s.caller_sleeps.store(false);
        }
    }

    ~State() {
        if (owner.load() != forks.load()) {
            shared.release();  // the threads belong to the parent process
            return;
        }
        {
            const std::lock_guard<std::mutex> lock(shared->sleep);
            shared->quit.store(true);
        }
        shared->wake.notify_all();
        for (Shared::Worker& worker : shared->workers) worker.thread.join();
    }
};

ThreadPool::ThreadPool(int num_threads) {
    if (num_threads < 1 || num_threads > kMaxThreads) {
        throw InputError("threads: " + std::to_string(num_threads) + ", expected 1 to " +
                         std::to_string(kMaxThreads));
    }
    count_forks();
    state_ = std::make_unique<State>(num_threads);
}

ThreadPool::~ThreadPool() = default;

int ThreadPool::num_threads() const noexcept { return state_->num_threads; }

void ThreadPool::parallel_for(int64_t num_tasks, FunctionRef<void(int64_t task)> task) {
    if (num_tasks <= 1 || state_->num_threads == 1) {
        for (int64_t i = 0; i < num_tasks; ++i) task(i);
        return;
    }
    state_->follow_fork();
    state_->run(static_cast<uint32_t>(num_tasks), task);
}

}  // namespace pocketvlm
