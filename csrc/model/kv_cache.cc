#include "model/kv_cache.h"

#include <algorithm>

#include "base/check.h"
#include "base/half.h"

namespace pocketvlm {
namespace {

// Floats of a key that are converted before they are spread over the block's columns.
constexpr int64_t kKeyPart = 64;

}  // namespace

KvCache::KvCache(const TextConfig& config, KvType type)
    : type_(type),
      num_layers_(config.num_hidden_layers),
      num_heads_(config.num_key_value_heads),
      head_dim_(config.head_dim),
      max_positions_(config.max_position_embeddings) {}

size_t KvCache::block_bytes() const noexcept {
    return static_cast<size_t>(num_layers_ * num_heads_ * head_numbers()) * element_bytes();
}

void KvCache::reserve(int64_t count) {
    if (count > max_positions_ - length_) {
        throw InputError(concat("context: ", length_ + count, " positions, the model has ", max_positions_));
    }
    while (capacity() < length_ + count) {
        AlignedBuffer<std::byte> block(block_bytes());
        std::fill_n(block.data(), block.size(), std::byte{0});
        blocks_.push_back(std::move(block));
    }
}

// Where in a block a layer's head begins, in bytes.
size_t KvCache::offset(int64_t layer, int64_t head) const noexcept {
    return static_cast<size_t>((layer * num_heads_ + head) * head_numbers()) * element_bytes();
}

void KvCache::store(const KernelTable& kernels, int64_t layer, int64_t head, int64_t position, const float* k,
                    const float* v) noexcept {
    std::byte* block = blocks_[static_cast<size_t>(position / kKeyBlock)].data() + offset(layer, head);
    const int64_t slot = position % kKeyBlock;
    const int64_t value = head_dim_ * kKeyBlock + slot * padded_head_dim(head_dim_);
    if (type_ == KvType::f32) {
        auto* floats = reinterpret_cast<float*>(block);
        for (int64_t i = 0; i < head_dim_; ++i) floats[i * kKeyBlock + slot] = k[i];
        std::copy_n(v, head_dim_, floats + value);
        return;
    }
    auto* halves = reinterpret_cast<Float16*>(block);
    for (int64_t first = 0; first < head_dim_; first += kKeyPart) {
        const int64_t count = std::min(kKeyPart, head_dim_ - first);
        Float16 part[kKeyPart];
        kernels.f32_to_f16(k + first, count, part);
        for (int64_t i = 0; i < count; ++i) halves[(first + i) * kKeyBlock + slot] = part[i];
    }
    kernels.f32_to_f16(v, head_dim_, halves + value);
}

}  // namespace pocketvlm
