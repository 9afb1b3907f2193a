#include "kernels/gemm/gemm.h"
#include "kernels/gemm/vector.inl"
#include "kernels/simd/f32_avx512.h"

namespace pocketvlm::avx512_vnni {
namespace {

// Panels of 64 columns: four vectors of sixteen columns, four bytes of k each.
constexpr int kVectors = kGemmNr / F32x16::kWidth;

// sum += dot of unsigned and signed bytes, four of k per 32-bit lane. Written as assembly because gcc 12
// surrounds the intrinsic with register copies that halve the speed of the loop.
void dot_four(__m512i& sum, __m512i unsigned_bytes, __m512i signed_bytes) noexcept {
    asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(unsigned_bytes), "v"(signed_bytes));
}

// Weights are stored as w + 128: what that adds to a block's dot product, 128 times the sum of the
// activations, is taken off in the accumulator's start value.
template <int R>
void gemm_i8_rows(const I8Rows& x, int64_t row, const std::byte* panel, const GemmOutput& output) noexcept {
    F32x16 sums[R][kVectors];
    for (auto& vectors : sums) {
        for (F32x16& sum : vectors) sum = F32x16::zero();
    }
    for (int64_t b = 0; b < x.num_blocks; ++b) {
        const std::byte* block = panel + b * i8_panel_block_bytes(kGemmNr);
        const auto* scales = reinterpret_cast<const uint16_t*>(block);
        const auto* weights = reinterpret_cast<const __m512i*>(block + 2 * kGemmNr);
        __m512i dots[R][kVectors];
        for (int r = 0; r < R; ++r) {
            const __m512i start = _mm512_set1_epi32(-kWeightOffset * x.sums[(row + r) * x.num_blocks + b]);
            for (__m512i& dot : dots[r]) dot = start;
        }
        for (int i = 0; i < kI8Block / 4; ++i) {
            __m512i weight[kVectors];
            for (int n = 0; n < kVectors; ++n) weight[n] = _mm512_loadu_si512(weights + i * kVectors + n);
            for (int r = 0; r < R; ++r) {
                const int8_t* four = x.values + ((row + r) * x.num_blocks + b) * kI8Block + 4 * i;
                int32_t packed;
                __builtin_memcpy(&packed, four, sizeof packed);
                const __m512i value = _mm512_set1_epi32(packed);
                for (int n = 0; n < kVectors; ++n) dot_four(dots[r][n], weight[n], value);
            }
        }
        for (int n = 0; n < kVectors; ++n) {
            const F32x16 weight_scale = F32x16::load_half(scales + n * F32x16::kWidth);
            for (int r = 0; r < R; ++r) {
                const F32x16 scale = weight_scale * F32x16::broadcast(x.scales[(row + r) * x.num_blocks + b]);
                sums[r][n] = multiply_add(scale, F32x16{_mm512_cvtepi32_ps(dots[r][n])}, sums[r][n]);
            }
        }
    }
    for (int r = 0; r < R; ++r) store_row(output, row + r, sums[r]);
}

}  // namespace

void gemm_i8(const I8Rows& x, const std::byte* panel, const GemmOutput& output) noexcept {
    constexpr int kRows = 3;
    for (int64_t row = 0; row < x.rows; row += kRows) {
        with_row_count<kRows>(x.rows - row < kRows ? x.rows - row : kRows,
                              [&](auto count) { gemm_i8_rows<count.value>(x, row, panel, output); });
    }
}

}  // namespace pocketvlm::avx512_vnni
