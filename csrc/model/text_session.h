// What a text model holds besides its weights while it reads and answers one prompt: the positions so far,
// and the activations of the chunk that is passing.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/aligned_buffer.h"
#include "model/causal_attention.h"
#include "model/config.h"
#include "model/kv_cache.h"
#include "model/linear.h"

namespace pocketvlm {

// Grows with the largest chunk, and is kept: a token of an answer allocates nothing.
struct TextScratch {
    void grow(const TextConfig& config, int64_t rows);
    size_t bytes() const noexcept;

    AlignedBuffer<float> x;             // [rows, hidden_size], the residual stream
    AlignedBuffer<float> q;             // [rows, num_attention_heads, head_dim]; then what was attended to
    AlignedBuffer<float> k, v;          // [rows, num_key_value_heads, head_dim]
    AlignedBuffer<float> cosine, sine;  // [rows, head_dim / 2]
    Activations activations;
    CausalAttentionScratch attention;
    Activations attended;  // in bfloat16
    Activations hidden;    // of intermediate_size
};

struct TextSession {
    KvCache cache;
    TextScratch scratch{};
};

}  // namespace pocketvlm
