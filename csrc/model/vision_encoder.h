// The SigLIP vision tower and the connector: patch rows in, image tokens out.
#pragma once

#include <cstdint>
#include <vector>

#include "base/half.h"
#include "base/stop_flag.h"
#include "model/attention.h"
#include "model/config.h"
#include "model/connector.h"
#include "model/linear.h"
#include "model/trace.h"

namespace pocketvlm {

struct VisionLayer {
    std::vector<float> layer_norm1_weight, layer_norm1_bias;
    Linear q_proj, k_proj, v_proj, out_proj;
    std::vector<float> layer_norm2_weight, layer_norm2_bias;
    Linear fc1, fc2;
};

struct VisionEncoder {
    VisionConfig config;
    // [hidden_size, 3 * patch_size^2], of pixels 2 p - 255: normalisation is folded in. Or, in bfloat16,
    // twice as many columns: weights are the sum of two, which meet the same pixels.
    Linear patch_embedding;
    std::vector<float> position_embedding;  // [num_patches, hidden_size]
    std::vector<VisionLayer> layers;
    std::vector<float> post_layernorm_weight, post_layernorm_bias;
    Connector connector;
};

// The activations of one tile; allocated when they are needed, used for tile after tile.
struct VisionScratch {
    // What the tower needs at least.
    static size_t bytes(const VisionConfig& config);

    AlignedBuffer<float> x;           // [num_patches, hidden_size], the residual stream
    AlignedBuffer<float> q, k, v;     // [num_patches, hidden_size]
    AlignedBuffer<float> key_blocks;  // [num_heads, num_blocks], each keys and values of kKeyBlock positions
    Activations activations;
    Activations hidden;  // of intermediate_size

    struct Bf16 {
        AlignedBuffer<BFloat16> q, k, v;     // [num_patches, bf16_padded(hidden_size)]
        AlignedBuffer<BFloat16> key_blocks;  // as above
        Activations attended;
    } bf16;
};

// The patches of tiles as `preprocess` writes them, [tiles, num_patches, 3 * patch_size^2]: in one of the two
// types.
struct PatchRows {
    const BFloat16* bf16;
    const float* f32;
};

// Patches of one tile -> tokens: [image_seq_len, projection_dim]. Polls `stop` once per layer.
void encode_tile(const VisionEncoder& encoder, const Compute& compute, const StopPoll& stop,
                 const PatchRows& patches, VisionScratch& scratch, float* tokens, const Trace& trace = {});

}  // namespace pocketvlm
