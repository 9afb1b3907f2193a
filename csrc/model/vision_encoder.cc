#include "model/vision_encoder.h"

#include <algorithm>
#include <cmath>

#include "model/bf16_attention.h"

namespace pocketvlm {
namespace {

// Query rows per attention task: multiples of the kernels' row tiles.
constexpr int64_t kQueryRows = 48;
constexpr int64_t kQueryRowsBf16 = 128;

int64_t num_key_blocks(const VisionConfig& config) {
    return (config.num_patches() + kKeyBlock - 1) / kKeyBlock;
}

int64_t key_block_floats(const VisionConfig& config) {
    return kKeyBlock * (config.head_dim() + padded_head_dim(config.head_dim()));
}

// Lays one block of a head's keys and values out as the attention kernel reads them: k [head_dim, kKeyBlock],
// v [kKeyBlock, padded_head_dim], zero where there is no position.
void lay_out_block(const VisionConfig& config, const float* keys, const float* values, int64_t head,
                   int64_t block, float* out) {
    const int64_t d = config.head_dim(), value_dim = padded_head_dim(d);
    std::fill_n(out, key_block_floats(config), 0.0f);
    float* k = out;
    float* v = out + d * kKeyBlock;
    const int64_t first = block * kKeyBlock;
    const int64_t count = std::min<int64_t>(kKeyBlock, config.num_patches() - first);
    for (int64_t j = 0; j < count; ++j) {
        const int64_t source = (first + j) * config.hidden_size + head * d;
        for (int64_t i = 0; i < d; ++i) k[i * kKeyBlock + j] = keys[source + i];
        std::copy_n(values + source, d, v + j * value_dim);
    }
}

// Every patch sees every patch. q, k, v: [num_patches, hidden_size]; the result takes the place of q, of
// which a task reads the part that it writes.
void attention_f32(const VisionConfig& config, const Compute& compute, VisionScratch& scratch) {
    const int64_t d = config.head_dim(), num_blocks = num_key_blocks(config), patches = config.num_patches();
    const int64_t block_floats = key_block_floats(config);
    scratch.key_blocks.grow(static_cast<size_t>(config.num_attention_heads * num_blocks * block_floats));
    compute.pool.parallel_for(config.num_attention_heads * num_blocks, [&](int64_t task) {
        lay_out_block(config, scratch.k.data(), scratch.v.data(), task / num_blocks, task % num_blocks,
                      scratch.key_blocks.data() + task * block_floats);
    });

    const float scale = 1.0f / std::sqrt(static_cast<float>(d));
    const int64_t chunks = (patches + kQueryRows - 1) / kQueryRows;
    compute.pool.parallel_for(config.num_attention_heads * chunks, [&](int64_t task) {
        const int64_t head = task / chunks, first = task % chunks * kQueryRows;
        const int64_t rows = std::min(kQueryRows, patches - first);
        AttentionTask attention(rows, d);
        for (int64_t r = 0; r < rows; ++r) {
            const float* q = scratch.q.data() + (first + r) * config.hidden_size + head * d;
            for (int64_t i = 0; i < d; ++i) attention.q(r)[i] = q[i] * scale;
        }
        for (int64_t b = 0; b < num_blocks; ++b) {
            const float* k = scratch.key_blocks.data() + (head * num_blocks + b) * block_floats;
            attention.fold(compute.kernels, KeyValueBlock<float>{k, k + d * kKeyBlock}, b * kKeyBlock,
                           [&](int64_t) { return patches; });
        }
        for (int64_t r = 0; r < rows; ++r)
            attention.write(r, scratch.q.data() + (first + r) * config.hidden_size + head * d);
    });
}

void attention_bf16(const VisionConfig& config, const Compute& compute, VisionScratch& scratch) {
    const Bf16Kernels& kernels = *compute.kernels.bf16;
    const int64_t d = config.head_dim(), num_blocks = num_key_blocks(config), patches = config.num_patches();
    const int64_t block_size = Bf16BlockShape(d).size(), heads = config.num_attention_heads;
    scratch.key_blocks_bf16.grow(static_cast<size_t>(heads * num_blocks * block_size));
    compute.pool.parallel_for(heads * num_blocks, [&](int64_t task) {
        const int64_t first = task % num_blocks * kKeyBlock;
        const int64_t source = first * config.hidden_size + task / num_blocks * d;
        lay_out_bf16(kernels, scratch.k.data() + source, scratch.v.data() + source, config.hidden_size,
                     std::min<int64_t>(kKeyBlock, patches - first), d,
                     scratch.key_blocks_bf16.data() + task * block_size);
    });

    const float scale = 1.0f / std::sqrt(static_cast<float>(d));
    const int64_t chunks = (patches + kQueryRowsBf16 - 1) / kQueryRowsBf16;
    compute.pool.parallel_for(heads * chunks, [&](int64_t task) {
        const int64_t head = task / chunks, first = task % chunks * kQueryRowsBf16;
        const int64_t rows = std::min(kQueryRowsBf16, patches - first);
        const auto q = [&](int64_t r) {
            return scratch.q.data() + (first + r) * config.hidden_size + head * d;
        };
        Bf16AttentionTask attention(kernels, rows, d);
        for (int64_t r = 0; r < rows; ++r) attention.set_q(r, q(r), scale);
        for (int64_t b = 0; b < num_blocks; ++b) {
            attention.fold(scratch.key_blocks_bf16.data() + (head * num_blocks + b) * block_size,
                           b * kKeyBlock, [&](int64_t) { return patches; });
        }
        for (int64_t r = 0; r < rows; ++r) attention.write(r, q(r));
    });
}

}  // namespace

VisionScratch::VisionScratch(const VisionConfig& config)
    : x(static_cast<size_t>(config.num_patches() * config.hidden_size)),
      q(x.size()),
      k(x.size()),
      v(x.size()),
      hidden(static_cast<size_t>(config.num_patches() * config.intermediate_size)) {}

size_t VisionScratch::bytes(const VisionConfig& config) {
    const int64_t floats = config.num_patches() * (4 * config.hidden_size + config.intermediate_size);
    return static_cast<size_t>(floats) * sizeof(float);
}

void encode_tile(const VisionEncoder& encoder, const Compute& compute, const StopPoll& stop,
                 const PatchRows& rows, VisionScratch& scratch, float* tokens, const Trace& trace) {
    const VisionConfig& config = encoder.config;
    const int64_t patches = config.num_patches(), hidden_size = config.hidden_size;
    const auto look = [&](const std::string& stage, const float* data) {
        if (trace) trace(stage, data, patches, hidden_size);
    };
    float* x = scratch.x.data();
    Activations& activations = scratch.activations;
    const auto norm = [&](const std::vector<float>& weight, const std::vector<float>& bias) {
        return [&, x](int64_t r, float* normed) {
            compute.kernels.layer_norm(x + r * hidden_size, weight.data(), bias.data(), config.layer_norm_eps,
                                       hidden_size, normed);
            return normed;
        };
    };

    // x = patch_embedding(pixel_values) + position_embedding(arange(num_patches))
    std::copy(encoder.position_embedding.begin(), encoder.position_embedding.end(), x);
    const int64_t values = 3 * config.patch_size * config.patch_size;
    activations.set(compute, {&encoder.patch_embedding}, patches,
                    [&](int64_t r, float* wide) -> const float* {
                        if (rows.f32 != nullptr) return rows.f32 + r * values;
                        for (int64_t i = 0; i < values; ++i)
                            wide[i] = bf16_to_fp32(rows.bf16[r * values + i].bits);
                        return wide;
                    });
    encoder.patch_embedding.run(compute, activations, x, true);
    look("patch_embed", x);

    for (size_t i = 0; i < encoder.layers.size(); ++i) {
        stop.check();
        const VisionLayer& layer = encoder.layers[i];

        // x = x + out_proj(self_attn(layer_norm1(x)))
        activations.set(compute, {&layer.q_proj, &layer.k_proj, &layer.v_proj}, patches,
                        norm(layer.layer_norm1_weight, layer.layer_norm1_bias));
        layer.q_proj.run(compute, activations, scratch.q.data());
        layer.k_proj.run(compute, activations, scratch.k.data());
        layer.v_proj.run(compute, activations, scratch.v.data());
        if (activation_type(compute, layer.q_proj.weight.type, patches) == ActivationType::bf16) {
            attention_bf16(config, compute, scratch);
        } else {
            attention_f32(config, compute, scratch);
        }
        activations.set(compute, {&layer.out_proj}, patches,
                        [&](int64_t r, float*) { return scratch.q.data() + r * hidden_size; });
        layer.out_proj.run(compute, activations, x, true);

        // x = x + fc2(gelu(fc1(layer_norm2(x))))
        activations.set(compute, {&layer.fc1}, patches,
                        norm(layer.layer_norm2_weight, layer.layer_norm2_bias));
        layer.fc1.run(compute, activations, scratch.hidden.data());
        activations.set(compute, {&layer.fc2}, patches, [&](int64_t r, float*) {
            float* hidden = scratch.hidden.data() + r * config.intermediate_size;
            compute.kernels.gelu_tanh(hidden, config.intermediate_size);
            return hidden;
        });
        layer.fc2.run(compute, activations, x, true);
        look("layer." + std::to_string(i), x);
    }

    const auto post_layernorm = norm(encoder.post_layernorm_weight, encoder.post_layernorm_bias);
    if (trace) {
        for (int64_t r = 0; r < patches; ++r) post_layernorm(r, scratch.q.data() + r * hidden_size);
        look("post_layernorm", scratch.q.data());
    }
    encoder.connector.run(compute, config, post_layernorm, activations, tokens);
    if (trace) trace("connector", tokens, config.image_seq_len(), config.projection_dim);
}

}  // namespace pocketvlm
