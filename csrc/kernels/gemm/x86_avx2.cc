#include "kernels/gemm/gemm.h"
#include "kernels/gemm/quantised.inl"
#include "kernels/simd/f32_avx2.h"

namespace pocketvlm::avx2 {
namespace {

// Panels of 16 columns: two vectors of eight columns, four bytes of k each.
constexpr int kVectors = kGemmNr / F32x8::kWidth;
constexpr int kFloatRows = 6;
constexpr int kBlockRows = 2;

__m256i load(const std::byte* bytes) noexcept {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(bytes));
}

// sum += dot of unsigned and signed bytes, four of k per 32-bit lane. A pair's sum must fit 16 bits.
void dot_four(__m256i& sum, __m256i unsigned_bytes, __m256i signed_bytes) noexcept {
    const __m256i pairs = _mm256_maddubs_epi16(unsigned_bytes, signed_bytes);
    sum = _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}

// Signed bytes. vpmaddubsw wants one unsigned side: the weight's sign moves to the activation. |w| <= 128 and
// |x| <= 127, so that a pair's sum is at most 32512.
struct DotI8 {
    using Int = __m256i;
    static constexpr int64_t block_bytes(int nr) noexcept { return i8_panel_block_bytes(nr); }
    static Int start(int32_t) noexcept { return _mm256_setzero_si256(); }
    static F32x8 to_float(Int dots) noexcept { return {_mm256_cvtepi32_ps(dots)}; }

    template <int R, int N>
    static void accumulate(const int8_t* values, int64_t stride, const std::byte* weights,
                           Int (&dots)[R][N]) noexcept {
        for (int i = 0; i < kI8Block / 4; ++i) {
            if constexpr (R == 1) prefetch<N * sizeof(Int)>(weights + i * N * sizeof(Int) + kAheadBytes);
            for (int n = 0; n < N; ++n) {
                const __m256i weight = load(weights + (i * N + n) * sizeof(Int));
                const __m256i magnitude = _mm256_abs_epi8(weight);
                for (int r = 0; r < R; ++r) {
                    const __m256i value = _mm256_set1_epi32(load_four(values + r * stride + 4 * i));
                    dot_four(dots[r][n], magnitude, _mm256_sign_epi8(value, weight));
                }
            }
        }
    }
};

// Halves of bytes, 0 to 15: what the offset adds, 8 times the sum of the activations, is in the start value.
struct DotI4 {
    using Int = __m256i;
    static constexpr int64_t block_bytes(int nr) noexcept { return i4_panel_block_bytes(nr); }
    static Int start(int32_t sum) noexcept { return _mm256_set1_epi32(-kI4Offset * sum); }
    static F32x8 to_float(Int dots) noexcept { return {_mm256_cvtepi32_ps(dots)}; }

    template <int R, int N>
    static void accumulate(const int8_t* values, int64_t stride, const std::byte* weights,
                           Int (&dots)[R][N]) noexcept {
        const __m256i low_half = _mm256_set1_epi8(0x0f);
        for (int i = 0; i < kI8Block / 8; ++i) {
            if constexpr (R == 1) prefetch<N * sizeof(Int)>(weights + i * N * sizeof(Int) + kAheadBytes);
            for (int n = 0; n < N; ++n) {
                const __m256i both = load(weights + (i * N + n) * sizeof(Int));
                const __m256i low = _mm256_and_si256(both, low_half);
                const __m256i high = _mm256_and_si256(_mm256_srli_epi16(both, 4), low_half);
                for (int r = 0; r < R; ++r) {
                    const int8_t* four = values + r * stride + 4 * i;
                    dot_four(dots[r][n], low, _mm256_set1_epi32(load_four(four)));
                    dot_four(dots[r][n], high, _mm256_set1_epi32(load_four(four + kI8Block / 2)));
                }
            }
        }
    }
};

}  // namespace

void gemm_f32(const float* x, int64_t x_stride, int64_t rows, const std::byte* panel, int64_t k,
              const GemmOutput& output) noexcept {
    gemm_float<F32x8, kVectors, kFloatRows, float>(x, x_stride, rows, panel, k, output);
}

void gemm_f16(const float* x, int64_t x_stride, int64_t rows, const std::byte* panel, int64_t k,
              const GemmOutput& output) noexcept {
    gemm_float<F32x8, kVectors, kFloatRows, Float16>(x, x_stride, rows, panel, k, output);
}

void gemm_bf16(const float* x, int64_t x_stride, int64_t rows, const std::byte* panel, int64_t k,
               const GemmOutput& output) noexcept {
    gemm_float<F32x8, kVectors, kFloatRows, BFloat16>(x, x_stride, rows, panel, k, output);
}

void gemm_i8(const I8Rows& x, const std::byte* panel, const GemmOutput& output) noexcept {
    gemm_blocks<F32x8, kVectors, kBlockRows, DotI8>(x, panel, output);
}

void gemm_i4(const I8Rows& x, const std::byte* panel, const GemmOutput& output) noexcept {
    gemm_blocks<F32x8, kVectors, kBlockRows, DotI4>(x, panel, output);
}

}  // namespace pocketvlm::avx2
