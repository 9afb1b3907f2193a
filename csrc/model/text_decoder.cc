#include "model/text_decoder.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"
#include "model/bf16_attention.h"

namespace pocketvlm {
namespace {

constexpr int64_t kChunk = 512;          // positions per pass over the weights
constexpr int64_t kRotatedRows = 16;     // per task
constexpr int64_t kQueryPositions = 32;  // positions per attention task

// The activations of one chunk.
struct Scratch {
    Scratch(const TextConfig& config, int64_t rows)
        : x(floats(rows, config.hidden_size)),
          q(floats(rows, config.num_attention_heads * config.head_dim)),
          k(floats(rows, config.num_key_value_heads * config.head_dim)),
          v(k.size()),
          gate(floats(rows, config.intermediate_size)),
          up(gate.size()),
          cosine(floats(rows, config.head_dim / 2)),
          sine(cosine.size()) {}

    static size_t floats(int64_t rows, int64_t columns) { return static_cast<size_t>(rows * columns); }

    AlignedBuffer<float> x;             // [rows, hidden_size], the residual stream
    AlignedBuffer<float> q;             // [rows, num_attention_heads, head_dim]; then what was attended to
    AlignedBuffer<float> k, v;          // [rows, num_key_value_heads, head_dim]
    AlignedBuffer<float> gate, up;      // [rows, intermediate_size]
    AlignedBuffer<float> cosine, sine;  // [rows, head_dim / 2]
    Activations activations;

    // For attention in bfloat16.
    AlignedBuffer<BFloat16> q_bf16;      // [num_key_value_heads, rows, heads per key head, key_dim]
    AlignedBuffer<BFloat16> key_blocks;  // [num_key_value_heads, num_blocks] of a layer
    Activations attended;
};

void fill_angles(const TextDecoder& decoder, int64_t first_position, int64_t rows, Scratch& scratch) {
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
                      Scratch& scratch, KvCache& cache) {
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
                cache.store(layer, h, cache.length() + r, k, scratch.v.data() + (r * kv_heads + h) * d);
            }
        }
    });
}

// Folds the first `num_keys` keys of a head, of which row r sees the first visible_keys(r).
template <typename T, typename F>
void fold_cache(const Compute& compute, const KvCache& cache, int64_t layer, int64_t kv_head,
                int64_t num_keys, const F& visible_keys, AttentionTask& attention) {
    for (int64_t key = 0; key < num_keys; key += kKeyBlock) {
        attention.fold(compute.kernels, cache.block<T>(layer, kv_head, key / kKeyBlock), key, visible_keys);
    }
}

// Each position sees itself and those before it. The query heads that share a key head are rows of one task.
void causal_attention(const TextDecoder& decoder, const Compute& compute, int64_t layer, int64_t rows,
                      Scratch& scratch, const KvCache& cache) {
    const TextConfig& config = decoder.config;
    const int64_t d = config.head_dim, heads = config.num_attention_heads,
                  kv_heads = config.num_key_value_heads;
    const int64_t group = heads / kv_heads, start = cache.length();
    const int64_t chunks = (rows + kQueryPositions - 1) / kQueryPositions;
    compute.pool.parallel_for(kv_heads * chunks, [&](int64_t task) {
        const int64_t kv_head = task / chunks, first = task % chunks * kQueryPositions;
        const int64_t positions = std::min(kQueryPositions, rows - first);
        const auto head_of_row = [&](int64_t r) {
            return (first + r / group) * heads + kv_head * group + r % group;
        };

        AttentionTask attention(positions * group, d);
        for (int64_t r = 0; r < positions * group; ++r) {
            std::copy_n(scratch.q.data() + head_of_row(r) * d, d, attention.q(r));
        }
        const auto seen = [&](int64_t r) { return start + first + r / group + 1; };
        if (cache.type() == KvType::f16) {
            fold_cache<Float16>(compute, cache, layer, kv_head, start + first + positions, seen, attention);
        } else {
            fold_cache<float>(compute, cache, layer, kv_head, start + first + positions, seen, attention);
        }
        for (int64_t r = 0; r < positions * group; ++r)
            attention.write(r, scratch.q.data() + head_of_row(r) * d);
    });
}

