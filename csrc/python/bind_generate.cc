// What _core.Model.generate takes and returns, and _core.sampling: the sampler alone, on logits of a test's
// own.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <map>
#include <memory>
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
