// The blocks that quantised GGUF tensors are made of, as they lie in the file. PODs only, for ISA files.
#pragma once

#include <cstddef>
#include <cstdint>

namespace pocketvlm {

constexpr int QK8_0 = 32;  // weights per block_q8_0
constexpr int QK4_0 = 32;  // weights per block_q4_0
constexpr int QK_K = 256;  // weights per block of the k types

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

// The rest are read and never written. In blocks of 32, q[0..15] have their lowest four bits in the low
// halves of qs[0..15], q[16..31] in the high ones.

// w[i] = d * q[i] + m
struct block_q4_1 {
    uint16_t d, m;  // float16
    uint8_t qs[16];
};
static_assert(sizeof(block_q4_1) == 20 && alignof(block_q4_1) == 2);

// w[i] = d * (q[i] - 16); bit i of qh, counted from the lowest of the first byte, is bit 4 of q[i].
struct block_q5_0 {
    uint16_t d;  // float16
    uint8_t qh[4];
    uint8_t qs[16];
};
static_assert(sizeof(block_q5_0) == 22 && alignof(block_q5_0) == 2);

// w[i] = d * q[i] + m; qh as above.
struct block_q5_1 {
    uint16_t d, m;  // float16
    uint8_t qh[4];
    uint8_t qs[16];
};
static_assert(sizeof(block_q5_1) == 24 && alignof(block_q5_1) == 2);

// w[i] = d * kIq4NlValues[q[i]]
struct block_iq4_nl {
    uint16_t d;  // float16
    uint8_t qs[16];
};
static_assert(sizeof(block_iq4_nl) == 18 && alignof(block_iq4_nl) == 2);
constexpr int8_t kIq4NlValues[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                     1,    13,   25,  38,  53,  69,  89,  113};

// Part p of eight, 32 weights each: w[i] = (d * scale[p]) * q[i] - (dmin * min[p]), scales and minima of six
// bits. Those of parts 0 to 3 are the low six bits of scales[p] and of scales[4 + p]; of the others the low
// four are the halves of scales[4 + p], low and high, and the upper two the highest of scales[p - 4] and of
// scales[p]. Parts 2 j and 2 j + 1 are the low and the high halves of qs[32 j .. 32 j + 31].
struct block_q4_k {
    uint16_t d, dmin;  // float16
    uint8_t scales[12];
    uint8_t qs[QK_K / 2];
};
static_assert(sizeof(block_q4_k) == 144 && alignof(block_q4_k) == 2);

// The same, and bit p of qh[i] is bit 4 of q[i] of part p.
struct block_q5_k {
    uint16_t d, dmin;  // float16
    uint8_t scales[12];
    uint8_t qh[QK_K / 8];
    uint8_t qs[QK_K / 2];
};
static_assert(sizeof(block_q5_k) == 176 && alignof(block_q5_k) == 2);

// w[i] = (d * scales[i / 16]) * (q[i] - 32). Half h, 128 weights: q[32 n + i] has its low four bits in the
// low (n < 2) or high half of ql[64 h + 32 (n % 2) + i] and its upper two in bits 2 n and 2 n + 1 of qh[32 h
// + i].
struct block_q6_k {
    uint8_t ql[QK_K / 2];
    uint8_t qh[QK_K / 4];
    int8_t scales[QK_K / 16];
    uint16_t d;  // float16
};
static_assert(sizeof(block_q6_k) == 210 && alignof(block_q6_k) == 2);

}  // namespace pocketvlm
