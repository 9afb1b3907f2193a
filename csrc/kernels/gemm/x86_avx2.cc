#include "kernels/gemm/gemm.h"
#include "kernels/gemm/vector.inl"
#include "kernels/simd/f32_avx2.h"

namespace pocketvlm::avx2 {
namespace {

// Panels of 16 columns: two vectors of eight columns, four bytes of k each.
constexpr int kVectors = kGemmNr / F32x8::kWidth;

// Signed times signed bytes, four of k summed per 32-bit lane. vpmaddubsw wants one unsigned side: the
// weight's sign moves to the activation. |w| <= 128 and |x| <= 127, so that a pair's sum, at most 32512, does
// not saturate.
__m256i dot_four(__m256i weight, __m256i value) noexcept {
    const __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(weight), _mm256_sign_epi8(value, weight));
    return _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
}

template <int R>
void gemm_i8_rows(const I8Rows& x, int64_t row, const std::byte* panel, const GemmOutput& output) noexcept {
    F32x8 sums[R][kVectors];
    for (auto& vectors : sums) {
        for (F32x8& sum : vectors) sum = F32x8::zero();
    }
    for (int64_t b = 0; b < x.num_blocks; ++b) {
        const std::byte* block = panel + b * i8_panel_block_bytes(kGemmNr);
        const auto* scales = reinterpret_cast<const uint16_t*>(block);
        const auto* weights = reinterpret_cast<const __m256i*>(block + 2 * kGemmNr);
        __m256i dots[R][kVectors];
        for (auto& vectors : dots) {
            for (__m256i& dot : vectors) dot = _mm256_setzero_si256();
        }
        for (int i = 0; i < kI8Block / 4; ++i) {
            for (int n = 0; n < kVectors; ++n) {
                const __m256i weight = _mm256_loadu_si256(weights + i * kVectors + n);
                for (int r = 0; r < R; ++r) {
                    const int8_t* four = x.values + ((row + r) * x.num_blocks + b) * kI8Block + 4 * i;
                    int32_t packed;
                    __builtin_memcpy(&packed, four, sizeof packed);
                    dots[r][n] = _mm256_add_epi32(dots[r][n], dot_four(weight, _mm256_set1_epi32(packed)));
                }
            }
        }
        for (int n = 0; n < kVectors; ++n) {
            const F32x8 weight_scale = F32x8::load_half(scales + n * F32x8::kWidth);
            for (int r = 0; r < R; ++r) {
                const F32x8 scale = weight_scale * F32x8::broadcast(x.scales[(row + r) * x.num_blocks + b]);
                sums[r][n] = multiply_add(scale, F32x8{_mm256_cvtepi32_ps(dots[r][n])}, sums[r][n]);
            }
        }
    }
    for (int r = 0; r < R; ++r) store_row(output, row + r, sums[r]);
}

}  // namespace

void gemm_f32(const float* x, int64_t x_stride, int64_t rows, const float* panel, int64_t k,
              const GemmOutput& output) noexcept {
    gemm_f32_vector<F32x8, kVectors, 6>(x, x_stride, rows, panel, k, output);
}

void gemm_i8(const I8Rows& x, const std::byte* panel, const GemmOutput& output) noexcept {
    constexpr int kRows = 2;
    for (int64_t row = 0; row < x.rows; row += kRows) {
        with_row_count<kRows>(x.rows - row < kRows ? x.rows - row : kRows,
                              [&](auto count) { gemm_i8_rows<count.value>(x, row, panel, output); });
    }
}

}  // namespace pocketvlm::avx2
