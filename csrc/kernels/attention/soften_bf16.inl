// The softmax between the two products of attention in bfloat16, on AVX-512.
#pragma once

#include <immintrin.h>

#include <cstddef>

#include "kernels/attention/attention.h"
#include "kernels/simd/power_of_two.h"

namespace pocketvlm {
namespace {

// A row's weights are powers of two of (score - max) times this.
inline float to_exponent(const AttentionBlockBf16& block) noexcept { return block.scale * 1.44269504f; }

// No weight is above 2^8: a row's maximum stays as it is until a score is so far above it. To look whether
// one is takes a comparison, to find the largest many steps that wait for each other.
constexpr float kHeadroom = 8.0f;

// Makes max that of a row, which moves what was summed so far. Returns it.
inline float raise_max(const AttentionBlockBf16& block, int64_t row, float max) noexcept {
    const float before = block.max[row];
    block.max[row] = max;
    if (before == -__builtin_inff()) return max;  // nothing was
    const float rescale = __builtin_expf((before - max) * block.scale);
    block.sum[row] *= rescale;
    float* acc = block.acc + row * block.value_dim;
    const __m512 smaller = _mm512_set1_ps(rescale);
    for (int64_t d = 0; d < block.value_dim; d += 16)
        _mm512_storeu_ps(acc + d, _mm512_mul_ps(_mm512_loadu_ps(acc + d), smaller));
    return max;
}

// Returns the maximum that a row's weights refer to, given the largest scores of each lane.
inline float max_of(const AttentionBlockBf16& block, int64_t row, __m512 largest) noexcept {
    const float max = block.max[row];
    const __m512 limit = _mm512_set1_ps(max + kHeadroom / to_exponent(block));
    if (_mm512_cmp_ps_mask(largest, limit, _CMP_GT_OQ) == 0) return max;
    return raise_max(block, row, _mm512_reduce_max_ps(largest));
}

// Two vectors of weights become 32 numbers at byte 2 j of a row whose scores at byte 4 j they came from.
inline void store_weights(float* scores, int64_t j, __m512 low, __m512 high) noexcept {
    _mm512_storeu_si512(reinterpret_cast<std::byte*>(scores) + 2 * j,
                        reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(high, low)));
}

// Turns the scores of a row that sees the whole block into weights in bfloat16, which take the first half of
// the scores' room. Updates max and sum, and scales acc for what is to be added.
inline void soften_whole_row_bf16(const AttentionBlockBf16& block, int64_t row) noexcept {
    constexpr int kWidth = 16, kVectors = kKeyBlock / kWidth;
    float* scores = block.scores + row * kKeyBlock;
    __m512 values[kVectors];
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) values[v] = _mm512_loadu_ps(scores + v * kWidth);
    __m512 largest[2] = {values[0], values[1]};
#pragma GCC unroll 8
    for (int v = 2; v < kVectors; ++v) largest[v % 2] = _mm512_max_ps(largest[v % 2], values[v]);
    const float max = max_of(block, row, _mm512_max_ps(largest[0], largest[1]));

    const __m512 factor = _mm512_set1_ps(to_exponent(block)),
                 shift = _mm512_set1_ps(-max * to_exponent(block));
    __m512 totals[2] = {_mm512_setzero_ps(), _mm512_setzero_ps()};
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; v += 2) {
        const __m512 low = power_of_two(_mm512_fmadd_ps(values[v], factor, shift));
        const __m512 high = power_of_two(_mm512_fmadd_ps(values[v + 1], factor, shift));
        totals[0] = _mm512_add_ps(totals[0], low);
        totals[1] = _mm512_add_ps(totals[1], high);
        store_weights(scores, v * kWidth, low, high);
    }
    block.sum[row] += _mm512_reduce_add_ps(_mm512_add_ps(totals[0], totals[1]));
}

// The same for a row that sees some of the keys before `end`, a multiple of 32; the others' weights are zero.
inline void soften_part_of_row_bf16(const AttentionBlockBf16& block, int64_t row, int64_t end) noexcept {
    constexpr int kWidth = 16;
    float* scores = block.scores + row * kKeyBlock;
    const int64_t visible = block.visible[row];
    const auto seen = [&](int64_t j) {
        const int64_t left = visible - j;
        return static_cast<__mmask16>(left >= kWidth ? 0xffff : left <= 0 ? 0 : (1 << left) - 1);
    };
    __m512 largest = _mm512_set1_ps(-__builtin_inff());
    for (int64_t j = 0; j < visible; j += kWidth)
        largest = _mm512_mask_max_ps(largest, seen(j), largest, _mm512_loadu_ps(scores + j));
    const float max = max_of(block, row, largest);

    const __m512 factor = _mm512_set1_ps(to_exponent(block)),
                 shift = _mm512_set1_ps(-max * to_exponent(block));
    __m512 total = _mm512_setzero_ps();
    const auto weight = [&](int64_t j) {
        const __m512 exponent = _mm512_fmadd_ps(_mm512_loadu_ps(scores + j), factor, shift);
        return _mm512_maskz_mov_ps(seen(j), power_of_two(exponent));
    };
    for (int64_t j = 0; j < end; j += 2 * kWidth) {
        const __m512 low = weight(j), high = weight(j + kWidth);
        total = _mm512_add_ps(total, _mm512_add_ps(low, high));
        store_weights(scores, j, low, high);
    }
    block.sum[row] += _mm512_reduce_add_ps(total);
}

// Rows row .. row + count - 1, of which none sees a key from `end` on.
inline void soften_rows_bf16(const AttentionBlockBf16& block, int64_t row, int64_t count,
                             int64_t end) noexcept {
    for (int64_t r = row; r < row + count; ++r) {
        if (block.visible[r] == kKeyBlock) {
            soften_whole_row_bf16(block, r);
        } else {
            soften_part_of_row_bf16(block, r, end);
        }
    }
}

}  // namespace
}  // namespace pocketvlm
