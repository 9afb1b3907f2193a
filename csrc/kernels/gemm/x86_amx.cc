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

// The sums of up to 32 rows and 32 columns on their way to the output.
class Square {
  public:
    void begin(int64_t row, int64_t rows, int64_t column) noexcept {
        row_ = row;
        rows_ = rows;
        column_ = column;
        stored_ = 0;
    }
    float (&sums()) [kRows][kColumns] { return sums_; }

    // Stores `count` rows more, or those that are left.
    void store(const GemmBf16Output& output, int64_t count) noexcept {
        const int64_t end = stored_ + count < rows_ ? stored_ + count : rows_;
        for (; stored_ < end; ++stored_) store_row_bf16<2>(output, row_ + stored_, column_, sums_[stored_]);
    }

  private:
    alignas(64) float sums_[kRows][kColumns];
    int64_t row_ = 0, rows_ = 0, column_ = 0, stored_ = 0;
};

// A processor that has stored nothing for some 2,000 cycles takes 900 for the next store (measured on
// Sapphire Rapids): it stores something in every step.
inline void keep_storing(int64_t value) noexcept {
    int64_t stored;
    asm volatile("movq %1, %0" : "=m"(stored) : "r"(value));
}

// Fills the sums of up to 32 rows, as tiles are configured for, and 32 columns; meanwhile stores those of the
// square before: the vector units are free while tiles are multiplied.
template <bool two_row_tiles>
void multiply_square(const BFloat16* x, int64_t x_stride, const BFloat16* panel, int64_t k,
                     float (&sums)[kRows][kColumns], Square& before, const GemmBf16Output& output) noexcept {
    const BFloat16* below = x + kTileRows * x_stride;
    const auto stride = static_cast<size_t>(x_stride) * sizeof(BFloat16);
    _tile_zero(0);
    _tile_zero(1);
    if constexpr (two_row_tiles) {
        _tile_zero(2);
        _tile_zero(3);
    }
    // The panel is too large for the first cache: hinted as a stream, it does not drive the rows out.
    for (int64_t i = 0; i < k; i += kBf16Block) {
        const BFloat16* pairs = panel + i * kNr;
        _tile_stream_loadd(6, pairs, kPanelStride);
        _tile_stream_loadd(7, pairs + 2 * kTileColumns, kPanelStride);
        _tile_loadd(4, x + i, stride);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        if constexpr (two_row_tiles) {
            _tile_loadd(5, below + i, stride);
            _tile_dpbf16ps(2, 5, 6);
            _tile_dpbf16ps(3, 5, 7);
        }
        before.store(output, 1);
        keep_storing(i);
    }
    constexpr size_t kStride = sizeof sums[0];
    _tile_stored(0, &sums[0][0], kStride);
    _tile_stored(1, &sums[0][kTileColumns], kStride);
    if constexpr (two_row_tiles) {
        _tile_stored(2, &sums[kTileRows][0], kStride);
        _tile_stored(3, &sums[kTileRows][kTileColumns], kStride);
    }
    before.store(output, kRows);
}

}  // namespace

void gemm_bf16_bf16(const BFloat16* x, int64_t x_stride, int64_t rows, const BFloat16* panel, int64_t k,
                    const GemmBf16Output& output) noexcept {
    Square squares[2];
    int now = 0;
    if (rows >= kRows) configure_tiles(kTileRows, kTileRows);
    for (int64_t row = 0; row < rows; row += kRows) {
        const int64_t count = rows - row < kRows ? rows - row : kRows;
        if (count < kRows) {
            const int first = static_cast<int>(count < kTileRows ? count : kTileRows);
            configure_tiles(first, static_cast<int>(count) - first);
        }
        const BFloat16* left = x + row * x_stride;
        for (int64_t column = 0; column < output.f32.columns; column += kColumns, now = 1 - now) {
            Square& square = squares[now];
            Square& before = squares[1 - now];
            if (count > kTileRows) {
                multiply_square<true>(left, x_stride, panel + 2 * column, k, square.sums(), before, output);
            } else {
                multiply_square<false>(left, x_stride, panel + 2 * column, k, square.sums(), before, output);
            }
            square.begin(row, count, column);
        }
    }
    squares[1 - now].store(output, kRows);
    _tile_release();
}

}  // namespace pocketvlm::amx
