#include "model/text_decoder.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"
#include "model/causal_attention.h"

namespace pocketvlm {
namespace {

constexpr int64_t kChunk = 1280;      // positions per pass over the weights
constexpr int64_t kRotatedRows = 16;  // per task

void fill_angles(const TextDecoder& decoder, int64_t first_position, int64_t rows, TextScratch& scratch) {
    const auto half = static_cast<int64_t>(decoder.inverse_frequencies.size());
    for (int64_t r = 0; r < rows; ++r) {
        for (int64_t i = 0; i < half; ++i) {
            // In float32, as the reference multiplies them.
            const float angle =
                static_cast<float>(first_position + r) * decoder.inverse_frequencies[static_cast<size_t>(i)];
            scratch.cosine.data()[r * half + i] = std::cos(angle);
            scratch.sine.data()[r * half + i] = std::sin(angle);
        }
    }
}

// Rotates queries and keys, scales the queries, and stores keys and values behind the cache's length.
void rotate_and_store(const TextDecoder& decoder, const Compute& compute, int64_t layer, int64_t rows,
                      TextScratch& scratch, KvCache& cache) {
    const TextConfig& config = decoder.config;
    const int64_t d = config.head_dim, heads = config.num_attention_heads,
                  kv_heads = config.num_key_value_heads;
    const float scale = 1.0f / std::sqrt(static_cast<float>(d));
    for_row_blocks(compute.pool, rows, kRotatedRows, [&](int64_t first, int64_t count) {
        for (int64_t r = first; r < first + count; ++r) {
            const float* cosine = scratch.cosine.data() + r * (d / 2);
            const float* sine = scratch.sine.data() + r * (d / 2);
            for (int64_t h = 0; h < heads; ++h) {
                compute.kernels.rope_interleaved(scratch.q.data() + (r * heads + h) * d, cosine, sine, d,
                                                 scale);
            }
            for (int64_t h = 0; h < kv_heads; ++h) {
                float* k = scratch.k.data() + (r * kv_heads + h) * d;
                compute.kernels.rope_interleaved(k, cosine, sine, d, 1.0f);
                cache.store(compute.kernels, layer, h, cache.length() + r, k,
                            scratch.v.data() + (r * kv_heads + h) * d);
            }
        }
    });
}

// Runs `rows` embedded positions in scratch.x through all layers.
void run_layers(const TextDecoder& decoder, const Compute& compute, const StopPoll& stop, int64_t rows,
                TextScratch& scratch, KvCache& cache, const Trace& trace) {
    const TextConfig& config = decoder.config;
    float* x = scratch.x.data();
    const int64_t hidden_size = config.hidden_size;
    Activations& activations = scratch.activations;
    const auto norm = [&, x](const std::vector<float>& weight) {
        return [&, x](int64_t r, float* normed) {
            compute.kernels.rms_norm(x + r * hidden_size, weight.data(), config.rms_norm_eps, hidden_size,
                                     normed);
            return normed;
        };
    };
    fill_angles(decoder, cache.length(), rows, scratch);

    for (size_t i = 0; i < decoder.layers.size(); ++i) {
        stop.check();
        const TextLayer& layer = decoder.layers[i];
        const auto index = static_cast<int64_t>(i);

        // x = x + o_proj(self_attn(input_layernorm(x)))
        activations.set(compute, {&layer.q_proj, &layer.k_proj, &layer.v_proj}, rows,
                        norm(layer.input_layernorm));
        run_side_by_side(compute, activations,
                         {{&layer.q_proj, scratch.q.data()},
                          {&layer.k_proj, scratch.k.data()},
                          {&layer.v_proj, scratch.v.data()}});
        rotate_and_store(decoder, compute, index, rows, scratch, cache);
        const auto in_bf16 = [&](const Linear& product) {
            return activation_type(compute, product.weight.type, rows) == ActivationType::bf16;
        };
        float* const q = scratch.q.data();
        const int64_t attended = config.num_attention_heads * config.head_dim;
        if (in_bf16(layer.q_proj) && in_bf16(layer.o_proj)) {
            causal_attention_bf16(config, compute, cache, index, rows, scratch.attention, q,
                                  scratch.attended.make_bf16(rows, attended), bf16_padded(attended));
            layer.o_proj.run(compute, scratch.attended, x, true);
        } else {
            if (attends_in_bf16(compute, layer.q_proj.weight.type, rows)) {
                causal_attention_bf16(config, compute, cache, index, rows, scratch.attention, q, q, attended);
            } else {
                causal_attention(config, compute, cache, index, rows, scratch.attention, q);
            }
            activations.set(compute, {&layer.o_proj}, rows,
                            [&](int64_t r, float*) { return q + r * attended; });
            layer.o_proj.run(compute, activations, x, true);
        }

        // x = x + down_proj(silu(gate_proj(h)) * up_proj(h)),  h = post_attention_layernorm(x)
        activations.set(compute, {&layer.gate_proj, &layer.up_proj}, rows,
                        norm(layer.post_attention_layernorm));
        scratch.hidden.begin(compute, {&layer.down_proj}, rows);
        run_in_blocks(compute, activations, {&layer.gate_proj, &layer.up_proj},
                      [&](const ResultBlock& block) {
                          for (int64_t r = 0; r < block.rows; ++r) {
                              float* gate = block.y[0] + r * block.stride;
                              compute.kernels.silu_mul(gate, block.y[1] + r * block.stride, block.columns);
                              scratch.hidden.store(compute, block.first_row + r, block.first_column, gate,
                                                   block.columns);
                          }
                      });
        layer.down_proj.run(compute, scratch.hidden, x, true);
        if (trace) trace("layer." + std::to_string(i), x, rows, config.hidden_size);
    }
}

// Embeds tokens first .. first + rows - 1 of the prompt into x; `features` moves on by the image tokens among
// them.
void embed(const TextDecoder& decoder, const Prompt& prompt, int64_t first, int64_t rows,
           const float*& features, float* x) {
    const int64_t hidden_size = decoder.config.hidden_size;
    const GgufTensor& table = *decoder.embed_tokens;
    const int64_t stride = row_bytes(table.type, hidden_size);
    for (int64_t r = 0; r < rows; ++r) {
        const int32_t token = prompt.token_ids[first + r];
        if (token == prompt.image_token_id) {
            std::copy_n(features, hidden_size, x + r * hidden_size);
            features += hidden_size;
        } else {
            dequantize_row(table.type, table.data + token * stride, x + r * hidden_size, hidden_size);
        }
    }
}

}  // namespace

void check_prompt(const TextConfig& config, const Prompt& prompt) {
    if (prompt.num_tokens < 1) throw InputError("token_ids: empty, expected at least one token");
    int64_t image_tokens = 0;
    for (int64_t i = 0; i < prompt.num_tokens; ++i) {
        const int32_t token = prompt.token_ids[i];
        if (token == prompt.image_token_id) {
            ++image_tokens;
        } else if (token < 0 || token >= config.vocab_size) {
            throw InputError(
                concat("token_ids[", i, "]: ", token, ", expected 0 to ", config.vocab_size - 1));
        }
    }
    if (image_tokens != prompt.num_image_tokens) {
        throw InputError(concat("image_features: ", prompt.num_image_tokens, " rows, expected ", image_tokens,
                                ", the image tokens of the prompt"));
    }
}

void prefill(const TextDecoder& decoder, const Compute& compute, const StopPoll& stop, const Prompt& prompt,
             TextSession& session, float* logits,
             const std::function<void(int64_t done, int64_t total)>& progress, const Trace& trace) {
    const TextConfig& config = decoder.config;
    KvCache& cache = session.cache;
    TextScratch& scratch = session.scratch;
    cache.reserve(prompt.num_tokens);
    scratch.grow(config, std::min(kChunk, prompt.num_tokens));
    const float* features = prompt.image_features;
    int64_t rows = 0;
    for (int64_t first = 0; first < prompt.num_tokens; first += rows) {
        rows = std::min(kChunk, prompt.num_tokens - first);
        embed(decoder, prompt, first, rows, features, scratch.x.data());
        if (trace) trace("embed", scratch.x.data(), rows, config.hidden_size);
        run_layers(decoder, compute, stop, rows, scratch, cache, trace);
        cache.advance(rows);
        if (progress) progress(first + rows, prompt.num_tokens);
    }

    // logits = lm_head(norm(x)), of the last position only; a trace sees the norm of the whole chunk
    const auto norm = [&](int64_t r, float* normed) {
        compute.kernels.rms_norm(scratch.x.data() + r * config.hidden_size, decoder.norm.data(),
                                 config.rms_norm_eps, config.hidden_size, normed);
        return normed;
    };
    if (trace) {
        for (int64_t r = 0; r < rows; ++r) norm(r, scratch.q.data() + r * config.hidden_size);
        trace("final_norm", scratch.q.data(), rows, config.hidden_size);
    }
    scratch.activations.set(compute, {&decoder.lm_head}, 1,
                            [&](int64_t, float* normed) { return norm(rows - 1, normed); });
    decoder.lm_head.run(compute, scratch.activations, logits);
    if (trace) trace("logits", logits, 1, config.vocab_size);
}

}  // namespace pocketvlm
