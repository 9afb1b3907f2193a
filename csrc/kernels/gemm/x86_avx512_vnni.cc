#include "kernels/gemm/gemm.h"
#include "kernels/gemm/quantised.inl"
#include "kernels/simd/f32_avx512.h"

namespace pocketvlm::avx512_vnni {
namespace {

// Panels of 64 columns: four vectors of sixteen columns, four bytes of k each.
constexpr int kVectors = kGemmNr / F32x16::kWidth;
constexpr int kRows = 3;

// sum += dot of unsigned and signed bytes, four of k per 32-bit lane. Written as assembly because gcc 12
// surrounds the intrinsic with register copies that halve the speed of the loop.
void dot_four(__m512i& sum, __m512i unsigned_bytes, __m512i signed_bytes) noexcept {
    asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(unsigned_bytes), "v"(signed_bytes));
}

// Both types store weights with an offset that makes them unsigned: what it adds to a block's dot product,
// offset times the sum of the activations, is taken off in the accumulator's start value.
template <int kOffset>
struct DotOffset {
    using Int = __m512i;
    static Int start(int32_t sum) noexcept { return _mm512_set1_epi32(-kOffset * sum); }
    static F32x16 to_float(Int dots) noexcept { return {_mm512_cvtepi32_ps(dots)}; }
};

struct DotI8 : DotOffset<kWeightOffset> {
    static constexpr int64_t block_bytes(int nr) noexcept { return i8_panel_block_bytes(nr); }

    template <int R, int N>
    static void accumulate(const int8_t* values, int64_t stride, const std::byte* weights,
                           Int (&dots)[R][N]) noexcept {
        for (int i = 0; i < kI8Block / 4; ++i) {
            if constexpr (R == 1) prefetch<N * sizeof(Int)>(weights + i * N * sizeof(Int) + kAheadBytes);
            __m512i weight[N];
            for (int n = 0; n < N; ++n) weight[n] = _mm512_loadu_si512(weights + (i * N + n) * sizeof(Int));
            for (int r = 0; r < R; ++r) {
                const __m512i value = _mm512_set1_epi32(load_four(values + r * stride + 4 * i));
                for (int n = 0; n < N; ++n) dot_four(dots[r][n], weight[n], value);
            }
        }
    }
};

struct DotI4 : DotOffset<kI4Offset> {
    static constexpr int64_t block_bytes(int nr) noexcept { return i4_panel_block_bytes(nr); }

    template <int R, int N>
    static void accumulate(const int8_t* values, int64_t stride, const std::byte* weights,
                           Int (&dots)[R][N]) noexcept {
        const __m512i low_half = _mm512_set1_epi8(0x0f);
        for (int i = 0; i < kI8Block / 8; ++i) {
            if constexpr (R == 1) prefetch<N * sizeof(Int)>(weights + i * N * sizeof(Int) + kAheadBytes);
            __m512i low[N], high[N];
            for (int n = 0; n < N; ++n) {
                const __m512i both = _mm512_loadu_si512(weights + (i * N + n) * sizeof(Int));
                low[n] = _mm512_and_si512(both, low_half);
                high[n] = _mm512_and_si512(_mm512_srli_epi16(both, 4), low_half);
            }
            for (int r = 0; r < R; ++r) {
                const int8_t* four = values + r * stride + 4 * i;
                const __m512i first = _mm512_set1_epi32(load_four(four));
                const __m512i second = _mm512_set1_epi32(load_four(four + kI8Block / 2));
                for (int n = 0; n < N; ++n) {
                    dot_four(dots[r][n], low[n], first);
                    dot_four(dots[r][n], high[n], second);
                }
            }
        }
    }
};

}  // namespace

void gemm_i8(const I8Rows& x, const std::byte* panel, const GemmOutput& output) noexcept {
    if (x.rows >= kManyRows) return gemm_i8_many(x, panel, output);
    gemm_blocks<F32x16, kVectors, kRows, DotI8>(x, panel, output);
}

void gemm_i4(const I8Rows& x, const std::byte* panel, const GemmOutput& output) noexcept {
    if (x.rows >= kManyRows) return gemm_i4_many(x, panel, output);
    gemm_blocks<F32x16, kVectors, kRows, DotI4>(x, panel, output);
}

}  // namespace pocketvlm::avx512_vnni