// The same in bfloat16: the blocks of the cache are turned into it once a layer.
void causal_attention_bf16(const TextDecoder& decoder, const Compute& compute, int64_t layer, int64_t rows,
                           Scratch& scratch, const KvCache& cache) {
    const TextConfig& config = decoder.config;
    const Bf16Kernels& kernels = *compute.kernels.bf16;
    const int64_t d = config.head_dim, heads = config.num_attention_heads,
                  kv_heads = config.num_key_value_heads;
    const int64_t group = heads / kv_heads, start = cache.length();
    const int64_t num_blocks = (start + rows + kKeyBlock - 1) / kKeyBlock;
    const int64_t block_size = Bf16BlockShape(d).size();
    scratch.key_blocks.grow(static_cast<size_t>(kv_heads * num_blocks * block_size));
    compute.pool.parallel_for(kv_heads * num_blocks, [&](int64_t task) {
        const int64_t kv_head = task / num_blocks, b = task % num_blocks;
        BFloat16* out = scratch.key_blocks.data() + task * block_size;
        if (cache.type() == KvType::f16) {
            const auto block = cache.block<Float16>(layer, kv_head, b);
            lay_out_bf16(kernels, block.k, block.v, d, out);
        } else {
            const auto block = cache.block<float>(layer, kv_head, b);
            lay_out_bf16(kernels, block.k, block.v, d, out);
        }
    });

    const int64_t key_dim = Bf16BlockShape(d).key_dim;
    scratch.q_bf16.grow(static_cast<size_t>((kv_heads * rows * group + kBf16QueryRows) * key_dim));
    for_row_blocks(compute.pool, rows, kRotatedRows, [&](int64_t first, int64_t count) {
        for (int64_t r = first; r < first + count; ++r) {
            for (int64_t h = 0; h < heads; ++h) {
                kernels.row_f32_to_bf16(
                    scratch.q.data() + (r * heads + h) * d, d,
                    scratch.q_bf16.data() + ((h / group * rows + r) * group + h % group) * key_dim);
            }
        }
    });

    BFloat16* out = scratch.attended.make_bf16(rows, heads * d);
    const int64_t stride = bf16_padded(heads * d);
    const int64_t chunks = (rows + kQueryPositions - 1) / kQueryPositions;
    compute.pool.parallel_for(kv_heads * chunks, [&](int64_t task) {
        // The last positions see most keys: they come first, so that threads end together.
        const int64_t kv_head = task % kv_heads, first = (chunks - 1 - task / kv_heads) * kQueryPositions;
        const int64_t positions = std::min(kQueryPositions, rows - first);
        const BFloat16* q = scratch.q_bf16.data() + (kv_head * rows + first) * group * key_dim;
        Bf16AttentionTask attention(kernels, positions * group, d, {q, key_dim, 1.0f});
        for (int64_t key = 0; key < start + first + positions; key += kKeyBlock) {
            attention.fold(scratch.key_blocks.data() + (kv_head * num_blocks + key / kKeyBlock) * block_size,
                           key, [&](int64_t r) { return start + first + r / group + 1; });
        }
        for (int64_t r = 0; r < positions * group; ++r) {
            attention.write(r, out + (first + r / group) * stride + (kv_head * group + r % group) * d);
        }
    });
}

// Runs `rows` embedded positions in scratch.x through all layers.
void run_layers(const TextDecoder& decoder, const Compute& compute, const StopPoll& stop, int64_t rows,
                Scratch& scratch, KvCache& cache, const Trace& trace) {
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
        if (in_bf16(layer.q_proj) && in_bf16(layer.o_proj)) {
            causal_attention_bf16(decoder, compute, index, rows, scratch, cache);
            layer.o_proj.run(compute, scratch.attended, x, true);
        } else {
            causal_attention(decoder, compute, index, rows, scratch, cache);
            const int64_t attended = config.num_attention_heads * config.head_dim;
            activations.set(compute, {&layer.o_proj}, rows,
                            [&](int64_t r, float*) { return scratch.q.data() + r * attended; });
            layer.o_proj.run(compute, activations, x, true);
        }

        // x = x + down_proj(silu(gate_proj(h)) * up_proj(h)),  h = post_attention_layernorm(x)
        activations.set(compute, {&layer.gate_proj, &layer.up_proj}, rows,
                        norm(layer.post_attention_layernorm));
        run_side_by_side(compute, activations,
                         {{&layer.gate_proj, scratch.gate.data()}, {&layer.up_proj, scratch.up.data()}});
        activations.set(compute, {&layer.down_proj}, rows, [&](int64_t r, float*) {
            float* gate = scratch.gate.data() + r * config.intermediate_size;
            compute.kernels.silu_mul(gate, scratch.up.data() + r * config.intermediate_size,
                                     config.intermediate_size);
            return gate;
        });
        layer.down_proj.run(compute, activations, x, true);
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
             KvCache& cache, float* logits, const std::function<void(int64_t done, int64_t total)>& progress,
             const Trace& trace) {
    const TextConfig& config = decoder.config;
    cache.reserve(prompt.num_tokens);
    Scratch scratch(config, std::min(kChunk, prompt.num_tokens));
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
