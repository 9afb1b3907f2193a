// Matrix products with packed weights; one kernel serves every number of rows (gemv is rows = 1).
//
//   y[r, c] = (accumulate ? y[r, c] : 0) + bias[c] + sum_k x[r, k] * w[c, k]
//
// Weights are packed once, at load, into panels of nr columns (output features); a call computes one panel.
// The last panel of a matrix is padded with zero weights, and `columns` says how many of its columns are
// real. Close, not exact: the order of float additions over k is each row's own; it never depends on `rows`
// or on threads.
#pragma once

#include <cstddef>
#include <cstdint>

namespace pocketvlm {

// Where a panel's results go.
struct GemmOutput {
    float* y;  // [rows, y_stride], at the panel's first column
    int64_t y_stride;
    int64_t columns;    // 1..nr
    const float* bias;  // [columns] at the panel's first column, or null
    bool accumulate;    // add to what y holds
};

// panel: [k, nr] float32, 64-byte aligned. x: [rows, x_stride].
using GemmF32 = void (*)(const float* x, int64_t x_stride, int64_t rows, const float* panel, int64_t k,
                         const GemmOutput& output) noexcept;

struct GemmF32Kernel {
    GemmF32 run;
    int nr;
};

// Activations in blocks of 32 along k, as quantize_row_i8 writes them. num_blocks = k / 32.
struct I8Rows {
    const int8_t* values;  // [rows, num_blocks, 32]
    const float* scales;   // [rows, num_blocks]
    const int32_t* sums;   // [rows, num_blocks], the sum of a block's values
    int64_t rows;
    int64_t num_blocks;
};

constexpr int kI8Block = 32;

// panel: for each block of 32 along k: [nr] float16 scales, then [8, nr, 4] bytes: column c's weights k = 4 i
// .. 4 i + 3 at [i, c, :], stored as w + weight_offset (0: signed bytes; 128: unsigned bytes). The dot
// product of a block is exact.
using GemmI8 = void (*)(const I8Rows& x, const std::byte* panel, const GemmOutput& output) noexcept;

struct GemmI8Kernel {
    GemmI8 run;
    int nr;
    int weight_offset;
};

constexpr int64_t i8_panel_block_bytes(int nr) { return int64_t{nr} * (2 + kI8Block); }

namespace scalar {
constexpr int kGemmNr = 16;
void gemm_f32(const float* x, int64_t x_stride, int64_t rows, const float* panel, int64_t k,
              const GemmOutput& output) noexcept;
void gemm_i8(const I8Rows& x, const std::byte* panel, const GemmOutput& output) noexcept;
}  // namespace scalar

namespace avx2 {
constexpr int kGemmNr = 16;
void gemm_f32(const float* x, int64_t x_stride, int64_t rows, const float* panel, int64_t k,
              const GemmOutput& output) noexcept;
void gemm_i8(const I8Rows& x, const std::byte* panel, const GemmOutput& output) noexcept;
}  // namespace avx2

namespace avx512 {
constexpr int kGemmNr = 64;
void gemm_f32(const float* x, int64_t x_stride, int64_t rows, const float* panel, int64_t k,
              const GemmOutput& output) noexcept;
}  // namespace avx512

namespace avx512_vnni {
constexpr int kGemmNr = 64;
constexpr int kWeightOffset = 128;
void gemm_i8(const I8Rows& x, const std::byte* panel, const GemmOutput& output) noexcept;
}  // namespace avx512_vnni

}  // namespace pocketvlm
