#include "model/generator.h"

#include <algorithm>
#include <chrono>

namespace pocketvlm {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
    return std::chrono::duration<double>(Clock::now() - start).count();
}

// The first of the largest, as numpy.argmax and torch.argmax choose.
int32_t argmax(const std::vector<float>& logits) {
    return static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

}  // namespace

GenerateResult generate(const Model& model, const StopPoll& stop, const Prompt& prompt,
                        const GenerateOptions& options, KvCache& cache, const OnToken& on_token,
                        const Progress& progress) {
    const Compute compute = model.compute();
    std::vector<float> logits(static_cast<size_t>(model.text.config.vocab_size));
    GenerateResult result{{}, FinishReason::length, 0, 0};

    const Clock::time_point start = Clock::now();
    prefill(model.text, compute, stop, prompt, cache, logits.data(), [&](int64_t done, int64_t total) {
        if (progress) progress("prefill", done, total);
    });
    result.prefill_s = seconds_since(start);

    const Clock::time_point first_token = Clock::now();
    const auto is_stop = [&](int32_t token) {
        const std::vector<int32_t>& ids = options.stop_token_ids;
        return !options.ignore_eos && std::find(ids.begin(), ids.end(), token) != ids.end();
    };
    while (static_cast<int64_t>(result.token_ids.size()) < options.max_new_tokens) {
        const int32_t token = argmax(logits);
        result.token_ids.push_back(token);
        const bool enough = on_token && on_token(token);
        if (is_stop(token)) {
            result.finish_reason = FinishReason::stop;
            break;
        }
        if (enough) {
            result.finish_reason = FinishReason::callback;
            break;
        }
        const bool more = static_cast<int64_t>(result.token_ids.size()) < options.max_new_tokens;
        if (!more || cache.length() == cache.max_positions()) break;
        // A generated image token stands for its own embedding: no id of the prompt is an image token here.
        prefill(model.text, compute, stop, {&token, 1, nullptr, 0, -1}, cache, logits.data());
    }
    result.decode_s = seconds_since(first_token);
    return result;
}

}  // namespace pocketvlm
