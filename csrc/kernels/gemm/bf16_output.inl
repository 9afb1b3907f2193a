// What becomes of a row of a panel's sums of products in bfloat16, on AVX-512.
#pragma once

#include <immintrin.h>

#include "kernels/gemm/vector.inl"
#include "kernels/simd/f32_avx512.h"
#include "kernels/simd/power_of_two.h"

namespace pocketvlm {
namespace {

// x / (1 + 2^(-2 log2(e) u)) is 0.5 x (1 + tanh(u)), u = sqrt(2 / pi) (x + 0.044715 x^3). From 2^126 on the
// reciprocal is as good as 0. vrcp14ps errs by 2^-14.
inline __m512 gelu_tanh_bf16(__m512 x) noexcept {
    constexpr float kFactor = -2.30220819f;  // -2 log2(e) sqrt(2 / pi)
    const __m512 cubic =
        _mm512_fmadd_ps(_mm512_mul_ps(x, x), _mm512_set1_ps(0.044715f * kFactor), _mm512_set1_ps(kFactor));
    const __m512 power = power_of_two(_mm512_min_ps(_mm512_mul_ps(x, cubic), _mm512_set1_ps(126.0f)));
    return _mm512_mul_ps(x, _mm512_rcp14_ps(_mm512_add_ps(power, _mm512_set1_ps(1.0f))));
}

// sums: N vectors of sixteen columns, from column `first` of the panel on.
template <int N>
void store_row_bf16(const GemmBf16Output& output, int64_t row, int64_t first, const float* sums) noexcept {
    constexpr int kWidth = F32x16::kWidth;
    const GemmOutput& f32 = output.f32;
    if (output.y_bf16 == nullptr) {
        F32x16 vectors[N];
        for (int n = 0; n < N; ++n) vectors[n] = F32x16::load(sums + n * kWidth);
        return store_row(GemmOutput{f32.y + first, f32.y_stride, f32.columns - first,
                                    f32.bias != nullptr ? f32.bias + first : nullptr, f32.accumulate},
                         row, vectors);
    }
    BFloat16* y = output.y_bf16 + row * f32.y_stride;
    for (int n = 0; n < N; ++n) {
        const int64_t column = first + n * kWidth, left = f32.columns - column;
        with_lanes<F32x16>(left, [&](auto lanes) {
            F32x16 sum = F32x16::load(sums + n * kWidth);
            if (f32.bias != nullptr) sum = sum + lanes.load(f32.bias + column);
            if (output.gelu_tanh) sum.value = gelu_tanh_bf16(sum.value);
            const auto rounded = reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(sum.value));
            if (left >= kWidth) {
                _mm256_storeu_si256(reinterpret_cast<__m256i*>(y + column), rounded);
            } else {
                _mm256_mask_storeu_epi16(y + column, static_cast<__mmask16>((1u << left) - 1), rounded);
            }
        });
    }
}

}  // namespace
}  // namespace pocketvlm
