#include "model/vision_encoder.h"

#include <algorithm>
#include <cmath>
#include <iterator>

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

// Room for q, k and v. Attention reads whole tiles of rows and of a head.
void make_room(const VisionConfig& config, VisionScratch::Bf16& scratch) {
    const int64_t rows = (config.num_patches() + kBf16QueryRows - 1) / kBf16QueryRows * kBf16QueryRows;
    const auto size = static_cast<size_t>(rows * bf16_padded(config.hidden_size) + kBf16Pairs);
    for (AlignedBuffer<BFloat16>* buffer : {&scratch.q, &scratch.k, &scratch.v}) {
        if (buffer->size() >= size) continue;
        buffer->grow(size);
        std::fill_n(buffer->data(), size, BFloat16{0});
    }
}

// The same in bfloat16; calls write(attention, row of it, patch, column) for each result.
template <typename Write>
void attention_bf16(const VisionConfig& config, const Compute& compute, VisionScratch::Bf16& scratch,
                    const Write& write) {
    const Bf16Kernels& kernels = *compute.kernels.bf16;
    const int64_t d = config.head_dim(), num_blocks = num_key_blocks(config), patches = config.num_patches();
    const int64_t stride = bf16_padded(config.hidden_size);
    const int64_t block_size = Bf16BlockShape(d).size(), heads = config.num_attention_heads;
    scratch.key_blocks.grow(static_cast<size_t>(heads * num_blocks * block_size));
    compute.pool.parallel_for(heads * num_blocks, [&](int64_t task) {
        const int64_t first = task % num_blocks * kKeyBlock;
        const int64_t source = first * stride + task / num_blocks * d;
        lay_out_bf16(scratch.k.data() + source, scratch.v.data() + source, stride,
                     std::min<int64_t>(kKeyBlock, patches - first), d,
                     scratch.key_blocks.data() + task * block_size);
    });

    const float scale = 1.0f / std::sqrt(static_cast<float>(d));
    const int64_t chunks = (patches + kQueryRowsBf16 - 1) / kQueryRowsBf16;
    compute.pool.parallel_for(heads * chunks, [&](int64_t task) {
        const int64_t head = task / chunks, first = task % chunks * kQueryRowsBf16;
        const int64_t rows = std::min(kQueryRowsBf16, patches - first);
        Bf16AttentionTask attention(kernels, rows, d,
                                    {scratch.q.data() + first * stride + head * d, stride, scale});
        for (int64_t b = 0; b < num_blocks; ++b) {
            attention.fold(scratch.key_blocks.data() + (head * num_blocks + b) * block_size, b * kKeyBlock,
                           [&](int64_t) { return patches; });
        }
        for (int64_t r = 0; r < rows; ++r) write(attention, r, first + r, head * d);
    });
}

// q, k and v are rounded as they are made; the result is where q is in float32.
void attention_of_rounded(const VisionLayer& layer, const VisionConfig& config, const Compute& compute,
                          VisionScratch& scratch) {
    const int64_t d = config.hidden_size, stride = bf16_padded(d);
    VisionScratch::Bf16& bf16 = scratch.bf16;
    make_room(config, bf16);
    BFloat16* const rounded[] = {bf16.q.data(), bf16.k.data(), bf16.v.data()};
    run_in_blocks(compute, scratch.activations, {&layer.q_proj, &layer.k_proj, &layer.v_proj},
                  [&](const ResultBlock& block) {
                      for (size_t p = 0; p < std::size(rounded); ++p) {
                          BFloat16* to = rounded[p] + block.first_row * stride + block.first_column;
                          for (int64_t r = 0; r < block.rows; ++r)
                              compute.kernels.bf16->row_f32_to_bf16(block.y[p] + r * block.stride,
                                                                    block.columns, to + r * stride);
                      }
                  });
    float* out = scratch.q.data();
    attention_bf16(config, compute, bf16,
                   [&](Bf16AttentionTask& attention, int64_t r, int64_t patch, int64_t column) {
                       attention.write(r, out + patch * d + column);
                   });
}

