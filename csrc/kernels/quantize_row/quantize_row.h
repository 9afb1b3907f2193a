// Activations to int8, in blocks of 32 along a row.
//
//   amax = max |x|
//   scale = amax * (1 / 127), rounded up to 1 + kScaleMantissaBits significant bits; 0 if amax < kMinAmax
//   values = round_half_even(x * (1 / scale)), 0 if scale is
//   sum = sum of values
//
// Few significant bits let products take a weight's scale times an activation's from a small table
// (kernels/gemm/x86_avx512_vnni_many.cc). A block is up to 12.5 % coarser for it, 4.5 % on average.
//
// Exact: every instruction set gives the same bytes. A last block that is not full is filled up with zeros.
// |x| is at most kMaxAbs.
#pragma once

#include <cstdint>

namespace pocketvlm {

constexpr int kScaleMantissaBits = 3;

// A scale is a normal number, and 2^23 times it is one too.
constexpr float kMinAmax = 1e-35f;
constexpr float kMaxAbs = 1e33f;

// x: [k]. values: [num_blocks, 32], scales and sums: [num_blocks], num_blocks = ceil(k / 32).
using QuantizeRowI8 = void(const float* x, int64_t k, int8_t* values, float* scales, int32_t* sums) noexcept;

namespace scalar {
QuantizeRowI8 quantize_row_i8;
}
namespace avx2 {
QuantizeRowI8 quantize_row_i8;
}
namespace avx512 {
QuantizeRowI8 quantize_row_i8;
}

}  // namespace pocketvlm
