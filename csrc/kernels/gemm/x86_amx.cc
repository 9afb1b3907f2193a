#include <immintrin.h>

#include "kernels/gemm/bf16_output.inl"
#include "kernels/gemm/gemm.h"
#include "kernels/simd/amx_tiles.h"

namespace pocketvlm::amx {
namespace {

constexpr int kNr = avx512::kGemmNr;
constexpr int kRows = 2 * kTileRows;  // rows and columns of a square of four sums
constexpr int kColumns = 2 * kTileColumns;
constexpr int64_t kPanelStride = kNr * 2 * sizeof(BFloat16);

// The sums of up to 32 rows, as tiles are configured for, and 32 columns.
template <bool two_row_tiles>
void multiply_square(const BFloat16* x, int64_t x_stride, const BFloat16* panel, int64_t k,
                     float (&sums)[kRows][kColumns]) noexcept {
    const BFloat16* below = x + kTileRows * x_stride;
    const auto stride = static_cast<size_t>(x_stride) * sizeof(BFloat16);
    _tile_zero(0);
    _tile_zero(1);
    if constexpr (two_row_tiles) {
        _tile_zero(2);
        _tile_zero(3);
    }
    for (int64_t i = 0; i < k; i += kBf16Block) {
        const BFloat16* pairs = panel + i * kNr;
        _tile_loadd(6, pairs, kPanelStride);
        _tile_loadd(7, pairs + 2 * kTileColumns, kPanelStride);
        _tile_loadd(4, x + i, stride);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        if constexpr (two_row_tiles) {
            _tile_loadd(5, below + i, stride);
            _tile_dpbf16ps(2, 5, 6);
            _tile_dpbf16ps(3, 5, 7);
        }
    }
    constexpr size_t kStride = sizeof sums[0];
    _tile_stored(0, &sums[0][0], kStride);
    _tile_stored(1, &sums[0][kTileColumns], kStride);
    if constexpr (two_row_tiles) {
        _tile_stored(2, &sums[kTileRows][0], kStride);
        _tile_stored(3, &sums[kTileRows][kTileColumns], kStride);
    }
}

}  // namespace

void gemm_bf16_bf16(const BFloat16* x, int64_t x_stride, int64_t rows, const BFloat16* panel, int64_t k,
                    const GemmBf16Output& output) noexcept {
    alignas(64) float sums[kRows][kColumns];
    if (rows >= kRows) configure_tiles(kTileRows, kTileRows);
    for (int64_t row = 0; row < rows; row += kRows) {
        const int64_t count = rows - row < kRows ? rows - row : kRows;
        if (count < kRows) {
            const int first = static_cast<int>(count < kTileRows ? count : kTileRows);
            configure_tiles(first, static_cast<int>(count) - first);
        }
        for (int64_t column = 0; column < output.f32.columns; column += kColumns) {
            const BFloat16* left = x + row * x_stride;
            if (count > kTileRows) {
                multiply_square<true>(left, x_stride, panel + 2 * column, k, sums);
            } else {
                multiply_square<false>(left, x_stride, panel + 2 * column, k, sums);
            }
            for (int64_t r = 0; r < count; ++r) store_row_bf16<2>(output, row + r, column, sums[r]);
        }
    }
    _tile_release();
}

}  // namespace pocketvlm::amx
