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

// Up to 32 rows on their way through the two products and the softmax between them.
struct Rows {
    Rows() = default;
    Rows(const AttentionBlockBf16& block, int64_t first_row)
        : first(first_row), count(block.rows - first < kRows ? block.rows - first : kRows) {
        for (int64_t r = first; r < first + count; ++r) end = block.visible[r] > end ? block.visible[r] : end;
        end = (end + kDepth - 1) / kDepth * kDepth;
    }

    int64_t first = 0, count = 0;
    int64_t end = 0;  // of the keys that one of them sees, in whole tiles
};

// Scores of keys key .. key + 31.
void score(const AttentionBlockBf16& block, const Rows& rows, int64_t key) noexcept {
    if (key >= rows.end) return;
    const auto multiply_rows =
        rows.count > kTileRows ? multiply<true, true, false> : multiply<false, true, false>;
    multiply_rows(block.q + rows.first * block.q_stride,
                  static_cast<size_t>(block.q_stride) * sizeof(BFloat16), block.k + 2 * key,
                  kKeyBlock * 2 * sizeof(BFloat16), block.key_dim,
                  block.scores + rows.first * kKeyBlock + key, kScoreStride);
}

// Adds what the weights make of columns column .. column + 31 of the values.
void add_values(const AttentionBlockBf16& block, const Rows& rows, int64_t column) noexcept {
    if (rows.end == 0 || column >= block.value_dim) return;
    const bool two_rows = rows.count > kTileRows, two_columns = column + kTileColumns < block.value_dim;
    const auto multiply_rows =
        two_rows ? (two_columns ? multiply<true, true, true> : multiply<true, false, true>)
                 : (two_columns ? multiply<false, true, true> : multiply<false, false, true>);
    multiply_rows(block.scores + rows.first * kKeyBlock, kScoreStride, block.v + 2 * column,
                  static_cast<size_t>(block.value_dim) * 2 * sizeof(BFloat16), rows.end,
                  block.acc + rows.first * block.value_dim + column,
                  static_cast<size_t>(block.value_dim) * sizeof(float));
}

}  // namespace

// Tiles always have 16 rows: the buffers have room for them, and what is in the last ones is not used.
//
// The softmax keeps the vector units busy for longer than the products the tiles, so the scores of the next
// rows and the values of those before come between parts of it, and the processor does both at a time.
void attend_block_bf16(const AttentionBlockBf16& block) noexcept {
    constexpr int kParts = 4;
    static_assert(kParts * 2 * kTileColumns == kKeyBlock);
    configure_tiles(kTileRows, kTileRows);
    Rows scored, softened;  // of the two steps before
    for (int64_t row = 0; row < block.rows + 2 * kRows; row += kRows) {
        const Rows next = row < block.rows ? Rows(block, row) : Rows();
        for (int part = 0; part < kParts; ++part) {
            score(block, next, part * 2 * kTileColumns);
            const int64_t first = scored.count * part / kParts, last = scored.count * (part + 1) / kParts;
            if (scored.end > 0) soften_rows_bf16(block, scored.first + first, last - first, scored.end);
            finish_stores();
            add_values(block, softened, part * 2 * kTileColumns);
        }
        for (int64_t column = kParts * 2 * kTileColumns; column < block.value_dim; column += 2 * kTileColumns)
            add_values(block, softened, column);
        softened = scored;
        scored = next;
    }
    _tile_release();
}

}  // namespace pocketvlm::amx
