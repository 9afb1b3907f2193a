// Chooses the next token from logits. When to stop, and what to do with a token, is left to the generator.
//
// Steps, in the order and with the arithmetic of transformers' logits processors:
//   repetition_penalty  every token in prompt or answer: score = score < 0 ? score * p : score / p
//   frequency_penalty   every token in the answer: score -= p * its number there (OpenAI's definition)
//   presence_penalty    every token in the answer: score -= p (likewise)
//   logit_bias          score += bias; -infinity forbids a token
// Up to here in float32. Temperature 0 takes the first of the largest scores. Any other goes on in float64:
//   temperature         weight = exp((score - largest score) / temperature)
//   top_k               keeps the k largest, and whatever equals the last of them
//   top_p               keeps a token if those before it, from the largest down, weigh less than top_p of the
//                       whole; the lower id comes first among equals
//   min_p               keeps a token of at least min_p times the largest weight
// The draw is by inverse CDF over what was kept, in the order of ids: the first token at which the running
// sum of weights exceeds u times their sum. u is in [0, 1): the 53 upper bits of the first two words, the
// second one high, of philox4x32 with the seed as key and {step, sequence} as counter, each 64 bits wide, low
// word first. So a token depends on logits, options, seed, its place in the answer and the answer's number,
// on nothing else.
#pragma once

#include <cstdint>
#include <map>
#include <unordered_map>
#include <vector>

namespace pocketvlm {

struct SamplingOptions {
    double temperature = 0;  // 0: greedy
    int64_t top_k = 0;       // 0: all
    double top_p = 1;
    double min_p = 0;
    double repetition_penalty = 1;
    double presence_penalty = 0;
    double frequency_penalty = 0;
    std::map<int32_t, double> logit_bias;
    uint64_t seed = 0;
};

// Throws InputError for an option out of its range.
void check_sampling_options(const SamplingOptions& options, int64_t vocab_size);

// The random number, in [0, 1), of one step of one sequence.
double uniform(uint64_t seed, uint64_t sequence, uint64_t step);

class Sampler {
  public:
    struct Candidate {
        int32_t token;
        double weight;  // 1 for the likeliest
    };

    // Samples the answer numbered `sequence` to a prompt [num_prompt_ids]. `options` were checked and outlive
    // the sampler.
    Sampler(const SamplingOptions& options, int64_t vocab_size, const int32_t* prompt_ids,
            int64_t num_prompt_ids, int64_t sequence);

    // Returns the token that follows, by its logits [vocab_size]. Throws InputError if one of them is not
    // finite, if a penalty makes a score infinite, or if logit_bias forbids every token.
    int32_t next(const float* logits);

    // What the last draw was from, in the order of ids; empty at temperature 0.
    const std::vector<Candidate>& candidates() const noexcept { return candidates_; }

  private:
    const float* score(const float* logits);
    void keep_candidates(const float* scores);
    void keep_top_p();
    int32_t draw() const;

    const SamplingOptions& options_;
    int64_t vocab_size_;
    uint64_t sequence_;
    uint64_t step_ = 0;
    std::unordered_map<int32_t, int64_t> counts_;  // token of prompt or answer -> its number in the answer
    // Room for the whole vocabulary, made once; empty where the options do not need it.
    std::vector<float> scores_;
    std::vector<float> largest_;
    std::vector<Candidate> candidates_;
    std::vector<Candidate> ranked_;
};

struct TokenLogprob {
    int32_t token;
    double logprob;
};

// The log softmax of logits as the model gave them, before any step above.
struct Logprobs {
    double chosen;                  // of the token that was taken
    std::vector<TokenLogprob> top;  // the likeliest, from the top down; the lower id first among equals
};

// logits: [vocab_size], finite. 0 <= num_top <= vocab_size.
Logprobs log_softmax(const float* logits, int64_t vocab_size, int32_t chosen, int64_t num_top);

}  // namespace pocketvlm
