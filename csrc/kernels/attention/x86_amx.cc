#include <immintrin.h>

#include <cstddef>

#include "kernels/attention/attention.h"
#include "kernels/attention/soften_bf16.inl"
#include "kernels/simd/amx_tiles.h"

namespace pocketvlm::amx {
namespace {

constexpr int kRows = 2 * kTileRows;
constexpr int kDepth = 2 * kTilePairs;  // of one tile product
constexpr size_t kScoreStride = kKeyBlock * sizeof(float);
static_assert(kBf16Pairs == kDepth && kBf16QueryRows == kTileRows && kValueAlignment == kTileColumns);

// Sums of a square of 32 rows, or 16, and 32 columns, or 16: left [rows, depth], right [depth / 2, columns,
// 2], strides in bytes. Starts from what `out` holds if `add`.
template <bool two_row_tiles, bool two_column_tiles, bool add>
void multiply(const void* left, size_t left_stride, const BFloat16* right, size_t right_stride, int64_t depth,
              float* out, size_t out_stride) noexcept {
    const auto* upper = static_cast<const std::byte*>(left);
    const std::byte* lower = upper + kTileRows * left_stride;
    const auto* pairs = reinterpret_cast<const std::byte*>(right);
    float* lower_out = out + kTileRows * (out_stride / sizeof(float));
    if constexpr (add) {
        _tile_loadd(0, out, out_stride);
        if constexpr (two_column_tiles) _tile_loadd(1, out + kTileColumns, out_stride);
        if constexpr (two_row_tiles) _tile_loadd(2, lower_out, out_stride);
        if constexpr (two_row_tiles && two_column_tiles) _tile_loadd(3, lower_out + kTileColumns, out_stride);
    } else {
        _tile_zero(0);
        if constexpr (two_column_tiles) _tile_zero(1);
        if constexpr (two_row_tiles) _tile_zero(2);
        if constexpr (two_row_tiles && two_column_tiles) _tile_zero(3);
    }
    for (int64_t i = 0; i < depth; i += kDepth, pairs += kTilePairs * right_stride) {
        const size_t at = static_cast<size_t>(i) * sizeof(BFloat16);
        _tile_loadd(6, pairs, right_stride);
        if constexpr (two_column_tiles) _tile_loadd(7, pairs + 64, right_stride);
        _tile_loadd(4, upper + at, left_stride);
        _tile_dpbf16ps(0, 4, 6);
        if constexpr (two_column_tiles) _tile_dpbf16ps(1, 4, 7);
        if constexpr (two_row_tiles) {
            _tile_loadd(5, lower + at, left_stride);
            _tile_dpbf16ps(2, 5, 6);
            if constexpr (two_column_tiles) _tile_dpbf16ps(3, 5, 7);
        }
    }
    _tile_stored(0, out, out_stride);
    if constexpr (two_column_tiles) _tile_stored(1, out + kTileColumns, out_stride);
    if constexpr (two_row_tiles) _tile_stored(2, lower_out, out_stride);
    if constexpr (two_row_tiles && two_column_tiles) _tile_stored(3, lower_out + kTileColumns, out_stride);
}

template <bool two_row_tiles>
void attend_rows(const AttentionBlockBf16& block, int64_t row, int64_t rows) noexcept {
    int64_t end = 0;
    for (int64_t r = row; r < row + rows; ++r) end = block.visible[r] > end ? block.visible[r] : end;
    if (end == 0) return;
    end = (end + kDepth - 1) / kDepth * kDepth;

    float* scores = block.scores + row * kKeyBlock;
    const auto q_stride = static_cast<size_t>(block.q_stride) * sizeof(BFloat16);
    for (int64_t key = 0; key < end; key += 2 * kTileColumns) {
        multiply<two_row_tiles, true, false>(block.q + row * block.q_stride, q_stride, block.k + 2 * key,
                                             kKeyBlock * 2 * sizeof(BFloat16), block.key_dim, scores + key,
                                             kScoreStride);
    }
    soften_rows_bf16(block, row, rows, end);
    finish_stores();

    float* acc = block.acc + row * block.value_dim;
    const size_t acc_stride = static_cast<size_t>(block.value_dim) * sizeof(float);
    const size_t v_stride = static_cast<size_t>(block.value_dim) * 2 * sizeof(BFloat16);
    int64_t column = 0;
    for (; column + 2 * kTileColumns <= block.value_dim; column += 2 * kTileColumns) {
        multiply<two_row_tiles, true, true>(scores, kScoreStride, block.v + 2 * column, v_stride, end,
                                            acc + column, acc_stride);
    }
    if (column < block.value_dim) {
        multiply<two_row_tiles, false, true>(scores, kScoreStride, block.v + 2 * column, v_stride, end,
                                             acc + column, acc_stride);
    }
}

}  // namespace

// Tiles always have 16 rows: the buffers have room for them, and what is in the last ones is not used.
void attend_block_bf16(const AttentionBlockBf16& block) noexcept {
    configure_tiles(kTileRows, kTileRows);
    for (int64_t row = 0; row < block.rows; row += kRows) {
        const int64_t rows = block.rows - row < kRows ? block.rows - row : kRows;
        if (rows > kTileRows) {
            attend_rows<true>(block, row, rows);
        } else {
            attend_rows<false>(block, row, rows);
        }
    }
    _tile_release();
}

}  // namespace pocketvlm::amx
