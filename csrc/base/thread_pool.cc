#include "base/thread_pool.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <condition_variable>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "base/aligned_buffer.h"
#include "base/check.h"
#include "base/control_group.h"

namespace pocketvlm {
namespace {

constexpr int kMaxThreads = 1024;

// How often a waiting thread looks before it sleeps: some 20 microseconds, longer than the gap between two
// regions of a forward pass and short enough that an idle process uses no CPU.
constexpr int kSpins = 1000;

void relax() noexcept {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
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

// Workers wait for `region` to change, take tasks until none is left, and report by counting `working` down.
// Whoever waits spins first, and says that it is about to sleep before it looks a last time; whoever ends the
// wait does so before it looks whether anybody sleeps. Of two threads that write one word and then read the
// other's in this order (sequentially consistent), one sees what the other wrote: nobody sleeps through it,
// and no lock is taken while all are awake.
struct ThreadPool::State {
    const int num_threads;
    std::atomic<pid_t>
        owner;  // process whose threads these are; 0 while they are being replaced after a fork

    // Tasks of one thread, in its own cache line. Neighbouring tasks read neighbouring memory.
    struct alignas(kCacheLine) Share {
        std::atomic<int64_t> next{0};
        int64_t end = 0;
    };

    struct Shared {
        explicit Shared(int threads) : shares(static_cast<size_t>(threads)) {}

        std::mutex one_region;
        std::mutex sleep;
        std::condition_variable wake;  // workers: a region began, or the end
        std::condition_variable done;  // the caller: the last worker reported
        alignas(kCacheLine) std::atomic<uint64_t> region{0};
        alignas(kCacheLine) std::atomic<int> working{0};
        std::atomic<int> sleeping_workers{0};
        std::atomic<bool> caller_sleeps{false};
        std::atomic<bool> quit{false};
        const FunctionRef<void(int64_t)>* task = nullptr;
        std::vector<Share> shares;
        std::vector<std::thread> workers;
    };
    std::unique_ptr<Shared> shared;

    explicit State(int threads) : num_threads(threads), owner(getpid()) { start(); }

    void start() {
        shared = std::make_unique<Shared>(num_threads);
        for (int i = 1; i < num_threads; ++i) {
            shared->workers.emplace_back([s = shared.get(), i] { work(*s, static_cast<size_t>(i)); });
        }
    }

    // A forked child has none of the workers and may hold locked mutexes: it leaves the old state behind,
    // unfreed, and starts anew. Threads of the child that come at the same time wait for the first.
    void follow_fork() {
        const pid_t here = getpid();
        pid_t seen = owner.load(std::memory_order_acquire);
        if (seen == here) return;
        if (seen != 0 && owner.compare_exchange_strong(seen, 0)) {
            shared.release();
            start();
            owner.store(here, std::memory_order_release);
        }
        while (owner.load(std::memory_order_acquire) != here) std::this_thread::yield();
    }

    // A thread's own share, and then what others have left of theirs.
    static void take_tasks(Shared& s, size_t thread) {
        const size_t count = s.shares.size();
        for (size_t other = 0; other < count; ++other) {
            Share& share = s.shares[(thread + other) % count];
            while (share.next.load(std::memory_order_relaxed) < share.end) {
                const int64_t i = share.next.fetch_add(1, std::memory_order_relaxed);
                if (i < share.end) (*s.task)(i);
            }
        }
    }

    static void work(Shared& s, size_t thread) {
        uint64_t seen = 0;
        for (;;) {
            const auto ready = [&] { return s.quit.load() || s.region.load() != seen; };
            for (int spin = 0; spin < kSpins && !ready(); ++spin) relax();
            if (!ready()) {
                std::unique_lock<std::mutex> lock(s.sleep);
                s.sleeping_workers.fetch_add(1);
                s.wake.wait(lock, ready);
                s.sleeping_workers.fetch_sub(1);
            }
            if (s.quit.load()) return;
            seen = s.region.load();
            take_tasks(s, thread);
            if (s.working.fetch_sub(1) == 1 && s.caller_sleeps.load()) {
                // The lock makes sure that the caller is waiting by now.
                const std::lock_guard<std::mutex> lock(s.sleep);
                s.done.notify_one();
            }
        }
    }

    void run(int64_t num_tasks, FunctionRef<void(int64_t)> task) {
        Shared& s = *shared;
        const std::lock_guard<std::mutex> region(s.one_region);
        s.task = &task;
        for (int64_t i = 0; i < num_threads; ++i) {
            Share& share = s.shares[static_cast<size_t>(i)];
            share.next.store(i * num_tasks / num_threads, std::memory_order_relaxed);
            share.end = (i + 1) * num_tasks / num_threads;
        }
        s.working.store(num_threads - 1);
        s.region.fetch_add(1);
        if (s.sleeping_workers.load() > 0) {
            const std::lock_guard<std::mutex> lock(s.sleep);
            s.wake.notify_all();
        }
        take_tasks(s, 0);
        const auto finished = [&] { return s.working.load() == 0; };
        for (int spin = 0; spin < kSpins && !finished(); ++spin) relax();
        if (!finished()) {
            std::unique_lock<std::mutex> lock(s.sleep);
            s.caller_sleeps.store(true);
            s.done.wait(lock, finished);
            s.caller_sleeps.store(false);
        }
    }

    ~State() {
        if (owner.load() != getpid()) {
            shared.release();  // the threads belong to the parent process
            return;
        }
        {
            const std::lock_guard<std::mutex> lock(shared->sleep);
            shared->quit.store(true);
        }
        shared->wake.notify_all();
        for (std::thread& worker : shared->workers) worker.join();
    }
};

ThreadPool::ThreadPool(int num_threads) {
    if (num_threads < 1 || num_threads > kMaxThreads) {
        throw InputError("threads: " + std::to_string(num_threads) + ", expected 1 to " +
                         std::to_string(kMaxThreads));
    }
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
    state_->run(num_tasks, task);
}

}  // namespace pocketvlm
