// The keys and values of past positions, in float16 or float32, in blocks that are added as the context
// grows.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/aligned_buffer.h"
#include "model/attention.h"
#include "model/config.h"

namespace pocketvlm {

enum class KvType { f16, f32 };

class KvCache {
  public:
    KvCache(const TextConfig& config, KvType type);

    int64_t length() const noexcept { return length_; }
    int64_t capacity() const noexcept { return static_cast<int64_t>(blocks_.size()) * kKeyBlock; }
    int64_t max_positions() const noexcept { return max_positions_; }
    size_t bytes() const noexcept { return blocks_.size() * block_bytes(); }
    // What one block of kKeyBlock positions takes, all layers together.
    size_t block_bytes() const noexcept;

    // Makes room for `count` positions behind length(). Throws InputError beyond max_positions(),
    // std::bad_alloc.
    void reserve(int64_t count);

    // Writes key and value, each [head_dim], of one reserved position.
    void store(const KernelTable& kernels, int64_t layer, int64_t head, int64_t position, const float* k,
               const float* v) noexcept;

    KvType type() const noexcept { return type_; }

    // One block where it lies. T is what type() says: Float16 or float.
    template <typename T>
    KeyValueBlock<T> block(int64_t layer, int64_t head, int64_t index) const noexcept {
        const std::byte* stored = blocks_[static_cast<size_t>(index)].data() + offset(layer, head);
        const T* k = reinterpret_cast<const T*>(stored);
        return {k, k + head_dim_ * kKeyBlock};
    }

    // The last `count` reserved positions have been stored in every layer.
    void advance(int64_t count) noexcept { length_ += count; }

    // Forgets all positions from `length` on, which is at most length(). Their room is kept.
    void truncate(int64_t length) noexcept { length_ = length; }

  private:
    // Numbers of one head in one block.
    int64_t head_numbers() const noexcept { return kKeyBlock * (head_dim_ + padded_head_dim(head_dim_)); }
    size_t element_bytes() const noexcept { return type_ == KvType::f16 ? sizeof(uint16_t) : sizeof(float); }
    size_t offset(int64_t layer, int64_t head) const noexcept;

    KvType type_;
    int64_t num_layers_;
    int64_t num_heads_;
    int64_t head_dim_;
    int64_t max_positions_;
    int64_t length_ = 0;
    // Each [num_layers, num_heads]{k [head_dim, kKeyBlock], v [kKeyBlock, padded_head_dim]}, zero where
    // nothing was ever stored.
    std::vector<AlignedBuffer<std::byte>> blocks_;
};

}  // namespace pocketvlm
