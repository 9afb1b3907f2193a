// One task of an attention: some query rows of one head, folded over blocks of keys and values.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
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

// How many keys of a block someone sees who sees the first `seen` of all; the block begins with first_key.
inline int32_t visible_in_block(int64_t seen, int64_t first_key) noexcept {
    return static_cast<int32_t>(std::clamp<int64_t>(seen - first_key, 0, kKeyBlock));
}

// What one query row adds up to over some keys (kernels/attention/attention.h). The result is acc / sum.
struct AttendedRow {
    float max = -std::numeric_limits<float>::infinity();
    float sum = 0;
    float* acc = nullptr;  // [value_dim]

    // Adds what the row adds up to over further keys. Blocks are added one by one in their order, so that the
    // result does not depend on who attends to which of them.
    void add(const AttendedRow& block, int64_t value_dim) noexcept;
    void write(int64_t head_dim, float* out) const noexcept;
};

class AttentionTask {
  public:
    // `rows` queries of one head.
    AttentionTask(int64_t rows, int64_t head_dim);

    // Query r, [head_dim], to be filled in before the first fold, scaled by 1 / sqrt(head_dim).
    float* q(int64_t r) noexcept { return q_.data() + r * head_dim_; }

    // Row r sees the first visible_keys(r) keys of all, of which this block holds those from first_key on.
    template <typename T, typename F>
    void fold(const KernelTable& kernels, const KeyValueBlock<T>& block, int64_t first_key,
              const F& visible_keys) {
        for (int64_t r = 0; r < rows_; ++r) {
            visible_[static_cast<size_t>(r)] = visible_in_block(visible_keys(r), first_key);
        }
        fold_visible(kernels, block);
    }

    // Writes the result of row r, [head_dim].
    void write(int64_t r, float* out) const noexcept;

  private:
    void fold_visible(const KernelTable& kernels, const KeyValueBlock<float>& block);
    void fold_visible(const KernelTable& kernels, const KeyValueBlock<Float16>& block);
    template <typename T>
    AttentionBlock<T> alone(const KeyValueBlock<T>& block);
    void add_block() noexcept;

    int64_t rows_;
    int64_t head_dim_;
    AlignedBuffer<float> q_;        // [rows, head_dim]
    AlignedBuffer<float> scores_;   // [rows, kKeyBlock]
    AlignedBuffer<float> acc_;      // [rows, padded_head_dim], of one block
    std::vector<float> max_;        // [rows], likewise
    std::vector<float> sum_;        // [rows], likewise
    std::vector<int32_t> visible_;  // [rows]
    AlignedBuffer<float> all_acc_;  // [rows, padded_head_dim]
    std::vector<AttendedRow> all_;  // [rows]
};

}  // namespace pocketvlm
