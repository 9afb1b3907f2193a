#include <immintrin.h>

#include "kernels/gemm/gemm.h"
#include "kernels/quantize_row/quantize_row.h"
#include "kernels/quantize_row/scale.inl"
#include "kernels/simd/f32_avx2.h"

namespace pocketvlm::avx2 {

void quantize_row_i8(const float* x, int64_t k, int8_t* values, float* scales, int32_t* sums) noexcept {
    constexpr int kParts = kI8Block / F32x8::kWidth;
    const __m256 sign = _mm256_set1_ps(-0.0f);
    for (int64_t start = 0; start < k; start += kI8Block) {
        F32x8 part[kParts];
        F32x8 magnitude = F32x8::zero();
        for (int n = 0; n < kParts; ++n) {
            const int64_t left = k - start - n * F32x8::kWidth;
            part[n] = left >= F32x8::kWidth
                          ? F32x8::load(x + start + n * F32x8::kWidth)
                          : F32x8::load_first(x + start + n * F32x8::kWidth, left > 0 ? left : 0);
            magnitude = max(magnitude, F32x8{_mm256_andnot_ps(sign, part[n].value)});
        }
        const auto [scale, inverse] = block_scale(magnitude.max());

        __m256i total = _mm256_setzero_si256();
        for (int n = 0; n < kParts; ++n) {
            const __m256i whole = _mm256_cvtps_epi32((part[n] * F32x8::broadcast(inverse)).value);
            total = _mm256_add_epi32(total, whole);
            const __m128i words =
                _mm_packs_epi32(_mm256_castsi256_si128(whole), _mm256_extracti128_si256(whole, 1));
            _mm_storel_epi64(reinterpret_cast<__m128i*>(values + start + n * F32x8::kWidth),
                             _mm_packs_epi16(words, words));
        }
        const __m128i four = _mm_add_epi32(_mm256_castsi256_si128(total), _mm256_extracti128_si256(total, 1));
        const __m128i two = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0x4e));
        sums[start / kI8Block] = _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32(two, 0xb1)));
        scales[start / kI8Block] = scale;
    }
}

}  // namespace pocketvlm::avx2
