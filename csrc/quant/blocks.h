// The blocks that quantised GGUF tensors are made of, as they lie in the file. PODs only, for ISA files.
#pragma once

#include <cstddef>
#include <cstdint>

namespace pocketvlm {

constexpr int QK8_0 = 32;  // weights per block_q8_0
constexpr int QK4_0 = 32;  // weights per block_q4_0

// w[i] = d * qs[i]
struct block_q8_0 {
    uint16_t d;  // float16
    int8_t qs[QK8_0];
};
static_assert(sizeof(block_q8_0) == 34 && alignof(block_q8_0) == 2 && offsetof(block_q8_0, qs) == 2);

// w[i] = d * (q[i] - 8); q[0..15] are the low halves of qs[0..15], q[16..31] the high halves.
struct block_q4_0 {
    uint16_t d;  // float16
    uint8_t qs[QK4_0 / 2];
};
static_assert(sizeof(block_q4_0) == 18 && alignof(block_q4_0) == 2 && offsetof(block_q4_0, qs) == 2);

}  // namespace pocketvlm
