// One task of an attention: some query rows of one head, folded over blocks of keys and values.
#pragma once

#include <cstdint>
#include <vector>

#include "base/aligned_buffer.h"
#include "kernels/kernel_table.h"

namespace pocketvlm {

// Keys and values of kKeyBlock positions of one head, as the kernel reads them
// (kernels/attention/attention.h).
template <typename T>
struct KeyValueBlock {
    const T* k;  // [head_dim, kKeyBlock]
    const T* v;  // [kKeyBlock, padded_head_dim(head_dim)]
};

class AttentionTask {
  public:
    AttentionTask(int64_t rows, int64_t head_dim);

    // Query r, [head_dim], to be filled in before the first fold, scaled by 1 / sqrt(head_dim).
    float* q(int64_t r) noexcept { return q_.data() + r * head_dim_; }

    // Row r sees the first visible_keys(r) keys of all, of which this block holds those from first_key on.
    template <typename T, typename F>
    void fold(const KernelTable& kernels, const KeyValueBlock<T>& block, int64_t first_key,
              const F& visible_keys) {
        for (int64_t r = 0; r < rows_; ++r) {
            const int64_t seen = visible_keys(r) - first_key;
            visible_[static_cast<size_t>(r)] = static_cast<int32_t>(seen < 0           ? 0
                                                                    : seen < kKeyBlock ? seen
                                                                                       : kKeyBlock);
        }
        fold_visible(kernels, block);
    }

    // Writes the result of row r, [head_dim].
    void write(int64_t r, float* out) const noexcept;

  private:
    void fold_visible(const KernelTable& kernels, const KeyValueBlock<float>& block);
    void fold_visible(const KernelTable& kernels, const KeyValueBlock<Float16>& block);
    template <typename T>
    AttentionBlock<T> with_state(const KeyValueBlock<T>& block);

    int64_t rows_;
    int64_t head_dim_;
    AlignedBuffer<float> q_;        // [rows, head_dim]
    AlignedBuffer<float> scores_;   // [rows, kKeyBlock]
    AlignedBuffer<float> acc_;      // [rows, padded_head_dim]
    std::vector<float> max_;        // [rows]
    std::vector<float> sum_;        // [rows]
    std::vector<int32_t> visible_;  // [rows]
};

}  // namespace pocketvlm
