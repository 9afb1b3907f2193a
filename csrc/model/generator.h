// Generation: prefill once, then for each answer token by token until a stop token, a limit, or the caller
// says enough. Which token comes next is the sampler's choice.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "base/stop_flag.h"
#include "model/model.h"
#include "model/sampler.h"

namespace pocketvlm {

struct GenerateOptions {
    int64_t max_new_tokens;
    std::vector<int32_t> stop_token_ids;
    bool ignore_eos;  // go on after a stop token
    SamplingOptions sampling;
    int64_t n;                        // answers; at temperature 0 they are all alike
    std::optional<int64_t> logprobs;  // with how many of the likeliest; none: no logprobs
};

enum class FinishReason { stop, callback, length };

struct GenerateResult {
    std::vector<int32_t> token_ids;  // the stop token included
    FinishReason finish_reason;
    std::vector<Logprobs> logprobs;  // of each token, if asked for
    double prefill_s;                // until the logits of the first token are known; once for all answers
    double decode_s;                 // from then on
    std::vector<GenerateResult> alternatives;  // answers 1 to n - 1
};

// Returns true to end the answer after this token. `sequence` is the answer's number; they come one after the
// other. May throw.
using OnToken = std::function<bool(int32_t token, int64_t sequence)>;

// A text model with a prompt, as generation sees it: it reads the prompt and then token by token, and each
// time writes the logits of the last position, [vocab_size]. What runs it may be another engine.
class TextReader {
  public:
    virtual ~TextReader() = default;

    virtual int64_t vocab_size() const = 0;
    virtual int64_t max_positions() const = 0;
    virtual int64_t length() const = 0;  // positions read so far
    virtual void read_prompt(float* logits, const Progress& progress) = 0;
    virtual void read_token(int32_t token, float* logits) = 0;
    virtual void truncate(int64_t length) = 0;  // forgets all positions from `length` on
};

// Throws InputError for an option out of its range.
void check_generate_options(const GenerateOptions& options, int64_t vocab_size);

// Appends a checked prompt and what follows it to the cache, by checked options; of several answers the last
// one is in the cache afterwards. An answer ends with FinishReason::length at max_new_tokens or when the
// context is full. Throws InputError for a prompt that does not fit the context or logits that are not
// finite, Cancelled, and what the callbacks throw.
GenerateResult generate(const Model& model, const StopPoll& stop, const Prompt& prompt,
                        const GenerateOptions& options, TextSession& session, const OnToken& on_token,
                        const Progress& progress);

// The same for any reader, whose prompt has these tokens. Throws InputError for logits that are not finite,
// and what the reader and the callbacks throw.
GenerateResult generate(TextReader& reader, const int32_t* token_ids, int64_t num_tokens,
                        const GenerateOptions& options, const OnToken& on_token, const Progress& progress);

}  // namespace pocketvlm
