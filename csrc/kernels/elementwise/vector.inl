// The elementwise kernels on a vector type V of simd/.
#pragma once

#include "kernels/elementwise/elementwise.h"
#include "kernels/simd/exp.inl"

namespace pocketvlm {
namespace {

// Calls f(offset, count) for each whole vector of n values, and once for what is left.
template <typename V, typename F>
void for_each_vector(int64_t n, const F& f) noexcept {
    for (int64_t i = 0; i < n; i += V::kWidth) f(i, n - i < V::kWidth ? n - i : V::kWidth);
}

template <typename V>
void layer_norm_vector(const float* x, const float* weight, const float* bias, float epsilon, int64_t n,
                       float* y) noexcept {
    V sums = V::zero();
    for_each_vector<V>(n, [&](int64_t i, int64_t count) { sums = sums + V::load_first(x + i, count); });
    const float mean = sums.sum() / static_cast<float>(n);

    V squares = V::zero();
    for_each_vector<V>(n, [&](int64_t i, int64_t count) {
        // Lanes past the end hold minus the mean, which must not count: a copy of the others has zeros there.
        const V centred = V::load_first(x + i, count) - V::broadcast(mean);
        if (count == V::kWidth) {
            squares = multiply_add(centred, centred, squares);
        } else {
            float last[V::kWidth] = {};
            centred.store_first(last, count);
            const V kept = V::load(last);
            squares = multiply_add(kept, kept, squares);
        }
    });
    const float inverse = 1.0f / __builtin_sqrtf(squares.sum() / static_cast<float>(n) + epsilon);

    for_each_vector<V>(n, [&](int64_t i, int64_t count) {
        const V centred = V::load_first(x + i, count) - V::broadcast(mean);
        const V scaled = centred * V::broadcast(inverse) * V::load_first(weight + i, count);
        (scaled + V::load_first(bias + i, count)).store_first(y + i, count);
    });
}

template <typename V>
void rms_norm_vector(const float* x, const float* weight, float epsilon, int64_t n, float* y) noexcept {
    V squares = V::zero();
    for_each_vector<V>(n, [&](int64_t i, int64_t count) {
        const V value = V::load_first(x + i, count);
        squares = multiply_add(value, value, squares);
    });
    const float inverse = 1.0f / __builtin_sqrtf(squares.sum() / static_cast<float>(n) + epsilon);
    for_each_vector<V>(n, [&](int64_t i, int64_t count) {
        const V scaled = V::load_first(x + i, count) * V::broadcast(inverse);
        (scaled * V::load_first(weight + i, count)).store_first(y + i, count);
    });
}

// 0.5 * (1 + tanh(u)) is 1 / (1 + exp(-2 u)).
template <typename V>
void gelu_tanh_vector(float* x, int64_t n) noexcept {
    constexpr float kTwiceSqrtTwoOverPi = 1.5957691216f;
    const V one = V::broadcast(1.0f);
    for_each_vector<V>(n, [&](int64_t i, int64_t count) {
        const V value = V::load_first(x + i, count);
        const V cubic = multiply_add(value * value, V::broadcast(0.044715f), one);
        const V exponent = value * cubic * V::broadcast(-kTwiceSqrtTwoOverPi);
        (value / (one + exponential(exponent))).store_first(x + i, count);
    });
}

template <typename V>
void silu_mul_vector(float* gate, const float* up, int64_t n) noexcept {
    const V one = V::broadcast(1.0f);
    for_each_vector<V>(n, [&](int64_t i, int64_t count) {
        const V value = V::load_first(gate + i, count);
        const V activated = value / (one + exponential(V::zero() - value));
        (activated * V::load_first(up + i, count)).store_first(gate + i, count);
    });
}

}  // namespace
}  // namespace pocketvlm
