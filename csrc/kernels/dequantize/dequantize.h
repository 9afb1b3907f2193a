// Weights of the types without products of their own, back to float32 a stretch of k at a time, for products
// in float32 or bfloat16: contract of the kernel.
#pragma once

#include <cstddef>
#include <cstdint>

namespace pocketvlm {

// Weights in blocks of 32 along k: w = scale * q + offset, each operation rounded, a scale for each sixteen.
// panel: for each block [3, nr] float32, the scales of its first sixteen, of its last sixteen, and the
// offsets; then signed bytes [32, nr].
constexpr int kAffineBlockRows = 32;
constexpr int64_t affine_panel_block_bytes(int nr) {
    return int64_t{nr} * (3 * static_cast<int64_t>(sizeof(float)) + kAffineBlockRows);
}

// panel: at a block, 4-byte aligned. out: [32 * num_blocks, nr]. Exact: every instruction set gives the same
// bits.
using DequantizeAffine = void(const std::byte* panel, int64_t num_blocks, float* out) noexcept;

namespace scalar {
DequantizeAffine dequantize_affine;
}
namespace avx2 {
DequantizeAffine dequantize_affine;
}
namespace avx512 {
DequantizeAffine dequantize_affine;
}

}  // namespace pocketvlm
