#include "model/attention.h"

#include <cmath>

namespace pocketvlm {

void AttendedRow::add(const AttendedRow& block, int64_t value_dim) noexcept {
    if (block.sum == 0) return;
    // One of the two has the larger maximum, and keeps its size.
    const float smaller = std::exp(-std::abs(max - block.max));
    const float before = max < block.max ? smaller : 1.0f, added = max < block.max ? 1.0f : smaller;
    for (int64_t d = 0; d < value_dim; ++d) acc[d] = acc[d] * before + block.acc[d] * added;
    sum = sum * before + block.sum * added;
    max = std::max(max, block.max);
}

void AttendedRow::write(int64_t head_dim, float* out) const noexcept {
    const float inverse = 1.0f / sum;
    for (int64_t d = 0; d < head_dim; ++d) out[d] = acc[d] * inverse;
}

AttentionTask::AttentionTask(int64_t rows, int64_t head_dim)
    : rows_(rows),
      head_dim_(head_dim),
      q_(static_cast<size_t>(rows * head_dim)),
      scores_(static_cast<size_t>(rows * kKeyBlock)),
      acc_(static_cast<size_t>(rows * padded_head_dim(head_dim))),
      max_(static_cast<size_t>(rows)),
      sum_(static_cast<size_t>(rows)),
      visible_(static_cast<size_t>(rows)),
      all_acc_(acc_.size()),
      all_(static_cast<size_t>(rows)) {
    std::fill_n(all_acc_.data(), all_acc_.size(), 0.0f);
    for (int64_t r = 0; r < rows; ++r)
        all_[static_cast<size_t>(r)].acc = all_acc_.data() + r * padded_head_dim(head_dim);
}

template <typename T>
AttentionBlock<T> AttentionTask::alone(const KeyValueBlock<T>& block) {
    std::fill(max_.begin(), max_.end(), -std::numeric_limits<float>::infinity());
    std::fill(sum_.begin(), sum_.end(), 0.0f);
    std::fill_n(acc_.data(), acc_.size(), 0.0f);
    return {q_.data(),       head_dim_,   block.k,     block.v,
            visible_.data(), rows_,       head_dim_,   padded_head_dim(head_dim_),
            scores_.data(),  max_.data(), sum_.data(), acc_.data()};
}

void AttentionTask::add_block() noexcept {
    const int64_t value_dim = padded_head_dim(head_dim_);
    for (int64_t r = 0; r < rows_; ++r) {
        const auto i = static_cast<size_t>(r);
        all_[i].add({max_[i], sum_[i], acc_.data() + r * value_dim}, value_dim);
    }
}

void AttentionTask::fold_visible(const KernelTable& kernels, const KeyValueBlock<float>& block) {
    kernels.attend_block_f32(alone(block));
    add_block();
}

void AttentionTask::fold_visible(const KernelTable& kernels, const KeyValueBlock<Float16>& block) {
    kernels.attend_block_f16(alone(block));
    add_block();
}

void AttentionTask::write(int64_t r, float* out) const noexcept {
    all_[static_cast<size_t>(r)].write(head_dim_, out);
}

}  // namespace pocketvlm
