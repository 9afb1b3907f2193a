#include <immintrin.h>

#include "kernels/attention/attention.h"
#include "kernels/attention/soften_bf16.inl"
#include "kernels/simd/tile.inl"
#include "kernels/simd/tile_bf16.h"

namespace pocketvlm::avx512_bf16 {
namespace {

constexpr int kWidth = 16;
constexpr int kVectors = 4;
constexpr int kColumns = kVectors * kWidth;
constexpr int kRows = 6;
// soften_rows_bf16 leaves the weights in bfloat16 in the first half of a row's scores.
constexpr int64_t kWeightStride = kKeyBlock * sizeof(float) / sizeof(BFloat16);
static_assert(kKeyBlock % kColumns == 0 && kValueAlignment == kWidth);

template <int R>
void attend_rows(const AttentionBlockBf16& block, int64_t row) noexcept {
    int64_t end = 0;
    for (int r = 0; r < R; ++r) end = block.visible[row + r] > end ? block.visible[row + r] : end;
    if (end == 0) return;
    end = (end + kBf16Pairs - 1) / kBf16Pairs * kBf16Pairs;

    float* scores = block.scores + row * kKeyBlock;
    for (int64_t key = 0; key < end; key += kColumns) {
        multiply_pairs<R, kVectors, false>(block.q + row * block.q_stride, block.q_stride, block.k + 2 * key,
                                           kKeyBlock, block.key_dim, scores + key, kKeyBlock);
    }
    soften_rows_bf16(block, row, R, end);

    const auto* weights = reinterpret_cast<const BFloat16*>(scores);
    float* acc = block.acc + row * block.value_dim;
    int64_t column = 0;
    for (; column + kColumns <= block.value_dim; column += kColumns) {
        multiply_pairs<R, kVectors, true>(weights, kWeightStride, block.v + 2 * column, block.value_dim, end,
                                          acc + column, block.value_dim);
    }
    for (; column < block.value_dim; column += kWidth) {
        multiply_pairs<R, 1, true>(weights, kWeightStride, block.v + 2 * column, block.value_dim, end,
                                   acc + column, block.value_dim);
    }
}

}  // namespace

void attend_block_bf16(const AttentionBlockBf16& block) noexcept {
    for_row_tiles<kRows>(block.rows, [&](int64_t row, auto count) { attend_rows<count.value>(block, row); });
}

}  // namespace pocketvlm::avx512_bf16
