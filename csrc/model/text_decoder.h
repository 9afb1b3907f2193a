// The Llama text model: token ids and image tokens in, logits of the last position out.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "base/stop_flag.h"
#include "model/config.h"
#include "model/linear.h"
#include "model/text_session.h"
#include "model/trace.h"

namespace pocketvlm {

struct TextLayer {
    std::vector<float> input_layernorm;
    Linear q_proj, k_proj, v_proj, o_proj;
    std::vector<float> post_attention_layernorm;
    Linear gate_proj, up_proj, down_proj;
};

struct TextDecoder {
    TextConfig config;
    const GgufTensor* embed_tokens;          // [vocab_size, hidden_size], read by row from the mapped file
    std::vector<float> inverse_frequencies;  // [head_dim / 2], of RoPE
    std::vector<TextLayer> layers;
    std::vector<float> norm;
    Linear lm_head;
    KvType kv_type;
};

// A prompt: where a token is image_token_id, the next row of image_features stands in for its embedding.
struct Prompt {
    const int32_t* token_ids;  // [num_tokens]
    int64_t num_tokens;
    const float* image_features;  // [num_image_tokens, hidden_size]
    int64_t num_image_tokens;
    int32_t image_token_id;
};

// Throws InputError for an empty prompt, ids outside the vocabulary, or a count of image tokens other than of
// features.
void check_prompt(const TextConfig& config, const Prompt& prompt);

// Appends a checked prompt to the session's cache, in chunks, and writes the logits of its last position,
// [vocab_size]. Polls `stop` once per layer; when that throws, the cache is as long as before the chunk.
// `progress` hears of each chunk. Throws InputError when the prompt does not fit the context.
void prefill(const TextDecoder& decoder, const Compute& compute, const StopPoll& stop, const Prompt& prompt,
             TextSession& session, float* logits,
             const std::function<void(int64_t done, int64_t total)>& progress = {}, const Trace& trace = {});

}  // namespace pocketvlm
