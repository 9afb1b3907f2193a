// Steps over rows that do not end with a whole vector of a vector type V of simd/.
#pragma once

#include <cstdint>

namespace pocketvlm {
namespace {

// The lanes of a vector that a step works on: all of them, or the first few.
template <typename V>
struct WholeVector {
    static V load(const float* p) noexcept { return V::load(p); }
    static void store(V x, float* p) noexcept { x.store(p); }
    static V zero_others(V x) noexcept { return x; }
};
template <typename V>
struct FirstLanes {
    int64_t count;
    V load(const float* p) const noexcept { return V::load_first(p, count); }
    void store(V x, float* p) const noexcept { x.store_first(p, count); }
    V zero_others(V x) const noexcept {
        float lanes[V::kWidth] = {};
        x.store_first(lanes, count);
        return V::load(lanes);
    }
};

// Calls f(lanes) for the first `count` of a vector's lanes, or for all if there are so many.
template <typename V, typename F>
void with_lanes(int64_t count, const F& f) noexcept {
    if (count >= V::kWidth) {
        f(WholeVector<V>());
    } else if (count > 0) {
        f(FirstLanes<V>{count});
    }
}

}  // namespace
}  // namespace pocketvlm
