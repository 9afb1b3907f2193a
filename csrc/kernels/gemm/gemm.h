// Matrix products with packed weights; one kernel serves every number of rows (gemv is rows = 1).
//
//   y[r, c] = (accumulate ? y[r, c] : 0) + bias[c] + sum_k x[r, k] * w[c, k]
//
// Weights are packed once, at load, into panels of nr columns (output features), the same nr for all types of
// an instruction set; a call computes one panel. The last panel of a matrix is padded with zero weights, and
// `columns` says how many of its columns are real. Close, not exact: the order of float additions over k is
// each kernel's own; it never depends on `rows` or on threads.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/half.h"

namespace pocketvlm {

// Where a panel's results go.
struct GemmOutput {
    float* y;  // [rows, y_stride], at the panel's first column
    int64_t y_stride;
    int64_t columns;    // 1..nr
    const float* bias;  // [columns] at the panel's first column, or null
    bool accumulate;    // add to what y holds
};

// Weights in a float format, activations in float32. panel: [k, nr], 64-byte aligned. x: [rows, x_stride].
using GemmFloat = void(const float* x, int64_t x_stride, int64_t rows, const std::byte* panel, int64_t k,
                       const GemmOutput& output) noexcept;

// Activations in blocks of 32 along k, num_blocks = ceil(k / 32), as quantize_row_i8 writes them: products
// rely on the few significant bits of its scales.
constexpr int kI8Block = 32;
struct I8Rows {
    const int8_t* values;  // [rows, num_blocks, 32]
    const float* scales;   // [rows, num_blocks]
    const int32_t* sums;   // [rows, num_blocks], the sum of a block's values
    int64_t rows;
    int64_t num_blocks;
};

// Weights in blocks of 32 along k with a float16 scale each; the integer dot product of a block is exact.
// panel: for each block, [nr] scales and then the bytes:
//   int8: [8, nr, 4], column c's weights 4 i .. 4 i + 3 at [i, c, :], stored as w + weight_offset (0: signed
//   bytes;
//         128: unsigned bytes)
//   int4: [4, nr, 4], column c's weights 4 i .. 4 i + 3 in the low halves at [i, c, :], 16 + 4 i .. in the
//   high
//         halves, stored as w + 8, as q4_0 has them
using GemmI8 = void(const I8Rows& x, const std::byte* panel, const GemmOutput& output) noexcept;

constexpr int kI4Offset = 8;
constexpr int64_t i8_panel_block_bytes(int nr) { return int64_t{nr} * (2 + kI8Block); }
constexpr int64_t i4_panel_block_bytes(int nr) { return int64_t{nr} * (2 + kI8Block / 2); }

// Where a panel's results go when what reads them reads bfloat16 too: to y in float32, or, where y is null,
// rounded to y_bf16, after GELU if that is asked (kernels/elementwise/elementwise.h; to 2^-12, as much as
// rounding leaves).
struct GemmBf16Output {
    GemmOutput f32;
    BFloat16* y_bf16 = nullptr;  // [rows, f32.y_stride], at the panel's first column
    bool gelu_tanh = false;
};

// Weights and activations in bfloat16, sums in float32. k is a multiple of kBf16Block.
// x: [rows, x_stride]. panel: [k / 2, nr, 2], 64-byte aligned: two neighbours along k lie side by side.
constexpr int kBf16Block = 32;
constexpr int64_t bf16_padded(int64_t k) { return (k + kBf16Block - 1) / kBf16Block * kBf16Block; }
using GemmBf16 = void(const BFloat16* x, int64_t x_stride, int64_t rows, const BFloat16* panel, int64_t k,
                      const GemmBf16Output& output) noexcept;

namespace scalar {
constexpr int kGemmNr = 16;
GemmFloat gemm_f32, gemm_f16, gemm_bf16;
GemmI8 gemm_i8, gemm_i4;
GemmBf16 gemm_bf16_bf16;
}  // namespace scalar

namespace avx2 {
constexpr int kGemmNr = 16;
GemmFloat gemm_f32, gemm_f16, gemm_bf16;
GemmI8 gemm_i8, gemm_i4;
}  // namespace avx2

namespace avx512 {
constexpr int kGemmNr = 64;
GemmFloat gemm_f32, gemm_f16, gemm_bf16;
GemmI8 gemm_i8, gemm_i4;
}  // namespace avx512

namespace avx512_vnni {
constexpr int kGemmNr = avx512::kGemmNr;
constexpr int kWeightOffset = 128;
GemmI8 gemm_i8, gemm_i4;
constexpr int64_t kManyRows = 12;  // from so many on the others leave the work to these
GemmI8 gemm_i8_many, gemm_i4_many;
}  // namespace avx512_vnni

namespace avx512_bf16 {
GemmBf16 gemm_bf16_bf16;
}  // namespace avx512_bf16

namespace amx {
GemmBf16 gemm_bf16_bf16;
}  // namespace amx

}  // namespace pocketvlm
