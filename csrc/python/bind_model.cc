// _core.Model, _core.KVCache and the calls of each phase.
#include <pybind11/functional.h>
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <pybind11/stl/filesystem.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "model/generator.h"
#include "model/model.h"
#include "python/array.h"
#include "python/bind.h"
#include "python/stop.h"

namespace pocketvlm {
namespace {

using PyProgress = std::optional<std::function<void(const std::string&, int64_t, int64_t)>>;

// A cache belongs to the model that made it, and to one call at a time.
struct Cache {
    const Model* model;
    TextSession session;
    std::mutex in_use;
};

void require_text(const Model& model) {
    if (model.text.layers.empty())
        throw InputError("vision_only: this model was loaded without its text model");
}

// The callbacks below are called with the GIL released; pybind11's std::function takes it for the call.
Progress to_progress(const PyProgress& on_progress) {
    if (!on_progress) return {};
    return
        [call = *on_progress](const char* stage, int64_t done, int64_t total) { call(stage, done, total); };
}

std::unique_ptr<Model> open_model(const std::filesystem::path& text_path,
                                  const std::filesystem::path& projector_path,
                                  const std::shared_ptr<ThreadPool>& pool,
                                  const std::optional<std::string>& isa, const std::string& vision_compute,
                                  bool vision_only, const StopFlag* stop, const PyProgress& on_progress) {
    const LoadOptions options{isa.value_or(""), arithmetic_named(vision_compute), vision_only};
    const Progress progress = to_progress(on_progress);
    const py::gil_scoped_release release;
    return load_model(text_path.string(), projector_path.string(), pool, options, make_stop_poll(stop),
                      progress);
}

// Names as in config.json, and as the dataclasses of runtime/config.py have them.
py::dict read_config(const GgufFile& text_file, const GgufFile& projector_file) {
    using namespace py::literals;
    const TextConfig text = read_text_config(text_file);
    const VisionConfig vision = read_vision_config(projector_file);
    check_pair(text_file, text, projector_file, vision);
    const auto channels = [](const float (&values)[3]) {
        return py::make_tuple(values[0], values[1], values[2]);
    };
    return py::dict(
        "text"_a = py::dict(
            "hidden_size"_a = text.hidden_size, "intermediate_size"_a = text.intermediate_size,
            "num_hidden_layers"_a = text.num_hidden_layers,
            "num_attention_heads"_a = text.num_attention_heads,
            "num_key_value_heads"_a = text.num_key_value_heads, "head_dim"_a = text.head_dim,
            "rope_theta"_a = text.rope_theta, "rms_norm_eps"_a = text.rms_norm_eps,
            "vocab_size"_a = text.vocab_size, "max_position_embeddings"_a = text.max_position_embeddings),
        "vision"_a =
            py::dict("hidden_size"_a = vision.hidden_size, "intermediate_size"_a = vision.intermediate_size,
                     "num_hidden_layers"_a = vision.num_hidden_layers,
                     "num_attention_heads"_a = vision.num_attention_heads, "image_size"_a = vision.image_size,
                     "patch_size"_a = vision.patch_size, "layer_norm_eps"_a = vision.layer_norm_eps),
        "scale_factor"_a = vision.scale_factor, "image_mean"_a = channels(vision.image_mean),
        "image_std"_a = channels(vision.image_std));
}

// The array of patches, kept alive beside the view of it.
struct PatchArray {
    PatchArray(const Model& model, const py::object& patches) {
        const VisionConfig& config = model.vision.config;
        const auto count = static_cast<py::ssize_t>(config.num_patches());
        const auto values = static_cast<py::ssize_t>(3 * config.patch_size * config.patch_size);
        if (py::isinstance<py::array_t<float>>(patches)) {
            array = checked_array<float>(patches, "patches", {"T", count, values});
            rows.f32 = static_cast<const float*>(array.data());
        } else {
            array = checked_array<uint16_t>(patches, "patches", {"T", count, values});
            rows.bf16 = static_cast<const BFloat16*>(array.data());
        }
    }

