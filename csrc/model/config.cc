#include "model/config.h"

#include <cmath>

#include "base/check.h"

namespace pocketvlm {
namespace {

// Far above any model of the family, and low enough that products of two sizes stay inside int64.
constexpr uint32_t kMaxSize = 1u << 24;
constexpr uint32_t kMaxLayers = 4096;
constexpr uint32_t kMaxSide = 1u << 14;

[[noreturn]] void fail(const GgufFile& file, const std::string& what) {
    throw FormatError(file.path() + ": " + what);
}

int64_t size_from(const GgufFile& file, const char* key, uint32_t value, uint32_t limit) {
    if (value < 1 || value > limit) fail(file, concat("key ", key, ": ", value, ", expected 1 to ", limit));
    return value;
}

int64_t require_size(const GgufFile& file, const char* key, uint32_t limit = kMaxSize) {
    return size_from(file, key, file.require_u32(key), limit);
}

float require_epsilon(const GgufFile& file, const char* key) {
    const float value = file.require_f32(key);
    if (!(value > 0.0f && value < 1.0f))
        fail(file, concat("key ", key, ": ", value, ", expected above 0 and below 1"));
    return value;
}

void require_architecture(const GgufFile& file, const char* key, const char* expected, const char* role) {
    const std::string_view found = file.require_string(key);
    if (found != expected) {
        throw UnsupportedError(concat(file.path(), ": ", key, ": ", printable(found), ", expected ", expected,
                                      " for the ", role));
    }
}

void read_channels(const GgufFile& file, const char* key, float (&channels)[3], bool positive) {
    const std::vector<float> values = file.require_f32_array(key);
    if (values.size() != 3) fail(file, concat("key ", key, ": ", values.size(), " values, expected 3"));
    for (int c = 0; c < 3; ++c) {
        if (!std::isfinite(values[c]) || (positive && values[c] <= 0)) {
            fail(file, concat("key ", key, ": ", values[c], ", expected a ", positive ? "positive" : "finite",
                              " number"));
        }
        channels[c] = values[c];
    }
}

}  // namespace

TextConfig read_text_config(const GgufFile& file) {
    require_architecture(file, "general.architecture", "llama", "text model");
    for (const GgufEntry& entry : file.entries()) {
        if (entry.key.substr(0, 19) != "llama.rope.scaling.") continue;
        const bool is_none =
            entry.key == "llama.rope.scaling.type" && file.require_string(entry.key) == "none";
        if (!is_none)
            throw UnsupportedError(
                concat(file.path(), ": key ", entry.key, ": RoPE scaling is not supported"));
    }
    TextConfig config;
    config.hidden_size = require_size(file, "llama.embedding_length");
    config.intermediate_size = require_size(file, "llama.feed_forward_length");
    config.num_hidden_layers = require_size(file, "llama.block_count", kMaxLayers);
    config.num_attention_heads = require_size(file, "llama.attention.head_count", kMaxSide);
    const char* kv_key = "llama.attention.head_count_kv";
    config.num_key_value_heads = size_from(
        file, kv_key, file.find_u32(kv_key).value_or(static_cast<uint32_t>(config.num_attention_heads)),
        kMaxSide);
    if (config.num_attention_heads % config.num_key_value_heads != 0) {
        fail(file, concat("key ", kv_key, ": ", config.num_key_value_heads,
                          ", expected a divisor of head_count ", config.num_attention_heads));
    }
    const char* length_key = "llama.attention.key_length";
    if (const auto length = file.find_u32(length_key)) {
        config.head_dim = size_from(file, length_key, *length, kMaxSide);
    } else if (config.hidden_size % config.num_attention_heads == 0) {
        config.head_dim = config.hidden_size / config.num_attention_heads;
    } else {
        fail(file, concat("key ", length_key, ": missing, and embedding_length ", config.hidden_size,
                          " is not a multiple of head_count ", config.num_attention_heads));
    }
    if (config.head_dim % 2 != 0)
        fail(file, concat("key ", length_key, ": ", config.head_dim, ", expected an even number"));
    for (const char* key : {"llama.attention.value_length", "llama.rope.dimension_count"}) {
        const auto value = file.find_u32(key);
        if (value && *value != config.head_dim) {
            throw UnsupportedError(concat(file.path(), ": key ", key, ": ", *value,
                                          ", expected the head size ", config.head_dim));
        }
    }
    const GgufTensor* embedding = file.find("token_embd.weight");
    if (embedding == nullptr) fail(file, "tensor token_embd.weight: missing");
    config.vocab_size = embedding->ne[1];
    if (config.vocab_size > kMaxSize) {
        fail(file,
             concat("tensor token_embd.weight: ", config.vocab_size, " rows, expected 1 to ", kMaxSize));
    }
    config.max_position_embeddings = require_size(file, "llama.context_length");
    config.rope_theta = file.find_f32("llama.rope.freq_base").value_or(10000.0f);
    if (!(config.rope_theta >= 1.0f && std::isfinite(config.rope_theta))) {
        fail(file, concat("key llama.rope.freq_base: ", config.rope_theta, ", expected 1 or more"));
    }
    config.rms_norm_eps = require_epsilon(file, "llama.attention.layer_norm_rms_epsilon");
    return config;
}

VisionConfig read_vision_config(const GgufFile& file) {
    require_architecture(file, "general.architecture", "clip", "image projector");
    require_architecture(file, "clip.projector_type", "idefics3", "image projector");
    if (!file.find_bool("clip.use_gelu").value_or(true) || file.find_bool("clip.use_silu").value_or(false)) {
        throw UnsupportedError(
            concat(file.path(), ": keys clip.use_gelu, clip.use_silu: another activation, expected GELU"));
    }
    VisionConfig config;
    config.hidden_size = require_size(file, "clip.vision.embedding_length");
    config.intermediate_size = require_size(file, "clip.vision.feed_forward_length");
    config.num_hidden_layers = require_size(file, "clip.vision.block_count", kMaxLayers);
    config.num_attention_heads = require_size(file, "clip.vision.attention.head_count", kMaxSide);
    config.image_size = require_size(file, "clip.vision.image_size", kMaxSide);
    config.patch_size = require_size(file, "clip.vision.patch_size", kMaxSide);
    config.layer_norm_eps = require_epsilon(file, "clip.vision.attention.layer_norm_epsilon");
    config.scale_factor = require_size(file, "clip.vision.projector.scale_factor", kMaxSide);
    config.projection_dim = require_size(file, "clip.vision.projection_dim");
    read_channels(file, "clip.vision.image_mean", config.image_mean, false);
    read_channels(file, "clip.vision.image_std", config.image_std, true);
    if (config.hidden_size % config.num_attention_heads != 0) {
        fail(file, concat("key clip.vision.attention.head_count: ", config.num_attention_heads,
                          ", expected a divisor of embedding_length ", config.hidden_size));
    }
    if (config.patch_size > config.image_size) {
        fail(file, concat("key clip.vision.patch_size: ", config.patch_size, ", expected at most image_size ",
                          config.image_size));
    }
    if (config.grid() % config.scale_factor != 0) {
        fail(file, concat("key clip.vision.projector.scale_factor: ", config.scale_factor,
                          ", expected a divisor of the grid ", config.grid()));
    }
    return config;
}

void check_pair(const GgufFile& text_file, const TextConfig& text, const GgufFile& projector_file,
                const VisionConfig& vision) {
    if (vision.projection_dim != text.hidden_size) {
        fail(projector_file, concat("key clip.vision.projection_dim: ", vision.projection_dim, ", expected ",
                                    text.hidden_size, ", the embedding_length of ", text_file.path()));
    }
    const auto text_id = text_file.find_string("pocketvlm.pair_id");
    const auto projector_id = projector_file.find_string("pocketvlm.pair_id");
    if (text_id && projector_id && *text_id != *projector_id) {
        fail(projector_file,
             concat("key pocketvlm.pair_id: ", printable(*projector_id), ", expected ", printable(*text_id),
                    " as in ", text_file.path(), ": the two files come from different checkpoints"));
    }
}

}  // namespace pocketvlm
