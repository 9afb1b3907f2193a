#include "model/model.h"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <iterator>
#include <map>

#include "base/check.h"
#include "base/control_group.h"

namespace pocketvlm {
namespace {

std::string layer_name(const char* prefix, int64_t layer, const char* name) {
    return concat(prefix, layer, ".", name);
}

// Of the layers' weights: embeddings and the head may have a type of their own.
QuantType most_common_type(const GgufFile& file) {
    std::map<QuantType, int64_t> weights;
    for (const GgufTensor& tensor : file.tensors()) {
        const bool in_layer = tensor.name.find("blk.") != std::string_view::npos;
        if (in_layer) weights[tensor.type] += tensor.ne[0] * tensor.num_rows();
    }
    QuantType most = QuantType::F32;
    for (const auto& [type, count] : weights) {
        if (count > weights[most]) most = type;
    }
    return most;
}

// Whether most weights are stored in blocks, which have 8 bits or fewer for each.
bool has_blocks(const GgufFile& file) { return traits(most_common_type(file)).block_size > 1; }

// Takes tensors out of one file, counting them for the progress callback. Mapped pages are given back as soon
// as they are packed, so that little is held twice.
class Loader {
  public:
    // rows: of activations that weights meet at a time; 0 where that is one as well as many.
    Loader(const GgufFile& file, const Compute& compute, int64_t rows, const std::function<void()>& loaded,
           Arena& arena, size_t& weight_bytes)
        : file_(file),
          compute_(compute),
          rows_(rows),
          loaded_(loaded),
          among_blocks_(has_blocks(file)),
          arena_(arena),
          weight_bytes_(weight_bytes) {}

    // A tensor of n values as float32: norms, biases, position embeddings.
    std::vector<float> vector(const std::string& name, int64_t n) const {
        const GgufTensor* tensor = file_.find(name);
        if (tensor == nullptr) throw FormatError(concat(file_.path(), ": tensor ", name, ": missing"));
        if (tensor->ne[0] * tensor->num_rows() != n) {
            throw FormatError(concat(file_.path(), ": tensor ", name, ": ", shape_string(*tensor),
                                     ", expected ", n, " values"));
        }
        std::vector<float> values(static_cast<size_t>(n));
        dequantize_row(tensor->type, tensor->data, values.data(), n);
        file_.give_back(tensor->data, tensor->nbytes);
        finish(values.size() * sizeof(float));
        return values;
    }

    Linear linear(const std::string& name, int64_t n, int64_t k) const {
        return packed(file_.require(name, {k, n}));
    }

    Linear linear_with_bias(const std::string& prefix, int64_t n, int64_t k) const {
        Linear product = linear(prefix + ".weight", n, k);
        product.bias = vector(prefix + ".bias", n);
        return product;
    }

    // The convolution as a matrix: its stride is its size. Its input is normalised, (p / 255 - mean) / std,
    // while patches hold 2 p - 255: the factor goes into the weights and the rest into the bias, in float32
    // whatever type is stored, because rounding the products to it again would cost what is stored exactly.
    // In bfloat16 a weight is two numbers, one of them what the other differs by.
    Linear patch_embedding(const VisionConfig& config, bool in_bf16) const {
        const int64_t d = config.hidden_size, pixels = config.patch_size * config.patch_size, k = 3 * pixels;
        std::vector<float> weights = vector("v.patch_embd.weight", d * k);
        std::vector<float> bias = vector("v.patch_embd.bias", d);
        for (int64_t n = 0; n < d; ++n) {
            double constant = 0.0;
            for (int64_t i = 0; i < k; ++i) {
                const double mean = config.image_mean[i / pixels], std = config.image_std[i / pixels];
                float& weight = weights[static_cast<size_t>(n * k + i)];
                constant += weight * ((0.5 - mean) / std);
                weight = static_cast<float>(weight / (2 * 255.0 * std));
            }
            bias[static_cast<size_t>(n)] += static_cast<float>(constant);
        }
        if (in_bf16) weights = in_two_parts(weights, k);
        const GgufTensor matrix{"v.patch_embd.weight",
                                QuantType::F32,
                                {static_cast<int64_t>(weights.size()) / d, d, 1, 1},
                                2,
                                reinterpret_cast<const uint8_t*>(weights.data()),
                                weights.size() * sizeof(float)};
        Linear product;
        product.weight =
            pack_weight(in_bf16 ? PackedType::bf16_pairs : PackedType::f32, matrix, compute_, arena_);
        product.bias = std::move(bias);
        return product;
    }

