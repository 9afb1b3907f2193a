#include "model/sampler.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>

#include "base/check.h"
#include "base/philox.h"

namespace pocketvlm {
namespace {

constexpr float kForbidden = -std::numeric_limits<float>::infinity();

void require(bool fits, const char* option, double found, const char* expected) {
    if (!fits) throw InputError(concat(option, ": ", found, ", expected ", expected));
}

bool changes_scores(const SamplingOptions& options) {
    return options.repetition_penalty != 1 || options.presence_penalty != 0 ||
           options.frequency_penalty != 0 || !options.logit_bias.empty();
}

bool looks_back(const SamplingOptions& options) {
    return options.repetition_penalty != 1 || options.presence_penalty != 0 || options.frequency_penalty != 0;
}

// In lanes, because one running maximum would wait for itself at every step.
float largest(const float* scores, int64_t count) {
    constexpr int64_t kLanes = 16;
    float lanes[kLanes];
    std::fill_n(lanes, kLanes, scores[0]);
    int64_t i = 0;
    for (; i + kLanes <= count; i += kLanes) {
        for (int64_t j = 0; j < kLanes; ++j) lanes[j] = lanes[j] < scores[i + j] ? scores[i + j] : lanes[j];
    }
    for (; i < count; ++i) lanes[0] = std::max(lanes[0], scores[i]);
    return *std::max_element(lanes, lanes + kLanes);
}

// The first of the largest, as numpy.argmax and torch.argmax choose.
int32_t argmax(const float* scores, int64_t count) {
    return static_cast<int32_t>(std::find(scores, scores + count, largest(scores, count)) - scores);
}

// Looks at bits, of which the compiler's baseline vector instructions compare several at once.
void require_finite(const float* logits, int64_t count) {
    constexpr uint32_t kExponent = 0x7f800000;  // all set: infinity or NaN
    uint32_t found = 0;
    for (int64_t i = 0; i < count; ++i) {
        uint32_t bits;
        std::memcpy(&bits, logits + i, sizeof(bits));
        found |= static_cast<uint32_t>((bits & kExponent) == kExponent);
    }
    if (found == 0) return;
    const float* bad = std::find_if(logits, logits + count, [](float x) { return !std::isfinite(x); });
    throw InputError(concat("logits: found ", *bad, " for token ", bad - logits, ", expected finite values"));
}

// Minus infinity is a token that cannot be; with plus infinity there is no softmax.
void require_below_infinity(float score, const char* option) {
    require(score < std::numeric_limits<float>::infinity(), option, score, "finite scores");
}

// The order of a ranking: from the top down, the lower id first among equals.
bool likelier(const Sampler::Candidate& a, const Sampler::Candidate& b) {
    return a.weight != b.weight ? a.weight > b.weight : a.token < b.token;
}

}  // namespace

void check_sampling_options(const SamplingOptions& options, int64_t vocab_size) {
    const auto finite = [](double x) { return std::abs(x) <= std::numeric_limits<float>::max(); };
    require(finite(options.temperature) && options.temperature >= 0, "temperature", options.temperature,
            "a finite number, 0 or more");
    require(options.top_k >= 0, "top_k", static_cast<double>(options.top_k), "0 (all) or more");
    require(options.top_p > 0 && options.top_p <= 1, "top_p", options.top_p,
            "a number above 0 and at most 1");
    require(options.min_p >= 0 && options.min_p <= 1, "min_p", options.min_p, "a number from 0 to 1");
    require(finite(options.repetition_penalty) && static_cast<float>(options.repetition_penalty) > 0,
            "repetition_penalty", options.repetition_penalty, "a finite number above 0");
    require(finite(options.presence_penalty), "presence_penalty", options.presence_penalty,
            "a finite number");
    require(finite(options.frequency_penalty), "frequency_penalty", options.frequency_penalty,
            "a finite number");
    for (const auto& [token, bias] : options.logit_bias) {
        if (token < 0 || token >= vocab_size) {
            throw InputError(
                concat("logit_bias: token ", token, ", expected an id of 0 to ", vocab_size - 1));
        }
        require(finite(bias) || bias == -std::numeric_limits<double>::infinity(), "logit_bias", bias,
                "a finite number or -infinity");
    }
}

double uniform(uint64_t seed, uint64_t sequence, uint64_t step) {
    const auto low = [](uint64_t x) { return static_cast<uint32_t>(x); };
    const auto high = [](uint64_t x) { return static_cast<uint32_t>(x >> 32); };
    const PhiloxCounter bits =
        philox4x32({low(step), high(step), low(sequence), high(sequence)}, {low(seed), high(seed)});
    return static_cast<double>((uint64_t{bits[1]} << 32 | bits[0]) >> 11) * 0x1p-53;
}

Sampler::Sampler(const SamplingOptions& options, int64_t vocab_size, const int32_t* prompt_ids,
                 int64_t num_prompt_ids, int64_t sequence)
    : options_(options), vocab_size_(vocab_size), sequence_(static_cast<uint64_t>(sequence)) {
    const auto size = static_cast<size_t>(vocab_size);
    if (looks_back(options)) {
        for (int64_t i = 0; i < num_prompt_ids; ++i) counts_.emplace(prompt_ids[i], 0);
    }
    if (changes_scores(options)) scores_.resize(size);
    if (options.temperature == 0) return;
    candidates_.reserve(size);
    if (options.top_k > 0 && options.top_k < vocab_size) largest_.resize(size);
    if (options.top_p < 1) ranked_.reserve(size);
}

int32_t Sampler::next(const float* logits) {
    require_finite(logits, vocab_size_);
    const float* scores = score(logits);
    int32_t token;
    if (options_.temperature == 0) {
        token = argmax(scores, vocab_size_);
    } else {
        keep_candidates(scores);
        token = draw();
    }
    if (looks_back(options_)) ++counts_[token];
    ++step_;
    return token;
}

// Penalties and bias. Returns the scores, [vocab_size]: the logits themselves where nothing changes them.
const float* Sampler::score(const float* logits) {
    if (!changes_scores(options_)) return logits;
    std::copy_n(logits, vocab_size_, scores_.data());

    const auto repetition = static_cast<float>(options_.repetition_penalty);
    const auto presence = static_cast<float>(options_.presence_penalty);
    const auto frequency = static_cast<float>(options_.frequency_penalty);
    for (const auto& [token, count] : counts_) {
        float& score = scores_[static_cast<size_t>(token)];
        score = score < 0 ? score * repetition : score / repetition;
        if (count > 0) {
            score -= frequency * static_cast<float>(count);
            score -= presence;
        }
        require_below_infinity(score, "penalties");
    }
    for (const auto& [token, bias] : options_.logit_bias) {
        float& score = scores_[static_cast<size_t>(token)];
        score += static_cast<float>(bias);
        require_below_infinity(score, "logit_bias");
    }
    if (largest(scores_.data(), vocab_size_) == kForbidden) {
        throw InputError("logit_bias: forbids every token, expected one to be left");
    }
    return scores_.data();
}

// Temperature and filters: fills candidates_, in the order of ids.
void Sampler::keep_candidates(const float* scores) {
    const double best = largest(scores, vocab_size_);
    float floor = std::numeric_limits<float>::lowest();
    if (!largest_.empty()) {
        const auto kth = largest_.begin() + (options_.top_k - 1);
        std::copy_n(scores, vocab_size_, largest_.begin());
        std::nth_element(largest_.begin(), kth, largest_.end(), std::greater<float>());
        floor = std::max(floor, *kth);
    }
    candidates_.clear();
    for (int64_t token = 0; token < vocab_size_; ++token) {
        if (scores[token] < floor) continue;
        const double weight = std::exp((scores[token] - best) / options_.temperature);
        candidates_.push_back({static_cast<int32_t>(token), weight});
    }
    if (options_.top_p < 1) keep_top_p();
    if (options_.min_p > 0) {
        const auto unlikely = [&](const Candidate& c) { return c.weight < options_.min_p; };
        candidates_.erase(std::remove_if(candidates_.begin(), candidates_.end(), unlikely),
                          candidates_.end());
    }
}

void Sampler::keep_top_p() {
    double total = 0;
    for (const Candidate& candidate : candidates_) total += candidate.weight;
    const double enough = options_.top_p * total;

    // To sort a whole vocabulary would cost as much as a small model's forward pass. Tokens below this weight
    // are too light to reach, all together, half of what is left out.
    const double negligible = 0.5 * (total - enough) / static_cast<double>(candidates_.size());
    ranked_.clear();
    for (const Candidate& candidate : candidates_) {
        if (candidate.weight >= negligible) ranked_.push_back(candidate);
    }
    std::sort(ranked_.begin(), ranked_.end(), likelier);
    auto last = ranked_.begin();
    for (double sum = last->weight; sum < enough && last + 1 != ranked_.end(); sum += last->weight) ++last;
    const auto beyond = [&](const Candidate& c) { return likelier(*last, c); };
    candidates_.erase(std::remove_if(candidates_.begin(), candidates_.end(), beyond), candidates_.end());
}

int32_t Sampler::draw() const {
    double total = 0;
    for (const Candidate& candidate : candidates_) total += candidate.weight;
    const double point = uniform(options_.seed, sequence_, step_) * total;
    double sum = 0;
    for (const Candidate& candidate : candidates_) {
        sum += candidate.weight;
        if (sum > point) return candidate.token;
    }
    // Not reached: u < 1 makes point < total, and the sum ends at total.
    return candidates_.back().token;
}

Logprobs log_softmax(const float* logits, int64_t vocab_size, int32_t chosen, int64_t num_top) {
    const double best = largest(logits, vocab_size);
    double sum = 0;
    for (int64_t i = 0; i < vocab_size; ++i) sum += std::exp(logits[i] - best);
    const double log_total = best + std::log(sum);

    // A heap of the best so far, the least of them in front.
    std::vector<int32_t> top;
    const auto before = [&](int32_t a, int32_t b) {
        return logits[a] != logits[b] ? logits[a] > logits[b] : a < b;
    };
    for (int32_t token = 0; num_top > 0 && token < vocab_size; ++token) {
        if (static_cast<int64_t>(top.size()) == num_top) {
            if (!before(token, top.front())) continue;
            std::pop_heap(top.begin(), top.end(), before);
            top.pop_back();
        }
        top.push_back(token);
        std::push_heap(top.begin(), top.end(), before);
    }
    std::sort_heap(top.begin(), top.end(), before);

    Logprobs logprobs{logits[chosen] - log_total, {}};
    for (const int32_t token : top) logprobs.top.push_back({token, logits[token] - log_total});
    return logprobs;
}

}  // namespace pocketvlm
