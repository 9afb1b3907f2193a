#include "model/vision_encoder.h"

#include <algorithm>
#include <cmath>

namespace pocketvlm {
namespace {

constexpr int64_t kNormRows = 16;   // rows per task of a norm or an activation
constexpr int64_t kQueryRows = 48;  // query rows per attention task: a multiple of the kernels' row tiles

int64_t num_key_blocks(const VisionConfig& config) {
    return (config.num_patches() + kKeyBlock - 1) / kKeyBlock;
}

int64_t key_block_floats(const VisionConfig& config) {
    return kKeyBlock * (config.head_dim() + padded_head_dim(config.head_dim()));
}

// The larger of the patch rows and the connector's input.
size_t patch_floats(const VisionConfig& config) {
    const int64_t row = std::max(3 * config.patch_size * config.patch_size, config.hidden_size);
    return static_cast<size_t>(config.num_patches() * row);
}

// Returns the patches of a tile as the product with the patch embedding reads them.
const float* widen(const Compute& compute, const VisionConfig& config, const BFloat16* patches,
                   VisionScratch& scratch) {
    const int64_t row = 3 * config.patch_size * config.patch_size;
    for_row_blocks(compute.pool, config.num_patches(), kNormRows, [&](int64_t first, int64_t count) {
        for (int64_t i = first * row; i < (first + count) * row; ++i) {
            scratch.patches.data()[i] = bf16_to_fp32(patches[i].bits);
        }
    });
    return scratch.patches.data();
}

void layer_norm_rows(const Compute& compute, const std::vector<float>& weight, const std::vector<float>& bias,
                     float epsilon, int64_t rows, const float* x, float* y) {
    const auto n = static_cast<int64_t>(weight.size());
    for_row_blocks(compute.pool, rows, kNormRows, [&](int64_t first, int64_t count) {
        for (int64_t r = first; r < first + count; ++r) {
            compute.kernels.layer_norm(x + r * n, weight.data(), bias.data(), epsilon, n, y + r * n);
        }
    });
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

// Every patch sees every patch. q, k, v, out: [num_patches, hidden_size].
void self_attention(const VisionConfig& config, const Compute& compute, VisionScratch& scratch, float* out) {
    const int64_t d = config.head_dim(), num_blocks = num_key_blocks(config), patches = config.num_patches();
    const int64_t block_floats = key_block_floats(config);
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
            attention.write(r, out + (first + r) * config.hidden_size + head * d);
    });
}

}  // namespace

VisionScratch::VisionScratch(const VisionConfig& config)
    : patches(patch_floats(config)),
      x(static_cast<size_t>(config.num_patches() * config.hidden_size)),
      normed(x.size()),
      q(x.size()),
      k(x.size()),
      v(x.size()),
      hidden(static_cast<size_t>(config.num_patches() * config.intermediate_size)),
      key_blocks(static_cast<size_t>(config.num_attention_heads * num_key_blocks(config) *
                                     key_block_floats(config))) {}

size_t VisionScratch::bytes(const VisionConfig& config) {
    const int64_t floats = static_cast<int64_t>(patch_floats(config)) +
                           config.num_patches() * (5 * config.hidden_size + config.intermediate_size) +
                           config.num_attention_heads * num_key_blocks(config) * key_block_floats(config);
    return static_cast<size_t>(floats) * sizeof(float);
}

void encode_tile(const VisionEncoder& encoder, const Compute& compute, const StopPoll& stop,
                 const PatchRows& rows, VisionScratch& scratch, float* tokens, const Trace& trace) {
    const VisionConfig& config = encoder.config;
    const int64_t patches = config.num_patches(), hidden_size = config.hidden_size;
    const auto look = [&](const std::string& stage, const float* data) {
        if (trace) trace(stage, data, patches, hidden_size);
    };

    // x = patch_embedding(pixel_values) + position_embedding(arange(num_patches))
    const float* pixels = rows.f32 != nullptr ? rows.f32 : widen(compute, config, rows.bf16, scratch);
    float* x = scratch.x.data();
    std::copy(encoder.position_embedding.begin(), encoder.position_embedding.end(), x);
    Activations& activations = scratch.activations;
    activations.set(compute, {&encoder.patch_embedding}, pixels, patches);
    encoder.patch_embedding.run(compute, activations, x, true);
    look("patch_embed", x);

    for (size_t i = 0; i < encoder.layers.size(); ++i) {
        stop.check();
        const VisionLayer& layer = encoder.layers[i];
        float* normed = scratch.normed.data();

        // x = x + out_proj(self_attn(layer_norm1(x)))
        layer_norm_rows(compute, layer.layer_norm1_weight, layer.layer_norm1_bias, config.layer_norm_eps,
                        patches, x, normed);
        activations.set(compute, {&layer.q_proj, &layer.k_proj, &layer.v_proj}, normed, patches);
        layer.q_proj.run(compute, activations, scratch.q.data());
        layer.k_proj.run(compute, activations, scratch.k.data());
        layer.v_proj.run(compute, activations, scratch.v.data());
        self_attention(config, compute, scratch, normed);
        activations.set(compute, {&layer.out_proj}, normed, patches);
        layer.out_proj.run(compute, activations, x, true);

        // x = x + fc2(gelu(fc1(layer_norm2(x))))
        layer_norm_rows(compute, layer.layer_norm2_weight, layer.layer_norm2_bias, config.layer_norm_eps,
                        patches, x, normed);
        activations.set(compute, {&layer.fc1}, normed, patches);
        float* hidden = scratch.hidden.data();
        layer.fc1.run(compute, activations, hidden);
        for_row_blocks(compute.pool, patches, kNormRows, [&](int64_t first, int64_t count) {
            compute.kernels.gelu_tanh(hidden + first * config.intermediate_size,
                                      count * config.intermediate_size);
        });
        activations.set(compute, {&layer.fc2}, hidden, patches);
        layer.fc2.run(compute, activations, x, true);
        look("layer." + std::to_string(i), x);
    }

    layer_norm_rows(compute, encoder.post_layernorm_weight, encoder.post_layernorm_bias,
                    config.layer_norm_eps, patches, x, scratch.normed.data());
    look("post_layernorm", scratch.normed.data());
    encoder.connector.run(compute, config, scratch.normed.data(), scratch.patches.data(), tokens);
    if (trace) trace("connector", tokens, config.image_seq_len(), config.projection_dim);
}

}  // namespace pocketvlm
