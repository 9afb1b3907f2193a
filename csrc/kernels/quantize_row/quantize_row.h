// Activations to int8, in blocks of 32 along a row.
//
//   amax = max |x|;  scale = amax / 127;  values = round_half_even(x * (127 / amax)), all 0 when amax is
//   below kMinAmax sum = sum of values
//
// Exact: every instruction set gives the same bytes. A last block that is not full is filled up with zeros. x
// is finite.
#pragma once

#include <cstdint>

namespace pocketvlm {

// Below it, 127 / amax would overflow.
constexpr float kMinAmax = 1e-36f;

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
