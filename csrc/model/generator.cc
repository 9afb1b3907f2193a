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

// Answers a prompt that was read. logits: those of its last position, [vocab_size]; overwritten.
GenerateResult decode(TextReader& reader, const int32_t* token_ids, int64_t num_prompt_tokens,
                      const GenerateOptions& options, int64_t sequence, float* logits,
                      const OnToken& on_token, const Progress& progress) {
    const int64_t vocab_size = reader.vocab_size();
    const auto is_stop = [&](int32_t token) {
        const std::vector<int32_t>& ids = options.stop_token_ids;
        return !options.ignore_eos && std::find(ids.begin(), ids.end(), token) != ids.end();
    };
    GenerateResult result{{}, FinishReason::length, {}, 0, 0, {}};
    result.token_ids.reserve(static_cast<size_t>(std::min(options.max_new_tokens, reader.max_positions())));
    const Clock::time_point start = Clock::now();
    Sampler sampler(options.sampling, vocab_size, token_ids, num_prompt_tokens, sequence);
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
        if (num_tokens == options.max_new_tokens || reader.length() == reader.max_positions()) break;
        reader.read_token(token, logits);
    }
    result.decode_s = seconds_since(start);
    return result;
}

// Our own model, a prompt, and the session that it is read into.
class SessionReader final : public TextReader {
  public:
    SessionReader(const Model& model, const StopPoll& stop, const Prompt& prompt, TextSession& session)
        : model_(model), stop_(stop), prompt_(prompt), session_(session) {}

    int64_t vocab_size() const override { return model_.text.config.vocab_size; }
    int64_t max_positions() const override { return session_.cache.max_positions(); }
    int64_t length() const override { return session_.cache.length(); }

    void read_prompt(float* logits, const Progress& progress) override {
        prefill(model_.text, model_.compute(), stop_, prompt_, session_, logits,
                [&](int64_t done, int64_t total) {
                    if (progress) progress("prefill", done, total);
                });
    }
    void read_token(int32_t token, float* logits) override {
        // A generated image token stands for its own embedding: no id of this prompt is an image token.
        prefill(model_.text, model_.compute(), stop_, {&token, 1, nullptr, 0, -1}, session_, logits);
    }
    void truncate(int64_t length) override { session_.cache.truncate(length); }

  private:
    const Model& model_;
    const StopPoll& stop_;
    const Prompt& prompt_;
    TextSession& session_;
};

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
    SessionReader reader(model, stop, prompt, session);
    return generate(reader, prompt.token_ids, prompt.num_tokens, options, on_token, progress);
}

GenerateResult generate(TextReader& reader, const int32_t* token_ids, int64_t num_tokens,
                        const GenerateOptions& options, const OnToken& on_token, const Progress& progress) {
    std::vector<float> logits(static_cast<size_t>(reader.vocab_size()));
    const Clock::time_point start = Clock::now();
    reader.read_prompt(logits.data(), progress);
    const double prefill_s = seconds_since(start);

    const int64_t prompt_end = reader.length();
    const std::vector<float> prompt_logits = options.n > 1 ? logits : std::vector<float>();
    const auto answer = [&](int64_t sequence) {
        GenerateResult result =
            decode(reader, token_ids, num_tokens, options, sequence, logits.data(), on_token, progress);
        result.prefill_s = prefill_s;
        return result;
    };
    GenerateResult first = answer(0);
    for (int64_t sequence = 1; sequence < options.n; ++sequence) {
        reader.truncate(prompt_end);
        logits = prompt_logits;
        first.alternatives.push_back(answer(sequence));
    }
    return first;
}

}  // namespace pocketvlm
