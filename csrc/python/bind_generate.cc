// What _core.Model.generate takes and returns, and _core.sampling: the sampler alone, on logits of a test's
// own.
#include <pybind11/functional.h>
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "base/philox.h"
#include "model/generator.h"
#include "model/sampler.h"
#include "python/array.h"
#include "python/bind.h"

namespace pocketvlm {
namespace {

const char* name_of(FinishReason reason) {
    switch (reason) {
        case FinishReason::stop:
            return "stop";
        case FinishReason::callback:
            return "callback";
        case FinishReason::length:
            return "length";
    }
    return "";
}

// A sampler with the options that it refers to.
struct OwningSampler {
    OwningSampler(const SamplingOptions& chosen, const py::object& prompt_ids, int64_t size, int64_t sequence)
        : options(chosen), vocab_size(size) {
        check_sampling_options(options, vocab_size);
        const auto ids = checked_array<int32_t>(prompt_ids, "prompt_ids", {"n"});
        sampler = std::make_unique<Sampler>(options, vocab_size, ids.data(), ids.shape(0), sequence);
    }

    const SamplingOptions options;
    int64_t vocab_size;
    std::unique_ptr<Sampler> sampler;
};

int32_t next(OwningSampler& self, const py::object& logits) {
    const auto size = static_cast<py::ssize_t>(self.vocab_size);
    return self.sampler->next(checked_array<float>(logits, "logits", {size}).data());
}

py::array_t<double> probabilities(const OwningSampler& self) {
    py::array_t<double> dense(static_cast<py::ssize_t>(self.vocab_size));
    std::fill_n(dense.mutable_data(), self.vocab_size, 0.0);
    double total = 0;
    for (const Sampler::Candidate& candidate : self.sampler->candidates()) total += candidate.weight;
    for (const Sampler::Candidate& candidate : self.sampler->candidates()) {
        dense.mutable_at(candidate.token) = candidate.weight / total;
    }
    return dense;
}

// A reader that is an object of Python's: properties max_positions and length, methods
// read_prompt(on_progress) and read_token(token), which return logits, float32 [vocab_size], and
// truncate(length).
class PyReader final : public TextReader {
  public:
    PyReader(const py::object& reader, int64_t vocab_size) : reader_(reader), vocab_size_(vocab_size) {}

    int64_t vocab_size() const override { return vocab_size_; }
    int64_t max_positions() const override { return number("max_positions"); }
    int64_t length() const override { return number("length"); }
    void read_prompt(float* logits, const Progress& progress) override {
        const py::gil_scoped_acquire gil;
        const auto on_progress = [&](int64_t done, int64_t total) {
            if (progress) progress("prefill", done, total);
        };
        take(reader_.attr("read_prompt")(py::cpp_function(on_progress)), logits);
    }
    void read_token(int32_t token, float* logits) override {
        const py::gil_scoped_acquire gil;
        take(reader_.attr("read_token")(token), logits);
    }
    void truncate(int64_t length) override {
        const py::gil_scoped_acquire gil;
        reader_.attr("truncate")(length);
    }

  private:
    int64_t number(const char* name) const {
        const py::gil_scoped_acquire gil;
        return reader_.attr(name).cast<int64_t>();
    }
    void take(const py::object& returned, float* logits) const {
        const auto size = static_cast<py::ssize_t>(vocab_size_);
        std::copy_n(checked_array<float>(returned, "logits", {size}).data(), vocab_size_, logits);
    }

