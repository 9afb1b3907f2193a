#include "kernels/gemm/gemm.h"
#include "kernels/gemm/quantised.inl"
#include "kernels/simd/f32_avx512.h"

namespace pocketvlm::avx512 {
namespace {

constexpr int kVectors = kGemmNr / F32x16::kWidth;
constexpr int kRows = 6;
constexpr int kBlockRows = 3;

// Signed bytes. AVX-512 has no vpsignb, with which a product of two signed bytes would become one of an
// unsigned and a signed one: they are widened, the even and the odd ones apart, and no sum can overflow.
struct DotI8 {
    using Int = __m512i;
    static constexpr int64_t block_bytes(int nr) noexcept { return i8_panel_block_bytes(nr); }
    static Int start(int32_t) noexcept { return _mm512_setzero_si512(); }
    static F32x16 to_float(Int dots) noexcept { return {_mm512_cvtepi32_ps(dots)}; }

    template <int R, int N>
    static void accumulate(const int8_t* values, int64_t stride, const std::byte* weights,
                           Int (&dots)[R][N]) noexcept {
        const auto even = [](Int bytes) { return _mm512_srai_epi16(_mm512_slli_epi16(bytes, 8), 8); };
        const auto odd = [](Int bytes) { return _mm512_srai_epi16(bytes, 8); };
        for (int i = 0; i < kI8Block / 4; ++i) {
            if constexpr (R == 1) prefetch<N * sizeof(Int)>(weights + i * N * sizeof(Int) + kAheadBytes);
            Int value[R];
            for (int r = 0; r < R; ++r) value[r] = _mm512_set1_epi32(load_four(values + r * stride + 4 * i));
            for (int n = 0; n < N; ++n) {
                const Int weight = _mm512_loadu_si512(weights + (i * N + n) * sizeof(Int));
                for (int r = 0; r < R; ++r) {
                    const Int products = _mm512_add_epi32(_mm512_madd_epi16(even(weight), even(value[r])),
                                                          _mm512_madd_epi16(odd(weight), odd(value[r])));
                    dots[r][n] = _mm512_add_epi32(dots[r][n], products);
                }
            }
        }
    }
};

// Halves of bytes, 0 to 15: what the offset adds, 8 times the sum of the activations, is in the start value.
struct DotI4 {
    using Int = __m512i;
    static constexpr int64_t block_bytes(int nr) noexcept { return i4_panel_block_bytes(nr); }
    static Int start(int32_t sum) noexcept { return _mm512_set1_epi32(-kI4Offset * sum); }
    static F32x16 to_float(Int dots) noexcept { return {_mm512_cvtepi32_ps(dots)}; }

    template <int R, int N>
    static void accumulate(const int8_t* values, int64_t stride, const std::byte* weights,
                           Int (&dots)[R][N]) noexcept {
        const Int low_half = _mm512_set1_epi8(0x0f), ones = _mm512_set1_epi16(1);
        const auto dot_four = [&](Int& sum, Int unsigned_bytes, Int signed_bytes) {
            const Int pairs = _mm512_maddubs_epi16(unsigned_bytes, signed_bytes);
            sum = _mm512_add_epi32(sum, _mm512_madd_epi16(pairs, ones));
        };
        for (int i = 0; i < kI8Block / 8; ++i) {
            if constexpr (R == 1) prefetch<N * sizeof(Int)>(weights + i * N * sizeof(Int) + kAheadBytes);
            for (int n = 0; n < N; ++n) {
                const Int both = _mm512_loadu_si512(weights + (i * N + n) * sizeof(Int));
                const Int low = _mm512_and_si512(both, low_half);
                const Int high = _mm512_and_si512(_mm512_srli_epi16(both, 4), low_half);
                for (int r = 0; r < R; ++r) {
                    const int8_t* four = values + r * stride + 4 * i;
                    dot_four(dots[r][n], low, _mm512_set1_epi32(load_four(four)));
                    dot_four(dots[r][n], high, _mm512_set1_epi32(load_four(four + kI8Block / 2)));
                }
            }
        }
    }
};

}  // namespace

void gemm_f32(const float* x, int64_t x_stride, int64_t rows, const std::byte* panel, int64_t k,
              const GemmOutput& output) noexcept {
    gemm_float<F32x16, kVectors, kRows, float>(x, x_stride, rows, panel, k, output);
}

void gemm_f16(const float* x, int64_t x_stride, int64_t rows, const std::byte* panel, int64_t k,
              const GemmOutput& output) noexcept {
    gemm_float<F32x16, kVectors, kRows, Float16>(x, x_stride, rows, panel, k, output);
}

void gemm_bf16(const float* x, int64_t x_stride, int64_t rows, const std::byte* panel, int64_t k,
               const GemmOutput& output) noexcept {
    gemm_float<F32x16, kVectors, kRows, BFloat16>(x, x_stride, rows, panel, k, output);
}

void gemm_i8(const I8Rows& x, const std::byte* panel, const GemmOutput& output) noexcept {
    gemm_blocks<F32x16, kVectors, kBlockRows, DotI8>(x, panel, output);
}

void gemm_i4(const I8Rows& x, const std::byte* panel, const GemmOutput& output) noexcept {
    gemm_blocks<F32x16, kVectors, kBlockRows, DotI4>(x, panel, output);
}

}  // namespace pocketvlm::avx512
