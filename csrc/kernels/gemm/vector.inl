// Products with weights in a float format, on a vector type V of simd/, for panels of N vectors and up to R
// rows at a time.
#pragma once

#include "kernels/gemm/gemm.h"
#include "kernels/simd/lanes.inl"
#include "kernels/simd/tile.inl"

namespace pocketvlm {
namespace {

// One row of activations uses each weight once: what bounds it is how soon weights come from memory. Panels
// follow each other there, and prefetching what no one may read is allowed.
constexpr int64_t kAheadBytes = 4096;

template <typename V, int N>
void store_row(const GemmOutput& output, int64_t row, const V (&sums)[N]) noexcept {
    float* y = output.y + row * output.y_stride;
    for (int n = 0; n < N; ++n) {
        const int64_t column = n * V::kWidth;
        with_lanes<V>(output.columns - column, [&](auto lanes) {
            V sum = sums[n];
            if (output.bias != nullptr) sum = sum + lanes.load(output.bias + column);
            if (output.accumulate) sum = sum + lanes.load(y + column);
            lanes.store(sum, y + column);
        });
    }
}

template <typename V, int N, int R, typename Weight>
void gemm_float(const float* x, int64_t x_stride, int64_t rows, const std::byte* panel, int64_t k,
                const GemmOutput& output) noexcept {
    const auto* weights = reinterpret_cast<const Weight*>(panel);
    for (int64_t row = 0; row < rows; row += R) {
        with_row_count<R>(rows - row < R ? rows - row : R, [&](auto count) {
            V acc[count.value][N];
            for (auto& sums : acc) {
                for (V& sum : sums) sum = V::zero();
            }
            multiply_tile<V, count.value, N, count.value == 1 ? kAheadBytes : 0>(
                x + row * x_stride, x_stride, weights, N * V::kWidth, k, acc);
            for (int r = 0; r < count.value; ++r) store_row(output, row + r, acc[r]);
        });
    }
}

}  // namespace
}  // namespace pocketvlm
