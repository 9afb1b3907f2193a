// attend_block on a vector type V of simd/, R rows by N vectors at a time.
#pragma once

#include "kernels/attention/attention.h"
#include "kernels/simd/exp.inl"
#include "kernels/simd/tile.inl"

namespace pocketvlm {
namespace {

// scores[r, :] = q[r, :] . k for the keys before `visible`, rounded up to whole tiles.
template <typename V, int R, int N, int64_t kAhead, typename T>
void score_rows(const AttentionBlock<T>& block, int64_t row, int64_t visible) noexcept {
    for (int64_t key = 0; key < visible; key += N * V::kWidth) {
        V acc[R][N];
        for (auto& sums : acc) {
            for (V& sum : sums) sum = V::zero();
        }
        multiply_tile<V, R, N, kAhead>(block.q + row * block.q_stride, block.q_stride, block.k + key,
                                       kKeyBlock, block.head_dim, acc);
        for (int r = 0; r < R; ++r) {
            for (int n = 0; n < N; ++n)
                acc[r][n].store(block.scores + (row + r) * kKeyBlock + key + n * V::kWidth);
        }
    }
}

// Turns a row's scores into weights, zero from its last visible key up to `end`; updates max and sum.
// Returns the factor by which what was accumulated before has to shrink.
template <typename V, typename T>
float soften_row(const AttentionBlock<T>& block, int64_t row, int64_t end) noexcept {
    float* scores = block.scores + row * kKeyBlock;
    const int64_t visible = block.visible[row];
    const int64_t whole = visible / V::kWidth * V::kWidth;

    V largest = V::broadcast(block.max[row]);
    for (int64_t j = 0; j < whole; j += V::kWidth) largest = max(largest, V::load(scores + j));
    float new_max = largest.max();
    for (int64_t j = whole; j < visible; ++j) new_max = scores[j] > new_max ? scores[j] : new_max;

    const int64_t padded = (end + V::kWidth - 1) / V::kWidth * V::kWidth;
    for (int64_t j = visible; j < padded; ++j) scores[j] = -__builtin_inff();
    const V shift = V::broadcast(new_max);
    V total = V::zero();
    for (int64_t j = 0; j < padded; j += V::kWidth) {
        const V weight = exponential(V::load(scores + j) - shift);
        weight.store(scores + j);
        total = total + weight;
    }
    for (int64_t j = visible; j < padded; ++j) scores[j] = 0;

    const float rescale = visible == 0 ? 1.0f : __builtin_expf(block.max[row] - new_max);
    block.sum[row] = visible == 0 ? block.sum[row] : block.sum[row] * rescale + total.sum();
    block.max[row] = new_max;
    return rescale;
}

// acc[r, :] = acc[r, :] * rescale[r] + weights[r, :] . v over the keys before `end`.
template <typename V, int R, int N, int64_t kAhead, typename T>
void weigh_values(const AttentionBlock<T>& block, int64_t row, int64_t end, int64_t column,
                  const float (&rescale)[R]) noexcept {
    V acc[R][N];
    for (int r = 0; r < R; ++r) {
        const float* before = block.acc + (row + r) * block.value_dim + column;
        for (int n = 0; n < N; ++n) acc[r][n] = V::load(before + n * V::kWidth) * V::broadcast(rescale[r]);
    }
    multiply_tile<V, R, N, kAhead>(block.scores + row * kKeyBlock, kKeyBlock, block.v + column,
                                   block.value_dim, end, acc);
    for (int r = 0; r < R; ++r) {
        float* after = block.acc + (row + r) * block.value_dim + column;
        for (int n = 0; n < N; ++n) acc[r][n].store(after + n * V::kWidth);
    }
}

template <typename V, int N, int R, int64_t kAhead = 0, typename T>
void attend_block(const AttentionBlock<T>& block) noexcept {
    static_assert(kKeyBlock % (N * V::kWidth) == 0 && kValueAlignment % V::kWidth == 0);
    for (int64_t row = 0; row < block.rows; row += R) {
        with_row_count<R>(block.rows - row < R ? block.rows - row : R, [&](auto count) {
            constexpr int kRows = count.value;
            int64_t end = 0;
            for (int r = 0; r < kRows; ++r) end = block.visible[row + r] > end ? block.visible[row + r] : end;
            if (end == 0) return;

            score_rows<V, kRows, N, kAhead>(block, row, end);
            float rescale[kRows];
            for (int r = 0; r < kRows; ++r) rescale[r] = soften_row<V>(block, row + r, end);
            int64_t column = 0;
            for (; column + N * V::kWidth <= block.value_dim; column += N * V::kWidth) {
                weigh_values<V, kRows, N, kAhead>(block, row, end, column, rescale);
            }
            for (; column < block.value_dim; column += V::kWidth) {
                weigh_values<V, kRows, 1, kAhead>(block, row, end, column, rescale);
            }
        });
    }
}

}  // namespace
}  // namespace pocketvlm