    py::array array;
    PatchRows rows{};
};

py::array_t<float> encode(const Model& model, const py::object& patches, const StopFlag* stop,
                          const PyProgress& on_progress) {
    const PatchArray tiles(model, patches);
    const VisionConfig& config = model.vision.config;
    py::array_t<float> features({tiles.array.shape(0), static_cast<py::ssize_t>(config.image_seq_len()),
                                 static_cast<py::ssize_t>(config.projection_dim)});
    float* out = features.mutable_data();
    const Progress progress = to_progress(on_progress);
    {
        const py::gil_scoped_release release;
        encode_images(model, make_stop_poll(stop), tiles.rows, tiles.array.shape(0), out, progress);
    }
    return features;
}

// The arrays of a prompt, kept alive beside the view of them.
struct PromptArrays {
    PromptArrays(const Model& model, const py::object& ids, const py::object& features,
                 int32_t image_token_id)
        : token_ids(checked_array<int32_t>(ids, "token_ids", {"n"})),
          image_features(checked_array<float>(
              features, "image_features", {"m", static_cast<py::ssize_t>(model.text.config.hidden_size)})),
          prompt{token_ids.data(), token_ids.shape(0), image_features.data(), image_features.shape(0),
                 image_token_id} {
        check_prompt(model.text.config, prompt);
    }

    py::array_t<int32_t> token_ids;
    py::array_t<float> image_features;
    Prompt prompt;
};

void check_cache(const Model& model, const Cache& cache) {
    if (cache.model != &model) throw InputError("cache: made by another model");
}

py::array_t<float> run_prefill(const Model& model, Cache& cache, const Prompt& prompt, const StopFlag* stop,
                               const Progress& progress) {
    check_cache(model, cache);
    py::array_t<float> logits(static_cast<py::ssize_t>(model.text.config.vocab_size));
    float* out = logits.mutable_data();
    {
        const py::gil_scoped_release release;
        const std::lock_guard<std::mutex> lock(cache.in_use);
        prefill(model.text, model.compute(), make_stop_poll(stop), prompt, cache.session, out,
                [&](int64_t done, int64_t total) {
                    if (progress) progress("prefill", done, total);
                });
    }
    return logits;
}

GenerateResult run_generate(const Model& model, Cache& cache, const py::object& token_ids,
                            const py::object& features, int32_t image_token_id, int64_t max_new_tokens,
                            const std::vector<int32_t>& stop_token_ids, bool ignore_eos,
                            const std::optional<OnToken>& on_token, const SamplingOptions* sampling,
                            int64_t n, std::optional<int64_t> logprobs, const StopFlag* stop,
                            const PyProgress& on_progress) {
    check_cache(model, cache);
    const GenerateOptions options{
        max_new_tokens, stop_token_ids, ignore_eos, sampling ? *sampling : SamplingOptions(), n, logprobs};
    check_generate_options(options, model.text.config.vocab_size);
    const PromptArrays arrays(model, token_ids, features, image_token_id);
    const Progress progress = to_progress(on_progress);
    const OnToken call = on_token.value_or(OnToken());
    const py::gil_scoped_release release;
    const std::lock_guard<std::mutex> lock(cache.in_use);
    return generate(model, make_stop_poll(stop), arrays.prompt, options, cache.session, call, progress);
}

// Collects the stages of a forward pass; a stage that comes in several chunks is put together.
struct Stages {
    struct Stage {
        std::vector<float> data;
        int64_t columns;
    };
    std::map<std::string, Stage> stages;

    Trace trace() {
        return [this](const std::string& name, const float* data, int64_t rows, int64_t columns) {
            Stage& stage = stages[name];
            stage.columns = columns;
            stage.data.insert(stage.data.end(), data, data + rows * columns);
        };
    }

