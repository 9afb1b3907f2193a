// Attention in bfloat16: keys and values laid out in blocks, and one task, some query rows of one head.
#pragma once

#include <cstdint>
#include <vector>

#include "base/aligned_buffer.h"
#include "kernels/kernel_table.h"

namespace pocketvlm {

// Blocks of keys and values as AttendBlockBf16 reads them (kernels/attention/attention.h).
struct Bf16BlockShape {
    explicit Bf16BlockShape(int64_t head_dim)
        : key_dim((head_dim + kBf16Pairs - 1) / kBf16Pairs * kBf16Pairs),
          value_dim(padded_head_dim(head_dim)) {}
    // Numbers of a block: k [key_dim / 2, kKeyBlock, 2], then v [kKeyBlock / 2, value_dim, 2].
    int64_t size() const { return kKeyBlock * (key_dim + value_dim); }

    int64_t key_dim;
    int64_t value_dim;
};

// Fills a block from up to kKeyBlock positions, `stride` apart; zero where there is no position.
void lay_out_bf16(const BFloat16* keys, const BFloat16* values, int64_t stride, int64_t count,
                  int64_t head_dim, BFloat16* block);

// Fills a block from one of the KV cache: keys [head_dim, kKeyBlock], values [kKeyBlock, value_dim].
template <typename T>
void lay_out_bf16(const Bf16Kernels& kernels, const T* keys, const T* values, int64_t head_dim,
                  BFloat16* block);

// Query rows of one head. They may be read up to a multiple of kBf16QueryRows, and each up to a multiple of
// kBf16Pairs, where there has to be something finite.
struct Bf16Queries {
    const BFloat16* rows;  // [rows, stride]
    int64_t stride;
    float scale;  // of scores; 1 if the queries have it
};

class Bf16AttentionTask {
  public:
    Bf16AttentionTask(const Bf16Kernels& kernels, int64_t rows, int64_t head_dim, const Bf16Queries& queries);

    // Row r sees the first visible_keys(r) keys of all, of which this block holds those from first_key on.
    template <typename F>
    void fold(const BFloat16* block, int64_t first_key, const F& visible_keys) {
        for (int64_t r = 0; r < rows_; ++r) {
            visible_[static_cast<size_t>(r)] = visible_in_block(visible_keys(r), first_key);
        }
        fold_visible(block);
    }
    // Writes the result of row r, [head_dim].
    void write(int64_t r, BFloat16* out) noexcept;
    void write(int64_t r, float* out) noexcept;

  private:
    void fold_visible(const BFloat16* block);

    const Bf16Kernels& kernels_;
    int64_t rows_;
    int64_t head_dim_;
    Bf16BlockShape shape_;
    Bf16Queries queries_;
    AlignedBuffer<float> scores_;   // [rows, kKeyBlock], and so on in whole kBf16QueryRows
    AlignedBuffer<float> acc_;      // [rows, value_dim]
    AlignedBuffer<BFloat16> row_;   // [value_dim]
    std::vector<float> max_;        // [rows]
    std::vector<float> sum_;        // [rows]
    std::vector<int32_t> visible_;  // [rows]
};

}  // namespace pocketvlm
