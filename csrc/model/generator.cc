#include "model/generator.h"

#include <algorithm>
#include <chrono>

#include "base/check.h"

namespace pocketvlm {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
    return std::chrono::duration<double>(Clock::now() - start).count();
}

// Answers a prompt that is in the cache. logits: those of its last position, [vocab_size]; overwritten.
GenerateResult decode(const Model& model, const StopPoll& stop, const Prompt& prompt,
                      const GenerateOptions& options, int64_t sequence, TextSession& session, float* logits,
                      const OnToken& on_token, const Progress& progress) {
    const int64_t vocab_size = model.text.config.vocab_size;
    const auto is_stop = [&](int32_t token) {
        const std::vector<int32_t>& ids = options.stop_token_ids;
        return !options.ignore_eos && std::find(ids.begin(), ids.end(), token) != ids.end();
    };
    GenerateResult result{{}, FinishReason::length, {}, 0, 0, {}};
    result.token_ids.reserve(
        static_cast<size_t>(std::min(options.max_new_tokens, session.cache.max_positions())));
    const Clock::time_point start = Clock::now();
    Sampler sampler(options.sampling, vocab_size, prompt.token_ids, prompt.num_tokens, sequence);
    while (true) {
        const int32_t token = sampler.next(logits);
        result.token_ids.push_back(token);
        if (options.logprobs) {
            result.logprobs.push_back(log_softmax(logits, vocab_size, token, *options.logprobs));
        }
        const auto num_tokens = static_cast<int64_t>(result.token_ids.size());
        if (progress) progress("decode", num_tokens, options.max_new_tokens);
        const bool enough = on_token && on_token(token, sequence);
        if (is_stop(token)) {
            result.finish_reason = FinishReason::stop;
            break;
        }
        if (enough) {
            result.finish_reason = FinishReason::callback;
            break;
        }
        if (num_tokens == options.max_new_tokens || session.cache.length() == session.cache.max_positions())
            break;
        // A generated image token stands for its own embedding: no id of the prompt is an image token here.
        prefill(model.text, model.compute(), stop, {&token, 1, nullptr, 0, -1}, session, logits);
    }
    result.decode_s = seconds_since(start);
    return result;
}

}  // namespace

void check_generate_options(const GenerateOptions& options, int64_t vocab_size) {
    const auto at_least_one = [](const char* option, int64_t found) {
        if (found < 1) throw InputError(concat(option, ": ", found, ", expected at least 1"));
    };
    at_least_one("max_new_tokens", options.max_new_tokens);
    at_least_one("n", options.n);
    if (options.logprobs && (*options.logprobs < 0 || *options.logprobs > vocab_size)) {
        throw InputError(
            concat("logprobs: ", *options.logprobs, ", expected 0 to ", vocab_size, ", the vocabulary"));
    }
    check_sampling_options(options.sampling, vocab_size);
}

GenerateResult generate(const Model& model, const StopPoll& stop, const Prompt& prompt,
                        const GenerateOptions& options, TextSession& session, const OnToken& on_token,
                        const Progress& progress) {
    std::vector<float> logits(static_cast<size_t>(model.text.config.vocab_size));
    const Clock::time_point start = Clock::now();
    prefill(model.text, model.compute(), stop, prompt, session, logits.data(),
            [&](int64_t done, int64_t total) {
                if (progress) progress("prefill", done, total);
            });
    const double prefill_s = seconds_since(start);

    const int64_t prompt_end = session.cache.length();
    const std::vector<float> prompt_logits = options.n > 1 ? logits : std::vector<float>();
    GenerateResult first =
        decode(model, stop, prompt, options, 0, session, logits.data(), on_token, progress);
    first.prefill_s = prefill_s;
    for (int64_t sequence = 1; sequence < options.n; ++sequence) {
        session.cache.truncate(prompt_end);
        logits = prompt_logits;
        first.alternatives.push_back(
            decode(model, stop, prompt, options, sequence, session, logits.data(), on_token, progress));
        first.alternatives.back().prefill_s = prefill_s;
    }
    return first;
}

}  // namespace pocketvlm