    const py::object& reader_;
    int64_t vocab_size_;
};

GenerateResult generate_with(const py::object& reader, const py::object& token_ids, int64_t vocab_size,
                             int64_t max_new_tokens, const std::vector<int32_t>& stop_token_ids,
                             bool ignore_eos, const std::optional<OnToken>& on_token,
                             const SamplingOptions& sampling, int64_t n, std::optional<int64_t> logprobs,
                             const std::optional<Progress>& on_progress) {
    const GenerateOptions options{max_new_tokens, stop_token_ids, ignore_eos, sampling, n, logprobs};
    check_generate_options(options, vocab_size);
    const auto ids = checked_array<int32_t>(token_ids, "token_ids", {"n"});
    PyReader py_reader(reader, vocab_size);
    const OnToken call = on_token.value_or(OnToken());
    const Progress progress = on_progress.value_or(Progress());
    const py::gil_scoped_release release;
    return generate(py_reader, ids.data(), ids.shape(0), options, call, progress);
}

}  // namespace

void bind_generate(py::module_& module) {
    py::class_<SamplingOptions>(module, "SamplingOptions",
                                "How the next token is chosen; csrc/model/sampler.h defines it.")
        .def(py::init([](double temperature, int64_t top_k, double top_p, double min_p,
                         double repetition_penalty, double presence_penalty, double frequency_penalty,
                         const std::map<int32_t, double>& logit_bias, uint64_t seed) {
                 return SamplingOptions{
                     temperature,       top_k,      top_p, min_p, repetition_penalty, presence_penalty,
                     frequency_penalty, logit_bias, seed};
             }),
             py::kw_only(), py::arg("temperature") = 0.0, py::arg("top_k") = 0, py::arg("top_p") = 1.0,
             py::arg("min_p") = 0.0, py::arg("repetition_penalty") = 1.0, py::arg("presence_penalty") = 0.0,
             py::arg("frequency_penalty") = 0.0, py::arg("logit_bias") = std::map<int32_t, double>(),
             py::arg("seed") = 0)
        .def("check", &check_sampling_options, py::arg("vocab_size"),
             "Raises InputError for an option out of its range.");

    py::class_<TokenLogprob>(module, "TokenLogprob")
        .def_readonly("token_id", &TokenLogprob::token)
        .def_readonly("logprob", &TokenLogprob::logprob);
    py::class_<Logprobs>(module, "Logprobs")
        .def_readonly("chosen", &Logprobs::chosen)
        .def_readonly("top", &Logprobs::top);

    py::class_<GenerateResult>(module, "GenerateResult")
        .def_readonly("token_ids", &GenerateResult::token_ids)
        .def_property_readonly("finish_reason",
                               [](const GenerateResult& r) { return name_of(r.finish_reason); })
        .def_readonly("logprobs", &GenerateResult::logprobs, "Of each token; empty if not asked for.")
        .def_readonly("prefill_s", &GenerateResult::prefill_s)
        .def_readonly("decode_s", &GenerateResult::decode_s)
        .def_readonly("alternatives", &GenerateResult::alternatives, "The answers after the first.");

    module.def(
        "generate_with", &generate_with, py::arg("reader"), py::arg("token_ids"), py::kw_only(),
        py::arg("vocab_size"), py::arg("max_new_tokens"), py::arg("stop_token_ids"), py::arg("ignore_eos"),
        py::arg("on_token"), py::arg("sampling"), py::arg("n"), py::arg("logprobs"), py::arg("on_progress"),
        "Model.generate for a text model that runs elsewhere, seen as csrc/model/generator.h's TextReader.");

    py::module_ sampling = module.def_submodule("sampling", "The sampler alone, for tests.");
    sampling.def("philox4x32", &philox4x32, py::arg("counter"), py::arg("key"));
    sampling.def("uniform", &uniform, py::arg("seed"), py::arg("sequence"), py::arg("step"));
    sampling.def(
        "log_softmax",
        [](const py::object& logits, int32_t chosen, int64_t num_top) {
            const auto values = checked_array<float>(logits, "logits", {"vocab_size"});
            if (chosen < 0 || chosen >= values.shape(0) || num_top < 0 || num_top > values.shape(0)) {
                throw InputError("chosen, num_top: outside the vocabulary");
            }
            return log_softmax(values.data(), values.shape(0), chosen, num_top);
        },
        py::arg("logits"), py::arg("chosen"), py::arg("num_top"));
    py::class_<OwningSampler>(sampling, "Sampler")
        .def(py::init<const SamplingOptions&, const py::object&, int64_t, int64_t>(), py::arg("options"),
             py::arg("prompt_ids"), py::kw_only(), py::arg("vocab_size"), py::arg("sequence") = 0)
        .def("next", &next, py::arg("logits"))
        .def("probabilities", &probabilities, "Of every token in the last draw; 0 for what was left out.");
}

}  // namespace pocketvlm
