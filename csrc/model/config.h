// The sizes of a model, read from the metadata of its two GGUF files and proven to fit each other.
#pragma once

#include <cstdint>
#include <string>

#include "io/gguf.h"

namespace pocketvlm {

// Names as in Hugging Face's config.json.
struct TextConfig {
    int64_t hidden_size;
    int64_t intermediate_size;
    int64_t num_hidden_layers;
    int64_t num_attention_heads;
    int64_t num_key_value_heads;
    int64_t head_dim;
    int64_t vocab_size;
    int64_t max_position_embeddings;
    float rope_theta;
    float rms_norm_eps;
};

struct VisionConfig {
    int64_t hidden_size;
    int64_t intermediate_size;
    int64_t num_hidden_layers;
    int64_t num_attention_heads;
    int64_t image_size;  // side of a tile
    int64_t patch_size;
    float layer_norm_eps;
    float image_mean[3];
    float image_std[3];
    int64_t scale_factor;    // of the pixel shuffle
    int64_t projection_dim;  // the text model's hidden_size

    int64_t head_dim() const { return hidden_size / num_attention_heads; }
    int64_t grid() const { return image_size / patch_size; }
    int64_t num_patches() const { return grid() * grid(); }
    int64_t image_seq_len() const { return num_patches() / (scale_factor * scale_factor); }
};

// Throws FormatError for missing or absurd values, UnsupportedError for another architecture.
TextConfig read_text_config(const GgufFile& file);
VisionConfig read_vision_config(const GgufFile& file);

// Throws FormatError when the two files cannot belong to one model.
void check_pair(const GgufFile& text_file, const TextConfig& text, const GgufFile& projector_file,
                const VisionConfig& vision);

}  // namespace pocketvlm
