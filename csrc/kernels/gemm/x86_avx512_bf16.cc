#include "kernels/gemm/bf16_output.inl"
#include "kernels/gemm/gemm.h"
#include "kernels/simd/tile_bf16.h"

namespace pocketvlm::avx512_bf16 {
namespace {

constexpr int kNr = avx512::kGemmNr;
constexpr int kVectors = kNr / F32x16::kWidth;
constexpr int kRows = 6;

}  // namespace

void gemm_bf16_bf16(const BFloat16* x, int64_t x_stride, int64_t rows, const BFloat16* panel, int64_t k,
                    const GemmBf16Output& output) noexcept {
    for_row_tiles<kRows>(rows, [&](int64_t row, auto count) {
        float sums[count.value][kNr];
        multiply_pairs<count.value, kVectors, false>(x + row * x_stride, x_stride, panel, kNr, k, sums[0],
                                                     kNr);
        for (int r = 0; r < count.value; ++r) store_row_bf16<kVectors>(output, row + r, 0, sums[r]);
    });
}

}  // namespace pocketvlm::avx512_bf16