// x = x + out_proj(self_attn(layer_norm1(x)));  x = x + fc2(gelu(fc1(layer_norm2(x))))
void run_layer(const VisionLayer& layer, const VisionConfig& config, const Compute& compute,
               RowMaker layer_norm1, RowMaker layer_norm2, VisionScratch& scratch) {
    const int64_t patches = config.num_patches(), d = config.hidden_size;
    const auto grow = [&](AlignedBuffer<float>& buffer) { buffer.grow(static_cast<size_t>(patches * d)); };
    Activations& activations = scratch.activations;

    activations.set(compute, {&layer.q_proj, &layer.k_proj, &layer.v_proj}, patches, layer_norm1);
    grow(scratch.q);
    if (attends_in_bf16(compute, layer.q_proj.weight.type, patches)) {
        attention_of_rounded(layer, config, compute, scratch);
    } else {
        grow(scratch.k);
        grow(scratch.v);
        layer.q_proj.run(compute, activations, scratch.q.data());
        layer.k_proj.run(compute, activations, scratch.k.data());
        layer.v_proj.run(compute, activations, scratch.v.data());
        attention_f32(config, compute, scratch);
    }
    activations.set(compute, {&layer.out_proj}, patches,
                    [&](int64_t r, float*) { return scratch.q.data() + r * d; });
    layer.out_proj.run(compute, activations, scratch.x.data(), true);

    activations.set(compute, {&layer.fc1}, patches, layer_norm2);
    scratch.hidden.begin(compute, {&layer.fc2}, patches);
    run_in_blocks(compute, activations, {&layer.fc1}, [&](const ResultBlock& block) {
        for (int64_t r = 0; r < block.rows; ++r) {
            float* hidden = block.y[0] + r * block.stride;
            compute.kernels.gelu_tanh(hidden, block.columns);
            scratch.hidden.store(compute, block.first_row + r, block.first_column, hidden, block.columns);
        }
    });
    layer.fc2.run(compute, scratch.hidden, scratch.x.data(), true);
}

// The same, all but the residual stream and the norms in bfloat16.
void run_layer_bf16(const VisionLayer& layer, const VisionConfig& config, const Compute& compute,
                    RowMaker layer_norm1, RowMaker layer_norm2, VisionScratch& scratch) {
    const int64_t patches = config.num_patches(), stride = bf16_padded(config.hidden_size);
    VisionScratch::Bf16& bf16 = scratch.bf16;
    make_room(config, bf16);

    Activations& normed = scratch.activations;
    normed.set(compute, {&layer.q_proj, &layer.k_proj, &layer.v_proj}, patches, layer_norm1);
    layer.q_proj.run_bf16(compute, normed, bf16.q.data(), stride);
    layer.k_proj.run_bf16(compute, normed, bf16.k.data(), stride);
    layer.v_proj.run_bf16(compute, normed, bf16.v.data(), stride);
    BFloat16* attended = bf16.attended.make_bf16(patches, config.hidden_size);
    attention_bf16(config, compute, bf16,
                   [&](Bf16AttentionTask& attention, int64_t r, int64_t patch, int64_t column) {
                       attention.write(r, attended + patch * stride + column);
                   });
    layer.out_proj.run(compute, bf16.attended, scratch.x.data(), true);

    normed.set(compute, {&layer.fc1}, patches, layer_norm2);
    BFloat16* hidden = scratch.hidden.make_bf16(patches, config.intermediate_size);
    layer.fc1.run_bf16(compute, normed, hidden, bf16_padded(config.intermediate_size), true);
    layer.fc2.run(compute, scratch.hidden, scratch.x.data(), true);
}

