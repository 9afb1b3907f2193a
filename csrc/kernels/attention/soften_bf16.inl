// The softmax between the two products of attention in bfloat16, on AVX-512.
#pragma once

#include <immintrin.h>

#include <cstddef>

#include "kernels/attention/attention.h"

namespace pocketvlm {
namespace {

// 2^x, x <= 0, relative error below 2^-12: what bfloat16 keeps has 8 bits. vscalefps takes the floor of x
// itself; the polynomial approximates 2^f on [0, 1) and is exact at both ends, so that it has no steps.
inline __m512 power_of_two(__m512 x) noexcept {
    const __m512 f = _mm512_reduce_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
    __m512 p = _mm512_set1_ps(0.07826796f);
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0.22630768f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0.69542436f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.0f));
    return _mm512_scalef_ps(p, x);
}

// Turns the scores of a row into weights in bfloat16, which take the first half of the scores' room, up to
// `end`, a multiple of 32; behind the last visible key they are zero. Updates max and sum, and scales acc for
// what is to be added.
inline void soften_row_bf16(const AttentionBlockBf16& block, int64_t row, int64_t end) noexcept {
    constexpr int kWidth = 16;
    constexpr float kLog2E = 1.44269504f;
    float* scores = block.scores + row * kKeyBlock;
    const int64_t visible = block.visible[row];
    const auto seen = [&](int64_t j) {
        const int64_t left = visible - j;
        return static_cast<__mmask16>(left >= kWidth ? 0xffff : left <= 0 ? 0 : (1 << left) - 1);
    };

    const float old_max = block.max[row];
    __m512 largest = _mm512_set1_ps(old_max);
    for (int64_t j = 0; j < end; j += kWidth)
        largest = _mm512_mask_max_ps(largest, seen(j), largest, _mm512_loadu_ps(scores + j));
    const float max = _mm512_reduce_max_ps(largest);

    const __m512 factor = _mm512_set1_ps(kLog2E), shift = _mm512_set1_ps(-max * kLog2E);
    __m512 total = _mm512_setzero_ps();
    for (int64_t j = 0; j < end; j += 2 * kWidth) {
        __m512 weights[2];
        for (int half = 0; half < 2; ++half) {
            const int64_t at = j + half * kWidth;
            const __m512 exponent = _mm512_fmadd_ps(_mm512_loadu_ps(scores + at), factor, shift);
            weights[half] = _mm512_maskz_mov_ps(seen(at), power_of_two(exponent));
            total = _mm512_add_ps(total, weights[half]);
        }
        // Writes at byte 2 j what was read at byte 4 j.
        _mm512_storeu_si512(reinterpret_cast<std::byte*>(scores) + 2 * j,
                            reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(weights[1], weights[0])));
    }

    if (visible == 0) return;
    const float rescale = __builtin_expf(old_max - max);
    block.sum[row] = block.sum[row] * rescale + _mm512_reduce_add_ps(total);
    block.max[row] = max;
    if (rescale == 1.0f) return;
    float* acc = block.acc + row * block.value_dim;
    const __m512 smaller = _mm512_set1_ps(rescale);
    for (int64_t d = 0; d < block.value_dim; d += kWidth)
        _mm512_storeu_ps(acc + d, _mm512_mul_ps(_mm512_loadu_ps(acc + d), smaller));
}

}  // namespace
}  // namespace pocketvlm