    py::dict to_python() const {
        py::dict arrays;
        for (const auto& [name, stage] : stages) {
            const auto rows = static_cast<py::ssize_t>(stage.data.size()) / stage.columns;
            py::array_t<float> array({rows, static_cast<py::ssize_t>(stage.columns)});
            std::copy(stage.data.begin(), stage.data.end(), array.mutable_data());
            arrays[py::str(name)] = array;
        }
        return arrays;
    }
};

py::dict trace_vision(const Model& model, const py::object& patches) {
    const PatchArray tile(model, patches);
    if (tile.array.shape(0) != 1) throw InputError("patches: expected those of one tile");
    std::vector<float> tokens(
        static_cast<size_t>(model.vision.config.image_seq_len() * model.vision.config.projection_dim));
    Stages stages;
    encode_images(model, StopPoll(), tile.rows, 1, tokens.data(), {}, stages.trace());
    return stages.to_python();
}

py::dict trace_text(const Model& model, const py::object& token_ids, const py::object& features,
                    int32_t image_token_id) {
    require_text(model);
    const PromptArrays arrays(model, token_ids, features, image_token_id);
    TextSession session{KvCache(model.text.config, model.text.kv_type)};
    std::vector<float> logits(static_cast<size_t>(model.text.config.vocab_size));
    Stages stages;
    prefill(model.text, model.compute(), StopPoll(), arrays.prompt, session, logits.data(), {},
            stages.trace());
    return stages.to_python();
}

}  // namespace

void bind_model(py::module_& module) {
    py::class_<Cache>(module, "KVCache")
        .def_property_readonly("length", [](const Cache& cache) { return cache.session.cache.length(); })
        .def_property_readonly("capacity", [](const Cache& cache) { return cache.session.cache.capacity(); })
        .def_property_readonly("nbytes", [](const Cache& cache) { return cache.session.cache.bytes(); })
        .def_property_readonly("scratch_nbytes",
                               [](const Cache& cache) { return cache.session.scratch.bytes(); });

    module.def("read_config", &read_config, py::arg("text_file"), py::arg("projector_file"));

    py::class_<Model>(module, "Model")
        .def(py::init(&open_model), py::arg("text_path"), py::arg("projector_path"), py::kw_only(),
             py::arg("pool"), py::arg("isa") = py::none(), py::arg("vision_compute") = "auto",
             py::arg("vision_only") = false, py::arg("stop") = nullptr, py::arg("on_progress") = py::none())
        .def_property_readonly("isa", [](const Model& model) { return model.kernels->isa; })
        .def_property_readonly("vision_compute",
                               [](const Model& model) {
                                   const auto type = model.vision.layers.front().q_proj.weight.type;
                                   const int64_t rows = model.vision.config.num_patches();
                                   return name_of(activation_type(model.vision_compute(), type, rows));
                               })
        .def_property_readonly("hidden_size",
                               [](const Model& model) { return model.text.config.hidden_size; })
        .def_property_readonly("vocab_size", [](const Model& model) { return model.text.config.vocab_size; })
        .def_property_readonly("max_position_embeddings",
                               [](const Model& model) { return model.text.config.max_position_embeddings; })
        .def_property_readonly("tile_size", [](const Model& model) { return model.vision.config.image_size; })
        .def_property_readonly("patch_size",
                               [](const Model& model) { return model.vision.config.patch_size; })
        .def_property_readonly("image_seq_len",
                               [](const Model& model) { return model.vision.config.image_seq_len(); })
        .def_readonly("num_parameters", &Model::num_parameters)
        .def_readonly("weight_bytes", &Model::weight_bytes)
        .def_property_readonly("text_type", &Model::text_type)
        .def_property_readonly("vision_type", &Model::vision_type)
        .def("encode_images", &encode, py::arg("patches"), py::kw_only(), py::arg("stop") = nullptr,
             py::arg("on_progress") = py::none())
        .def(
            "new_cache",
            [](const Model& model) {
                require_text(model);
                return std::unique_ptr<Cache>(
                    new Cache{&model, {KvCache(model.text.config, model.text.kv_type)}, {}});
            },
            py::keep_alive<0, 1>())
        .def(
            "prefill",
            [](const Model& model, Cache& cache, const py::object& token_ids,
               const py::object& image_features, int32_t image_token_id, const StopFlag* stop,
               const PyProgress& on_progress) {
                const PromptArrays arrays(model, token_ids, image_features, image_token_id);
                return run_prefill(model, cache, arrays.prompt, stop, to_progress(on_progress));
            },
            py::arg("cache"), py::arg("token_ids"), py::arg("image_features"), py::arg("image_token_id"),
            py::kw_only(), py::arg("stop") = nullptr, py::arg("on_progress") = py::none())
        .def(
            "decode",
            [](const Model& model, Cache& cache, int32_t token_id, const StopFlag* stop) {
                const Prompt prompt{&token_id, 1, nullptr, 0, -1};
                check_prompt(model.text.config, prompt);
                return run_prefill(model, cache, prompt, stop, {});
            },
            py::arg("cache"), py::arg("token_id"), py::kw_only(), py::arg("stop") = nullptr)
        .def("generate", &run_generate, py::arg("cache"), py::arg("token_ids"), py::arg("image_features"),
             py::kw_only(), py::arg("image_token_id"), py::arg("max_new_tokens"), py::arg("stop_token_ids"),
             py::arg("ignore_eos"), py::arg("on_token"), py::arg("sampling") = nullptr, py::arg("n") = 1,
             py::arg("logprobs") = py::none(), py::arg("stop") = nullptr, py::arg("on_progress") = py::none())
        .def("trace_vision", &trace_vision, py::arg("patches"), "Every stage of one tile, for tests.")
        .def("trace_text", &trace_text, py::arg("token_ids"), py::arg("image_features"),
             py::arg("image_token_id"), "Every stage of one prompt, for tests.");
}

}  // namespace pocketvlm