// Pixels are exact in bfloat16.
void set_patches_twice(const Compute& compute, const PatchRows& rows, int64_t patches, int64_t values,
                       Activations& activations) {
    constexpr int64_t kRows = 64;
    const int64_t stride = bf16_padded(2 * values);
    BFloat16* out = activations.make_bf16(patches, 2 * values);
    for_row_blocks(compute.pool, patches, kRows, [&](int64_t first, int64_t count) {
        for (int64_t r = first; r < first + count; ++r) {
            BFloat16* row = out + r * stride;
            if (rows.bf16 != nullptr) {
                std::copy_n(rows.bf16 + r * values, values, row);
            } else {
                for (int64_t i = 0; i < values; ++i)
                    row[i] = BFloat16{fp32_to_bf16(rows.f32[r * values + i])};
            }
            std::copy_n(row, values, row + values);
        }
    });
}

bool computes_in_bf16(const VisionLayer& layer, const VisionConfig& config, const Compute& compute) {
    for (const Linear* product :
         {&layer.q_proj, &layer.k_proj, &layer.v_proj, &layer.out_proj, &layer.fc1, &layer.fc2}) {
        if (activation_type(compute, product->weight.type, config.num_patches()) != ActivationType::bf16)
            return false;
    }
    return true;
}

}  // namespace

size_t VisionScratch::bytes(const VisionConfig& config) {
    const int64_t bf16 = 4 * config.hidden_size + config.intermediate_size;
    return static_cast<size_t>(config.num_patches()) *
           (static_cast<size_t>(config.hidden_size) * sizeof(float) +
            static_cast<size_t>(bf16) * sizeof(BFloat16));
}

void encode_tile(const VisionEncoder& encoder, const Compute& compute, const StopPoll& stop,
                 const PatchRows& rows, VisionScratch& scratch, float* tokens, const Trace& trace) {
    const VisionConfig& config = encoder.config;
    const int64_t patches = config.num_patches(), hidden_size = config.hidden_size;
    const auto look = [&](const std::string& stage, const float* data) {
        if (trace) trace(stage, data, patches, hidden_size);
    };
    scratch.x.grow(static_cast<size_t>(patches * hidden_size));
    float* x = scratch.x.data();
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
    Activations& activations = scratch.activations;
    if (encoder.patch_embedding.weight.type == PackedType::bf16_pairs) {
        set_patches_twice(compute, rows, patches, values, activations);
    } else {
        activations.set(compute, {&encoder.patch_embedding}, patches,
                        [&](int64_t r, float* wide) -> const float* {
                            if (rows.f32 != nullptr) return rows.f32 + r * values;
                            for (int64_t i = 0; i < values; ++i)
                                wide[i] = bf16_to_fp32(rows.bf16[r * values + i].bits);
                            return wide;
                        });
    }
    encoder.patch_embedding.run(compute, activations, x, true);
    look("patch_embed", x);

    for (size_t i = 0; i < encoder.layers.size(); ++i) {
        stop.check();
        const VisionLayer& layer = encoder.layers[i];

        const auto layer_norm1 = norm(layer.layer_norm1_weight, layer.layer_norm1_bias);
        const auto layer_norm2 = norm(layer.layer_norm2_weight, layer.layer_norm2_bias);
        if (computes_in_bf16(layer, config, compute)) {
            run_layer_bf16(layer, config, compute, layer_norm1, layer_norm2, scratch);
        } else {
            run_layer(layer, config, compute, layer_norm1, layer_norm2, scratch);
        }
        look("layer." + std::to_string(i), x);
    }

    const auto post_layernorm = norm(encoder.post_layernorm_weight, encoder.post_layernorm_bias);
    if (trace) {
        AlignedBuffer<float> normed(scratch.x.size());
        for (int64_t r = 0; r < patches; ++r) post_layernorm(r, normed.data() + r * hidden_size);
        look("post_layernorm", normed.data());
    }
    encoder.connector.run(compute, config, post_layernorm, activations, tokens);
    if (trace) trace("connector", tokens, config.image_seq_len(), config.projection_dim);
}

}  // namespace pocketvlm
