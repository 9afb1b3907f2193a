#include "model/attention.h"

#include <algorithm>
#include <limits>

namespace pocketvlm {

AttentionTask::AttentionTask(int64_t rows, int64_t head_dim)
    : rows_(rows),
      head_dim_(head_dim),
      q_(static_cast<size_t>(rows * head_dim)),
      scores_(static_cast<size_t>(rows * kKeyBlock)),
      acc_(static_cast<size_t>(rows * padded_head_dim(head_dim))),
      max_(static_cast<size_t>(rows), -std::numeric_limits<float>::infinity()),
      sum_(static_cast<size_t>(rows), 0.0f),
      visible_(static_cast<size_t>(rows)) {
    std::fill_n(acc_.data(), acc_.size(), 0.0f);
}

template <typename T>
AttentionBlock<T> AttentionTask::with_state(const KeyValueBlock<T>& block) {
    return {q_.data(),       head_dim_,   block.k,     block.v,
            visible_.data(), rows_,       head_dim_,   padded_head_dim(head_dim_),
            scores_.data(),  max_.data(), sum_.data(), acc_.data()};
}

void AttentionTask::fold_visible(const KernelTable& kernels, const KeyValueBlock<float>& block) {
    kernels.attend_block_f32(with_state(block));
}

void AttentionTask::fold_visible(const KernelTable& kernels, const KeyValueBlock<Float16>& block) {
    kernels.attend_block_f16(with_state(block));
}

void AttentionTask::write(int64_t r, float* out) const noexcept {
    const float* acc = acc_.data() + r * padded_head_dim(head_dim_);
    const float inverse = 1.0f / sum_[static_cast<size_t>(r)];
    for (int64_t d = 0; d < head_dim_; ++d) out[d] = acc[d] * inverse;
}

}  // namespace pocketvlm
