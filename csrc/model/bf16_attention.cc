#include "model/bf16_attention.h"

#include <algorithm>
#include <cstring>
#include <limits>

namespace pocketvlm {
namespace {

// out[2 i] = even[i], out[2 i + 1] = odd[i]. As one number per pair, which compilers make vectors of.
void interleave(const BFloat16* __restrict even, const BFloat16* __restrict odd, int64_t n,
                BFloat16* __restrict out) noexcept {
    for (int64_t i = 0; i < n; ++i) {
        const uint32_t pair = even[i].bits | uint32_t{odd[i].bits} << 16;
        std::memcpy(out + 2 * i, &pair, sizeof pair);
    }
}

template <typename T>
constexpr RowToBf16<T>* row_to_bf16(const Bf16Kernels& kernels) {
    if constexpr (sizeof(T) == sizeof(float)) {
        return kernels.row_f32_to_bf16;
    } else {
        return kernels.row_f16_to_bf16;
    }
}

// Rows of `count` numbers -> pairs of rows: [num_rows / 2, width, 2], zero behind `count` and `num_rows`.
template <typename T>
void pair_rows(RowToBf16<T>* to_bf16, const T* rows, int64_t stride, int64_t num_rows, int64_t count,
               int64_t width, int64_t padded_rows, BFloat16* out) {
    const int64_t room = bf16_padded(std::max(count, width));
    AlignedBuffer<BFloat16> pair(static_cast<size_t>(2 * room));
    for (int64_t r = 0; r < padded_rows; r += 2, out += 2 * width) {
        for (int64_t half = 0; half < 2; ++half) {
            BFloat16* row = pair.data() + half * room;
            std::fill_n(row, room, BFloat16{0});
            if (r + half < num_rows) to_bf16(rows + (r + half) * stride, count, row);
        }
        interleave(pair.data(), pair.data() + room, width, out);
    }
}

}  // namespace

void lay_out_bf16(const BFloat16* keys, const BFloat16* values, int64_t stride, int64_t count,
                  int64_t head_dim, BFloat16* block) {
    const Bf16BlockShape shape(head_dim);
    const bool is_filled = count == kKeyBlock && shape.key_dim == head_dim && shape.value_dim == head_dim;
    if (!is_filled) std::fill_n(block, shape.size(), BFloat16{0});
    // A line of the block at a time, which kLine keys make.
    constexpr int64_t kLine = 16;
    for (int64_t first = 0; first < count; first += kLine) {
        const int64_t end = std::min(first + kLine, count);
        for (int64_t i = 0; i + 1 < head_dim; i += 2) {
            BFloat16* out = block + i * kKeyBlock;
            for (int64_t j = first; j < end; ++j) std::copy_n(keys + j * stride + i, 2, out + 2 * j);
        }
        if (head_dim % 2 == 0) continue;
        BFloat16* out = block + (head_dim - 1) * kKeyBlock;
        for (int64_t j = first; j < end; ++j) out[2 * j] = keys[j * stride + head_dim - 1];
    }
    BFloat16* pairs = block + shape.key_dim * kKeyBlock;
    for (int64_t j = 0; j < count; j += 2, pairs += 2 * shape.value_dim) {
        const BFloat16* even = values + j * stride;
        if (j + 1 < count) {
            interleave(even, even + stride, head_dim, pairs);
        } else {
            for (int64_t i = 0; i < head_dim; ++i) pairs[2 * i] = even[i];
        }
    }
}

template <typename T>
void lay_out_bf16(const Bf16Kernels& kernels, const T* keys, const T* values, int64_t head_dim,
                  BFloat16* block) {
    const Bf16BlockShape shape(head_dim);
    const int64_t block_size = kKeyBlock;
    pair_rows(row_to_bf16<T>(kernels), keys, block_size, head_dim, block_size, block_size, shape.key_dim,
              block);
    pair_rows(row_to_bf16<T>(kernels), values, shape.value_dim, block_size, shape.value_dim, shape.value_dim,
              block_size, block + shape.key_dim * kKeyBlock);
}

template void lay_out_bf16(const Bf16Kernels&, const Float16*, const Float16*, int64_t, BFloat16*);
template void lay_out_bf16(const Bf16Kernels&, const float*, const float*, int64_t, BFloat16*);

Bf16AttentionTask::Bf16AttentionTask(const Bf16Kernels& kernels, int64_t rows, int64_t head_dim,
                                     const Bf16Queries& queries)
    : kernels_(kernels),
      rows_(rows),
      head_dim_(head_dim),
      shape_(head_dim),
      queries_(queries),
      row_(static_cast<size_t>(bf16_padded(shape_.value_dim))),
      max_(static_cast<size_t>(rows), -std::numeric_limits<float>::infinity()),
      sum_(static_cast<size_t>(rows), 0.0f),
      visible_(static_cast<size_t>(rows)) {
    const int64_t padded = (rows + kBf16QueryRows - 1) / kBf16QueryRows * kBf16QueryRows;
    scores_ = AlignedBuffer<float>(static_cast<size_t>(padded * kKeyBlock));
    acc_ = AlignedBuffer<float>(static_cast<size_t>(padded * shape_.value_dim));
    std::fill_n(acc_.data(), acc_.size(), 0.0f);
}

void Bf16AttentionTask::fold_visible(const BFloat16* block) {
    kernels_.attend_block_bf16({queries_.rows, queries_.stride, queries_.scale, block,
                                block + shape_.key_dim * kKeyBlock, visible_.data(), rows_, shape_.key_dim,
                                shape_.value_dim, scores_.data(), max_.data(), sum_.data(), acc_.data()});
}

void Bf16AttentionTask::write(int64_t r, float* out) noexcept {
    const float* acc = acc_.data() + r * shape_.value_dim;
    const float inverse = 1.0f / sum_[static_cast<size_t>(r)];
    for (int64_t d = 0; d < head_dim_; ++d) out[d] = acc[d] * inverse;
}

void Bf16AttentionTask::write(int64_t r, BFloat16* out) noexcept {
    float* acc = acc_.data() + r * shape_.value_dim;
    write(r, acc);
    kernels_.row_f32_to_bf16(acc, shape_.value_dim, row_.data());
    std::copy_n(row_.data(), head_dim_, out);
}

}  // namespace pocketvlm
