#include <immintrin.h>

#include "kernels/gemm/gemm.h"
#include "kernels/quantize_row/quantize_row.h"
#include "kernels/quantize_row/scale.inl"

namespace pocketvlm::avx512 {

void quantize_row_i8(const float* x, int64_t k, int8_t* values, float* scales, int32_t* sums) noexcept {
    for (int64_t start = 0; start < k; start += kI8Block) {
        const int64_t count = k - start < kI8Block ? k - start : kI8Block;
        const auto present = static_cast<uint32_t>((uint64_t{1} << count) - 1);
        const __m512 low = _mm512_maskz_loadu_ps(static_cast<__mmask16>(present), x + start);
        const __m512 high = _mm512_maskz_loadu_ps(static_cast<__mmask16>(present >> 16), x + start + 16);
        const float amax = _mm512_reduce_max_ps(_mm512_max_ps(_mm512_abs_ps(low), _mm512_abs_ps(high)));
        const auto [scale, inverse] = block_scale(amax);
        const __m512 factor = _mm512_set1_ps(inverse);

        const __m512i first = _mm512_cvtps_epi32(_mm512_mul_ps(low, factor));
        const __m512i second = _mm512_cvtps_epi32(_mm512_mul_ps(high, factor));
        _mm_storeu_si128(reinterpret_cast<__m128i*>(values + start), _mm512_cvtepi32_epi8(first));
        _mm_storeu_si128(reinterpret_cast<__m128i*>(values + start + 16), _mm512_cvtepi32_epi8(second));
        scales[start / kI8Block] = scale;
        sums[start / kI8Block] = _mm512_reduce_add_epi32(_mm512_add_epi32(first, second));
    }
}

}  // namespace pocketvlm::avx512