    Linear packed(const GgufTensor& tensor) const {
        Linear product;
        const PackedType type =
            packed_for_rows(compute_, packed_type_of(file_.path(), tensor), rows_, among_blocks_);
        product.weight = pack_weight(type, tensor, compute_, arena_, [&](const uint8_t* bytes, size_t count) {
            file_.give_back(bytes, count);
        });
        finish(packed_bytes(type, tensor, compute_.kernels));
        return product;
    }

  private:
    // Rows of k weights -> rows of k numbers of 8 bits and the k that they differ by from the weights.
    static std::vector<float> in_two_parts(const std::vector<float>& weights, int64_t k) {
        std::vector<float> parts;
        parts.reserve(2 * weights.size());
        for (auto row = weights.begin(); row != weights.end(); row += k) {
            const auto upper = [](float weight) { return bf16_to_fp32(fp32_to_bf16(weight)); };
            std::transform(row, row + k, std::back_inserter(parts), upper);
            std::transform(row, row + k, std::back_inserter(parts),
                           [&](float weight) { return weight - upper(weight); });
        }
        return parts;
    }

    void finish(size_t bytes) const {
        weight_bytes_ += bytes;
        loaded_();
    }

    const GgufFile& file_;
    const Compute& compute_;
    int64_t rows_;
    const std::function<void()>& loaded_;
    bool among_blocks_;
    Arena& arena_;
    size_t& weight_bytes_;
};

VisionEncoder load_vision(const Loader& load, const GgufFile& file, const VisionConfig& config) {
    VisionEncoder encoder;
    encoder.config = config;
    const int64_t d = config.hidden_size, side = config.patch_size;
    file.require("v.position_embd.weight", {d, config.num_patches()});
    encoder.position_embedding = load.vector("v.position_embd.weight", d * config.num_patches());
    for (int64_t i = 0; i < config.num_hidden_layers; ++i) {
        const auto name = [i](const char* part) { return layer_name("v.blk.", i, part); };
        VisionLayer layer;
        layer.layer_norm1_weight = load.vector(name("ln1.weight"), d);
        layer.layer_norm1_bias = load.vector(name("ln1.bias"), d);
        layer.q_proj = load.linear_with_bias(name("attn_q"), d, d);
        layer.k_proj = load.linear_with_bias(name("attn_k"), d, d);
        layer.v_proj = load.linear_with_bias(name("attn_v"), d, d);
        layer.out_proj = load.linear_with_bias(name("attn_out"), d, d);
        layer.layer_norm2_weight = load.vector(name("ln2.weight"), d);
        layer.layer_norm2_bias = load.vector(name("ln2.bias"), d);
        layer.fc1 = load.linear_with_bias(name("ffn_up"), config.intermediate_size, d);
        layer.fc2 = load.linear_with_bias(name("ffn_down"), d, config.intermediate_size);
        encoder.layers.push_back(std::move(layer));
    }
    file.require("v.patch_embd.weight", {side, side, 3, d});
    const bool in_bf16 = encoder.layers.front().q_proj.weight.type == PackedType::bf16_pairs;
    encoder.patch_embedding = load.patch_embedding(config, in_bf16);
    encoder.post_layernorm_weight = load.vector("v.post_ln.weight", d);
    encoder.post_layernorm_bias = load.vector("v.post_ln.bias", d);
    encoder.connector.projection = load.linear("mm.model.fc.weight", config.projection_dim,
                                               d * config.scale_factor * config.scale_factor);
    return encoder;
}

// 1 / theta^(2 i / head_dim), rounded to float32 once.
std::vector<float> inverse_frequencies(const TextConfig& config) {
    std::vector<float> frequencies;
    for (int64_t i = 0; i < config.head_dim / 2; ++i) {
        const double exponent = static_cast<double>(2 * i) / static_cast<double>(config.head_dim);
        frequencies.push_back(
            static_cast<float>(1.0 / std::pow(static_cast<double>(config.rope_theta), exponent)));
    }
    return frequencies;
}

TextDecoder load_text(const Loader& load, const GgufFile& file, const TextConfig& config) {
    TextDecoder decoder;
    decoder.config = config;
    decoder.embed_tokens = &file.require("token_embd.weight", {config.hidden_size, config.vocab_size});
    decoder.kv_type = decoder.embed_tokens->type == QuantType::F32 ? KvType::f32 : KvType::f16;
    decoder.inverse_frequencies = inverse_frequencies(config);

    const int64_t d = config.hidden_size, ffn = config.intermediate_size;
    const int64_t q_size = config.num_attention_heads * config.head_dim;
    const int64_t kv_size = config.num_key_value_heads * config.head_dim;
    for (int64_t i = 0; i < config.num_hidden_layers; ++i) {
        const auto name = [i](const char* part) { return layer_name("blk.", i, part); };
        TextLayer layer;
        layer.input_layernorm = load.vector(name("attn_norm.weight"), d);
        layer.q_proj = load.linear(name("attn_q.weight"), q_size, d);
        layer.k_proj = load.linear(name("attn_k.weight"), kv_size, d);
        layer.v_proj = load.linear(name("attn_v.weight"), kv_size, d);
        layer.o_proj = load.linear(name("attn_output.weight"), d, q_size);
        layer.post_attention_layernorm = load.vector(name("ffn_norm.weight"), d);
        layer.gate_proj = load.linear(name("ffn_gate.weight"), ffn, d);
        layer.up_proj = load.linear(name("ffn_up.weight"), ffn, d);
        layer.down_proj = load.linear(name("ffn_down.weight"), d, ffn);
        decoder.layers.push_back(std::move(layer));
    }
    decoder.norm = load.vector("output_norm.weight", d);
    const bool tied = file.find("output.weight") == nullptr;
    decoder.lm_head = load.linear(tied ? "token_embd.weight" : "output.weight", config.vocab_size, d);
    return decoder;
}

size_t resident_bytes() {
    std::ifstream statm("/proc/self/statm");  // pages: size, resident, ...
    size_t size = 0, resident = 0;
    if (!(statm >> size >> resident)) return 0;
    return resident * static_cast<size_t>(sysconf(_SC_PAGESIZE));
}

// A lower bound of what the process will hold: itself, the packed weights, one tile's activations, one block
// of cache. Past the limit the kernel would kill the process in the middle of the work; this says so before
// it starts.
void check_memory_limit(const Model& model, const TextConfig& text, const VisionConfig& vision,
                        bool vision_only) {
    const auto limit = control_group_memory_limit();
    if (!limit) return;
    size_t weights = 0;
    for (const GgufFile* file : model.files(vision_only)) {
        const bool tied = file->find("output.weight") == nullptr;
        for (const GgufTensor& tensor : file->tensors()) {
            // The embedding is read from the mapped file, unless it is the head too.
            if (tensor.name == "token_embd.weight" && !tied) continue;
            PackedType type = packed_type_of(file->path(), tensor);
            if (file == &model.projector_file)
                type =
                    packed_for_rows(model.vision_compute(), type, vision.image_seq_len(), has_blocks(*file));
            weights += packed_bytes(type, tensor, *model.kernels);
        }
    }
    const size_t cache = vision_only ? 0 : KvCache(text, KvType::f16).block_bytes();
    const size_t needed = resident_bytes() + weights + VisionScratch::bytes(vision) + cache;
    if (needed > *limit) {
        throw OutOfBudgetError(concat("memory: this model needs at least ", needed >> 20,
                                      " MiB, the control group of this process allows ", *limit >> 20,
                                      " MiB"));
    }
}

}  // namespace

std::vector<const GgufFile*> Model::files(bool vision_only) const {
    if (vision_only) return {&projector_file};
    return {&text_file, &projector_file};
}

std::string Model::text_type() const { return traits(most_common_type(text_file)).name; }
std::string Model::vision_type() const { return traits(most_common_type(projector_file)).name; }

std::unique_ptr<Model> load_model(const std::string& text_path, const std::string& projector_path,
                                  std::shared_ptr<ThreadPool> pool, const LoadOptions& options,
                                  const StopPoll& stop, const Progress& progress) {
    const KernelTable& kernels = kernels_for(options.isa, detect_cpu_features());
    if (options.vision_arithmetic == Arithmetic::bf16 && kernels.bf16 == nullptr) {
        throw UnsupportedError(concat("vision_compute: bf16: the kernels ", kernels.isa,
                                      " have no products in bfloat16, expected auto or int8"));
    }
    GgufFile text_file(text_path);
    GgufFile projector_file(projector_path);
    const TextConfig text = read_text_config(text_file);
    const VisionConfig vision = read_vision_config(projector_file);
    check_pair(text_file, text, projector_file, vision);

    auto model = std::unique_ptr<Model>(new Model{std::move(text_file),
                                                  std::move(projector_file),
                                                  &kernels,
                                                  std::move(pool),
                                                  options.vision_arithmetic,
                                                  {},
                                                  {}});
    check_memory_limit(*model, text, vision, options.vision_only);

    int64_t total = 0, done = 0;
    for (const GgufFile* file : model->files(options.vision_only)) {
        total += static_cast<int64_t>(file->tensors().size());
    }
    const std::function<void()> loaded = [&] {
        stop.check();
        if (progress) progress("load", ++done, total);
    };
    const Compute vision_compute = model->vision_compute(), text_compute = model->compute();
    Arena arena;
    model->vision = load_vision(Loader(model->projector_file, vision_compute, vision.image_seq_len(), loaded,
                                       arena, model->weight_bytes),
                                model->projector_file, vision);
    if (options.vision_only) {
        model->text.config = text;
    } else {
        model->text = load_text(Loader(model->text_file, text_compute, 0, loaded, arena, model->weight_bytes),
                                model->text_file, text);
    }
    if (progress) progress("load", total, total);

    for (const GgufFile* file : model->files(false)) {
        for (const GgufTensor& tensor : file->tensors())
            model->num_parameters += tensor.ne[0] * tensor.num_rows();
    }
    return model;
}

void encode_images(const Model& model, const StopPoll& stop, const PatchRows& patches, int64_t num_tiles,
                   float* features, const Progress& progress, const Trace& trace) {
    const VisionConfig& config = model.vision.config;
    const int64_t values = config.num_patches() * 3 * config.patch_size * config.patch_size;
    VisionScratch scratch;
    for (int64_t t = 0; t < num_tiles; ++t) {
        const PatchRows tile = patches.f32 != nullptr ? PatchRows{nullptr, patches.f32 + t * values}
                                                      : PatchRows{patches.bf16 + t * values, nullptr};
        encode_tile(model.vision, model.vision_compute(), stop, tile, scratch,
                    features + t * config.image_seq_len() * config.projection_dim, trace);
        if (progress) progress("vision", t + 1, num_tiles);
    }
}

}  // namespace pocketvlm
