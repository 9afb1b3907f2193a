#include "model/kv_cache.h"

#include <algorithm>

#include "base/check.h"
#include "base/half.h"

namespace pocketvlm {
namespace {

template <typename T, typename Convert>
void store_position(T* block, int64_t head_dim, int64_t slot, const float* k, const float* v,
                    const Convert& convert) {
    T* values = block + head_dim * kKeyBlock + slot * padded_head_dim(head_dim);
    for (int64_t i = 0; i < head_dim; ++i) {
        block[i * kKeyBlock + slot] = convert(k[i]);
        values[i] = convert(v[i]);
    }
}

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

void KvCache::store(int64_t layer, int64_t head, int64_t position, const float* k, const float* v) noexcept {
    std::byte* block = blocks_[static_cast<size_t>(position / kKeyBlock)].data() + offset(layer, head);
    const int64_t slot = position % kKeyBlock;
    if (type_ == KvType::f16) {
        store_position(reinterpret_cast<Float16*>(block), head_dim_, slot, k, v,
                       [](float x) { return Float16{fp32_to_fp16(x)}; });
    } else {
        store_position(reinterpret_cast<float*>(block), head_dim_, slot, k, v, [](float x) { return x; });
    }
}

}  // namespace pocketvlm
