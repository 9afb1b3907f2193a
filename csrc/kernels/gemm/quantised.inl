// Products of quantised activations and blocks of quantised weights, on a vector type V of simd/, for panels
// of N vectors and R rows at a time. What an instruction set adds is the integer dot product of one block, as
// a type:
//
//   struct Dot {
//       using Int = ...;                                   // a vector of 32-bit integers, as wide as V
//       static constexpr int64_t block_bytes(int nr);      // of a panel's block
//       static Int start(int32_t sum);                     // what the stored weights' offset adds, taken off
//       template <int R, int N>                            // dots[r][n] += the block's dot products; for R =
//                                                          // 1, prefetch what is kAheadBytes ahead
//       static void accumulate(const int8_t* values, int64_t stride, const std::byte* weights, Int
//       (&dots)[R][N]); static V to_float(Int dots);
//   };
#pragma once

#include "base/half.h"
#include "kernels/gemm/vector.inl"

namespace pocketvlm {
namespace {

template <typename V, int N, int R, typename Dot>
void gemm_block_rows(const I8Rows& x, int64_t row, const std::byte* panel,
                     const GemmOutput& output) noexcept {
    constexpr int kNr = N * V::kWidth;
    V sums[R][N];
    for (auto& vectors : sums) {
        for (V& sum : vectors) sum = V::zero();
    }
    for (int64_t b = 0; b < x.num_blocks; ++b) {
        const std::byte* block = panel + b * Dot::block_bytes(kNr);
        const int64_t first = row * x.num_blocks + b;
        if constexpr (R == 1) prefetch<2 * kNr>(block + kAheadBytes);
        typename Dot::Int dots[R][N];
        for (int r = 0; r < R; ++r) {
            for (auto& dot : dots[r]) dot = Dot::start(x.sums[first + r * x.num_blocks]);
        }
        Dot::template accumulate<R, N>(x.values + first * kI8Block, x.num_blocks * kI8Block, block + 2 * kNr,
                                       dots);
        for (int n = 0; n < N; ++n) {
            const V weight_scale = V::load(reinterpret_cast<const Float16*>(block) + n * V::kWidth);
            for (int r = 0; r < R; ++r) {
                const V scale = weight_scale * V::broadcast(x.scales[first + r * x.num_blocks]);
                sums[r][n] = multiply_add(scale, Dot::to_float(dots[r][n]), sums[r][n]);
            }
        }
    }
    for (int r = 0; r < R; ++r) store_row(output, row + r, sums[r]);
}

template <typename V, int N, int R, typename Dot>
void gemm_blocks(const I8Rows& x, const std::byte* panel, const GemmOutput& output) noexcept {
    for (int64_t row = 0; row < x.rows; row += R) {
        with_row_count<R>(x.rows - row < R ? x.rows - row : R, [&](auto count) {
            gemm_block_rows<V, N, count.value, Dot>(x, row, panel, output);
        });
    }
}

// Four activations of k, to be broadcast.
inline int32_t load_four(const int8_t* values) noexcept {
    int32_t four;
    __builtin_memcpy(&four, values, sizeof four);
    return four;
}

}  // namespace
}  // namespace pocketvlm
