// The text decoder's attention: every position sees itself and those before it, whose keys and values are in
// the cache.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/aligned_buffer.h"
#include "model/config.h"
#include "model/kv_cache.h"
#include "model/linear.h"

namespace pocketvlm {

// Grows with the rows and the context, and is kept.
struct CausalAttentionScratch {
    size_t bytes() const noexcept;

    // Of few positions: what each block of keys adds up to, by itself.
    AlignedBuffer<float> q;          // [num_key_value_heads, rows, heads per key head, head_dim]
    AlignedBuffer<float> scores;     // [blocks, num_key_value_heads, rows, heads per key head, kKeyBlock]
    AlignedBuffer<float> acc;        // [blocks, ..., padded_head_dim], and a row that joins them
    AlignedBuffer<float> max, sum;   // [blocks, ...]
    AlignedBuffer<int32_t> visible;  // [blocks, ...]

    // In bfloat16.
    AlignedBuffer<BFloat16> q_bf16;      // [num_key_value_heads, rows, heads per key head, key_dim]
    AlignedBuffer<BFloat16> key_blocks;  // [num_key_value_heads, num_blocks] of a layer
};

// What a layer attends to for `rows` positions, whose keys and values are stored behind the cache's length.
// q: [rows, num_attention_heads, head_dim], scaled by 1 / sqrt(head_dim); the results take its place.
void causal_attention(const TextConfig& config, const Compute& compute, const KvCache& cache, int64_t layer,
                      int64_t rows, CausalAttentionScratch& scratch, float* q);

// The same in bfloat16, for a row of the kernel table that has it. out: rows of num_attention_heads *
// head_dim, `stride` apart, which may be q's own.
template <typename T>
void causal_attention_bf16(const TextConfig& config, const Compute& compute, const KvCache& cache,
                           int64_t layer, int64_t rows, CausalAttentionScratch& scratch, const float* q,
                           T* out, int64_t stride);

}  // namespace pocketvlm
