// Greedy generation: prefill, then token by token until a stop token, a limit, or the caller says enough.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "base/stop_flag.h"
#include "model/model.h"

namespace pocketvlm {

struct GenerateOptions {
    int64_t max_new_tokens;
    std::vector<int32_t> stop_token_ids;
    bool ignore_eos;  // go on after a stop token
};

enum class FinishReason { stop, callback, length };

struct GenerateResult {
    std::vector<int32_t> token_ids;  // the stop token included
    FinishReason finish_reason;
    double prefill_s;  // until the first token is known
    double decode_s;   // from then on
};

// Returns true to end the generation after this token. May throw.
using OnToken = std::function<bool(int32_t token)>;

// Appends a checked prompt and what follows it to the cache. Ends with FinishReason::length at max_new_tokens
// or when the context is full. Throws InputError for a prompt that does not fit the context, Cancelled, and
// what the callbacks throw.
GenerateResult generate(const Model& model, const StopPoll& stop, const Prompt& prompt,
                        const GenerateOptions& options, KvCache& cache, const OnToken& on_token,
                        const Progress& progress);

}  // namespace pocketvlm
