// What blocks of the many types have in common: 32 weights are integers of 8 bits, times a scale for each
// sixteen, plus an offset. Exact, so that types which have no kernels of their own can run.
#pragma once

#include <cstdint>

#include "quant/quant_type.h"

namespace pocketvlm {

constexpr int kAffineBlock = 32;

// w[i] = scales[i / 16] * values[i] + offset, each operation rounded to float32.
struct AffineBlock {
    float scales[2];
    float offset;  // -0 where the type has none: it leaves a sum of zero its sign
    int8_t values[kAffineBlock];
};

// Weights 32 b .. 32 b + 31 of a row that starts at src. For the types without a float32, float16 or bfloat16
// for each weight, but for q4_0 and q8_0, which have kernels.
AffineBlock affine_block(QuantType type, const void* src, int64_t b) noexcept;

// The same as a block of q8_0, for the types that are a float16 scale times integers: q5_0 and iq4_nl.
block_q8_0 as_q8_0(const block_q5_0& block) noexcept;
block_q8_0 as_q8_0(const block_iq4_nl& block) noexcept;

}  // namespace pocketvlm
