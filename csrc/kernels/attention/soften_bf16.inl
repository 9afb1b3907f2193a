// The softmax between the two products of attention in bfloat16, on AVX-512.
#pragma once

#include <immintrin.h>

#include <cstddef>

#include "kernels/attention/attention.h"
#include "kernels/simd/power_of_two.h"

namespace pocketvlm {
namespace {

// Turns the scores of a row into weights in bfloat16, which take the first half of the scores' room, up to
// `end`, a multiple of 32; behind the last visible key they are zero. Updates max and sum, and scales acc for
// what is to be added. With `all`, every key before `end` is visible.
template <bool all>
void soften_row_bf16(const AttentionBlockBf16& block, int64_t row, int64_t end) noexcept {
    constexpr int kWidth = 16;
    float* scores = block.scores + row * kKeyBlock;
    const int64_t visible = block.visible[row];
    const auto seen = [&](int64_t j) {
        const int64_t left = visible - j;
        return static_cast<__mmask16>(all || left >= kWidth ? 0xffff : left <= 0 ? 0 : (1 << left) - 1);
    };

    const float old_max = block.max[row];
    __m512 largest[] = {_mm512_set1_ps(old_max), _mm512_set1_ps(old_max)};
    for (int64_t j = 0; j < end; j += 2 * kWidth) {
        for (int half = 0; half < 2; ++half) {
            const int64_t at = j + half * kWidth;
            largest[half] =
                _mm512_mask_max_ps(largest[half], seen(at), largest[half], _mm512_loadu_ps(scores + at));
        }
    }
    const float max = _mm512_reduce_max_ps(_mm512_max_ps(largest[0], largest[1]));

    // exp((score - max) scale) is 2^(score factor - max factor).
    const float to_exponent = block.scale * 1.44269504f;
    const __m512 factor = _mm512_set1_ps(to_exponent), shift = _mm512_set1_ps(-max * to_exponent);
    __m512 total[] = {_mm512_setzero_ps(), _mm512_setzero_ps()};
    for (int64_t j = 0; j < end; j += 2 * kWidth) {
        __m512 weights[2];
        for (int half = 0; half < 2; ++half) {
            const int64_t at = j + half * kWidth;
            const __m512 exponent = _mm512_fmadd_ps(_mm512_loadu_ps(scores + at), factor, shift);
            weights[half] = _mm512_maskz_mov_ps(seen(at), power_of_two(exponent));
            total[half] = _mm512_add_ps(total[half], weights[half]);
        }
        // Writes at byte 2 j what was read at byte 4 j.
        _mm512_storeu_si512(reinterpret_cast<std::byte*>(scores) + 2 * j,
                            reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(weights[1], weights[0])));
    }

    if (!all && visible == 0) return;
    float& sum = block.sum[row];
    const float added = _mm512_reduce_add_ps(_mm512_add_ps(total[0], total[1]));
    if (max == old_max) {
        sum += added;
        return;
    }
    const float rescale = __builtin_expf((old_max - max) * block.scale);
    sum = sum * rescale + added;
    block.max[row] = max;
    float* acc = block.acc + row * block.value_dim;
    const __m512 smaller = _mm512_set1_ps(rescale);
    for (int64_t d = 0; d < block.value_dim; d += kWidth)
        _mm512_storeu_ps(acc + d, _mm512_mul_ps(_mm512_loadu_ps(acc + d), smaller));
}

// Rows row .. row + count - 1, of which none sees a key from `end` on.
inline void soften_rows_bf16(const AttentionBlockBf16& block, int64_t row, int64_t count,
                             int64_t end) noexcept {
    for (int64_t r = row; r < row + count; ++r) {
        if (block.visible[r] == end) {
            soften_row_bf16<true>(block, r, end);
        } else {
            soften_row_bf16<false>(block, r, end);
        }
    }
}

}  // namespace
}  // namespace pocketvlm
