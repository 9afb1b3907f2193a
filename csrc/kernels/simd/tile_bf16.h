// The register tile of products in bfloat16 on AVX-512: R rows times N vectors of sixteen sums.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "base/half.h"

namespace pocketvlm {
namespace {

// sum += the dot product of two neighbours, in each lane. Written as assembly because gcc 12 surrounds the
// intrinsic with register copies.
inline void dot_two(__m512& sum, __m512i a, __m512i b) noexcept {
    asm("vdpbf16ps %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
}

// out[r, n-th vector] = (add ? out : 0) + sum_i a[r, i] * b[i, n-th vector], two of i at a time, in their
// order. a: [R, a_stride], b: [k / 2, b_stride, 2], k even, out: [R, out_stride]. R * N sums, N vectors of b
// and one of a have to fit 32 registers. That gcc 12 keeps the sums there takes a function of their own and
// loops that are unrolled by name.
template <int R, int N, bool add>
__attribute__((noinline)) void multiply_pairs(const BFloat16* a, int64_t a_stride, const BFloat16* b,
                                              int64_t b_stride, int64_t k, float* out,
                                              int64_t out_stride) noexcept {
    constexpr int kWidth = 16;
    __m512 sums[R][N];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
        for (int n = 0; n < N; ++n)
            sums[r][n] = add ? _mm512_loadu_ps(out + r * out_stride + n * kWidth) : _mm512_setzero_ps();
    }
    for (int64_t i = 0; i < k; i += 2, b += 2 * b_stride) {
        __m512i column[N];
#pragma GCC unroll 8
        for (int n = 0; n < N; ++n) column[n] = _mm512_loadu_si512(b + n * 2 * kWidth);
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) {
            int32_t two;
            __builtin_memcpy(&two, a + r * a_stride + i, sizeof two);
            const __m512i x = _mm512_set1_epi32(two);
#pragma GCC unroll 8
            for (int n = 0; n < N; ++n) dot_two(sums[r][n], column[n], x);
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
        for (int n = 0; n < N; ++n) _mm512_storeu_ps(out + r * out_stride + n * kWidth, sums[r][n]);
    }
}

}  // namespace
}  // namespace pocketvlm
