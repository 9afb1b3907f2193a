#include "benchmarks/roofs.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>

#include "base/arena.h"
#include "base/check.h"

namespace pocketvlm {
namespace {

using Clock = std::chrono::steady_clock;

double since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

// Runs `slice` for that long in all, once at least beside a first time that does not count; returns the
// shortest time of one.
template <typename Slice>
double shortest(double seconds, const Slice& slice) {
    slice();
    double best = 0;
    const Clock::time_point start = Clock::now();
    do {
        const Clock::time_point before = Clock::now();
        slice();
        const double taken = since(before);
        best = best == 0 ? taken : std::min(best, taken);
    } while (since(start) < seconds);
    return best;
}

double expected(const RoofLoop& loop, int64_t rounds, int x, int y) {
    const double first = loop.accumulators * (loop.accumulators - 1) / 2;
    return loop.lanes * (first + static_cast<double>(rounds) * loop.depth * x * y * loop.accumulators);
}

double operations_per_second(const Roof& roof, ThreadPool& pool, double seconds) {
    constexpr double kSliceSeconds =
        0.001;  // long beside a wake-up of threads, short beside what disturbs them
    constexpr int kX = 1, kY = 2;
    const RoofLoop& loop = roof.loop;
    std::atomic<bool> right{true};
    const auto run = [&](int64_t calls) {
        pool.parallel_for(pool.num_threads(), [&](int64_t) {
            for (int64_t call = 0; call < calls; ++call) {
                if (loop.run(kMaxRoofRounds, kX, kY) != expected(loop, kMaxRoofRounds, kX, kY)) right = false;
            }
        });
    };
    const double one_call = shortest(0, [&] { run(1); });
    const auto calls = static_cast<int64_t>(std::max(1.0, kSliceSeconds / one_call));
    const double slice = shortest(seconds, [&] { run(calls); });
    if (!right) throw Error(concat("roof: ", roof.instruction, ": the loop computed something else"));
    const double per_round = 2.0 * loop.accumulators * loop.lanes * loop.depth;
    return per_round * static_cast<double>(kMaxRoofRounds * calls * pool.num_threads()) / slice;
}

double bytes_per_second(const Roof& roof, ThreadPool& pool, double seconds) {
    constexpr int64_t kStep = 512;
    const int threads = pool.num_threads();
    const int64_t share = kReadBytes / threads / kStep * kStep;
    const std::shared_ptr<std::byte> buffer = Arena().allocate(static_cast<size_t>(kReadBytes));
    std::byte* data = buffer.get();
    pool.parallel_for(threads,
                      [&](int64_t i) { std::memset(data + i * share, 1, static_cast<size_t>(share)); });
    std::atomic<uint64_t> sum{0};
    int64_t passes = 0;
    const double pass = shortest(seconds, [&] {
        ++passes;
        pool.parallel_for(threads, [&](int64_t i) { sum += roof.read(data + i * share, share); });
    });
    const uint64_t words = static_cast<uint64_t>(passes * threads * (share / 8));
    if (sum != words * 0x0101010101010101u)
        throw Error(concat("roof: ", roof.instruction, ": the loop read something else"));
    return static_cast<double>(share * threads) / pass;
}

}  // namespace

double measure_roof(const Roof& roof, ThreadPool& pool, double seconds) {
    return roof.read != nullptr ? bytes_per_second(roof, pool, seconds)
                                : operations_per_second(roof, pool, seconds);
}

}  // namespace pocketvlm
