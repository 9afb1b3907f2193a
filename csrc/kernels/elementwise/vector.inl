// The elementwise kernels on a vector type V of simd/.
#pragma once

#include "kernels/elementwise/elementwise.h"
#include "kernels/simd/exp.inl"
#include "kernels/simd/lanes.inl"

namespace pocketvlm {
namespace {

// Calls f(offset, lanes) for each whole vector of n values, and once for what is left.
template <typename V, typename F>
void for_each_vector(int64_t n, const F& f) noexcept {
    int64_t i = 0;
    for (; i + V::kWidth <= n; i += V::kWidth) f(i, WholeVector<V>());
    if (i < n) f(i, FirstLanes<V>{n - i});
}

// sum_i f(offset, lanes), in several sums side by side: one alone would wait for itself at every step.
template <typename V, typename F>
float sum_of(int64_t n, const F& f) noexcept {
    constexpr int64_t kSums = 4;
    V sums[kSums] = {V::zero(), V::zero(), V::zero(), V::zero()};
    int64_t i = 0;
    for (; i + kSums * V::kWidth <= n; i += kSums * V::kWidth) {
        for (int64_t s = 0; s < kSums; ++s) sums[s] = sums[s] + f(i + s * V::kWidth, WholeVector<V>());
    }
    for (; i + V::kWidth <= n; i += V::kWidth) sums[0] = sums[0] + f(i, WholeVector<V>());
    if (i < n) sums[1] = sums[1] + f(i, FirstLanes<V>{n - i});
    return ((sums[0] + sums[1]) + (sums[2] + sums[3])).sum();
}

template <typename V>
void layer_norm_vector(const float* x, const float* weight, const float* bias, float epsilon, int64_t n,
                       float* y) noexcept {
    const float sum = sum_of<V>(n, [&](int64_t i, auto lanes) { return lanes.load(x + i); });
    const V mean = V::broadcast(sum / static_cast<float>(n));
    const float squares = sum_of<V>(n, [&](int64_t i, auto lanes) {
        // Lanes past the end hold minus the mean, which must not count.
        const V centred = lanes.zero_others(lanes.load(x + i) - mean);
        return centred * centred;
    });
    const V inverse = V::broadcast(1.0f / __builtin_sqrtf(squares / static_cast<float>(n) + epsilon));
    for_each_vector<V>(n, [&](int64_t i, auto lanes) {
        const V scaled = (lanes.load(x + i) - mean) * inverse;
        lanes.store(multiply_add(scaled, lanes.load(weight + i), lanes.load(bias + i)), y + i);
    });
}

template <typename V>
void rms_norm_vector(const float* x, const float* weight, float epsilon, int64_t n, float* y) noexcept {
    const float squares = sum_of<V>(n, [&](int64_t i, auto lanes) {
        const V value = lanes.load(x + i);
        return value * value;
    });
    const V inverse = V::broadcast(1.0f / __builtin_sqrtf(squares / static_cast<float>(n) + epsilon));
    for_each_vector<V>(n, [&](int64_t i, auto lanes) {
        lanes.store(lanes.load(x + i) * inverse * lanes.load(weight + i), y + i);
    });
}

// 0.5 * (1 + tanh(u)) is 1 / (1 + exp(-2 u)).
template <typename V>
void gelu_tanh_vector(float* x, int64_t n) noexcept {
    constexpr float kTwiceSqrtTwoOverPi = 1.5957691216f;
    const V one = V::broadcast(1.0f);
    for_each_vector<V>(n, [&](int64_t i, auto lanes) {
        const V value = lanes.load(x + i);
        const V cubic = multiply_add(value * value, V::broadcast(0.044715f), one);
        const V exponent = value * cubic * V::broadcast(-kTwiceSqrtTwoOverPi);
        lanes.store(value / (one + exponential(exponent)), x + i);
    });
}

template <typename V>
void silu_mul_vector(float* gate, const float* up, int64_t n) noexcept {
    const V one = V::broadcast(1.0f);
    for_each_vector<V>(n, [&](int64_t i, auto lanes) {
        const V value = lanes.load(gate + i);
        const V activated = value / (one + exponential(V::zero() - value));
        lanes.store(activated * lanes.load(up + i), gate + i);
    });
}

template <typename V>
void rope_interleaved_vector(float* x, const float* cosine, const float* sine, int64_t n,
                             float scale) noexcept {
    const V factor = V::broadcast(scale);
    int64_t i = 0;
    for (; i + V::kWidth <= n; i += V::kWidth) {
        const V pairs = V::load(x + i) * factor;
        const V crossed = swap_neighbours(pairs) * V::load_each_twice(sine + i / 2);
        multiply_subtract_add(pairs, V::load_each_twice(cosine + i / 2), crossed).store(x + i);
    }
    for (; i < n; i += 2) {
        const float even = x[i] * scale, odd = x[i + 1] * scale;
        x[i] = even * cosine[i / 2] - odd * sine[i / 2];
        x[i + 1] = even * sine[i / 2] + odd * cosine[i / 2];
    }
}

template <typename V>
void f32_to_f16_vector(const float* x, int64_t n, Float16* y) noexcept {
    int64_t i = 0;
    for (; i + V::kWidth <= n; i += V::kWidth) V::load(x + i).store(y + i);
    for (; i < n; ++i) y[i].bits = fp32_to_fp16(x[i]);
}

}  // namespace
}  // namespace pocketvlm
