// Attention over one block of keys at a time, with a running softmax (Milakov and Gimelshein, "Online
// normalizer calculation for softmax", 2018), so that no score matrix is ever held whole.
//
//   s[r, j] = sum_d q[r, d] * k[d, j]                     for j < visible[r]
//   m' = max(m, max_j s);  p[r, j] = exp(s[r, j] - m')
//   sum = sum * exp(m - m') + sum_j p;  acc[r, :] = acc[r, :] * exp(m - m') + sum_j p[r, j] * v[j, :]
//
// Start with max = -infinity, sum = 0 and acc = 0; the result is acc / sum. Close, not exact: the order of
// the sums is each row's own, and never depends on threads.
#pragma once

#include <cstdint>

#include "base/half.h"

namespace pocketvlm {

// Positions per block of keys and values, here and in the KV cache.
constexpr int kKeyBlock = 128;

// Values are padded with zeros to whole vectors of every instruction set.
constexpr int kValueAlignment = 16;
constexpr int64_t padded_head_dim(int64_t head_dim) {
    return (head_dim + kValueAlignment - 1) / kValueAlignment * kValueAlignment;
}

// Keys and values in float32 or float16; all arithmetic is in float32.
template <typename T>
struct AttentionBlock {
    const float* q;  // [rows, q_stride], scaled by 1 / sqrt(head_dim)
    int64_t q_stride;
    const T* k;  // [head_dim, kKeyBlock]: keys are columns; unseen ones may hold any finite values
    const T* v;  // [kKeyBlock, value_dim]; likewise
    const int32_t* visible;  // [rows]: how many keys of this block a row sees, 0..kKeyBlock
    int64_t rows;
    int64_t head_dim;
    int64_t value_dim;  // padded_head_dim(head_dim)
    float* scores;      // [rows, kKeyBlock], scratch
    float* max;         // [rows]
    float* sum;         // [rows]
    float* acc;         // [rows, value_dim]
};

// The same with queries, keys and values in bfloat16, scores being scaled in float32. Weights p are rounded
// to bfloat16 before they meet values, and are accurate to 2^-12 before that; scores, sums and acc are in
// float32. key_dim is head_dim rounded up to kBf16Pairs: keys are zero there, and queries, whatever is there,
// finite. The buffers of queries, scores and acc have room for rows rounded up to kBf16QueryRows; what lies
// behind `rows` is scratch.
constexpr int kBf16Pairs = 32;
constexpr int kBf16QueryRows = 16;
struct AttentionBlockBf16 {
    const BFloat16* q;  // [rows, q_stride]
    int64_t q_stride;
    float scale;             // of the scores: 1 / sqrt(head_dim)
    const BFloat16* k;       // [key_dim / 2, kKeyBlock, 2]
    const BFloat16* v;       // [kKeyBlock / 2, value_dim, 2]
    const int32_t* visible;  // [rows]
    int64_t rows;
    int64_t key_dim;
    int64_t value_dim;  // a multiple of kValueAlignment
    float* scores;      // [rows, kKeyBlock], scratch
    float* max;         // [rows], of the scores before they are scaled, or near: no weight is above 2^8
    float* sum;         // [rows]
    float* acc;         // [rows, value_dim]
};

using AttendBlockBf16 = void(const AttentionBlockBf16& block) noexcept;
using AttendBlockF32 = void(const AttentionBlock<float>& block) noexcept;
using AttendBlockF16 = void(const AttentionBlock<Float16>& block) noexcept;

namespace scalar {
AttendBlockF32 attend_block_f32;
AttendBlockF16 attend_block_f16;
AttendBlockBf16 attend_block_bf16;
}  // namespace scalar

namespace avx2 {
AttendBlockF32 attend_block_f32;
AttendBlockF16 attend_block_f16;
}  // namespace avx2

namespace avx512 {
AttendBlockF32 attend_block_f32;
AttendBlockF16 attend_block_f16;
}  // namespace avx512

namespace avx512_bf16 {
AttendBlockBf16 attend_block_bf16;
}  // namespace avx512_bf16

namespace amx {
AttendBlockBf16 attend_block_bf16;
}  // namespace amx

}  // namespace pocketvlm
