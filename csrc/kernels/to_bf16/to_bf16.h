// Operands of products in bfloat16 (GemmBf16 of kernels/gemm/gemm.h), from what is stored in other types.
// Rounded to nearest, ties to even; a value below 2^-126 may become zero. Inputs are finite. Every
// instruction set gives the same bytes but for those tiny values.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/half.h"

namespace pocketvlm {

// x: [k], out: [bf16_padded(k)], zero behind k.
template <typename T>
using RowToBf16 = void(const T* x, int64_t k, BFloat16* out) noexcept;

// panel: as kernels/gemm/gemm.h describes it for its type. out: [bf16_padded(k) / 2, nr, 2], zero behind k,
// 64-byte aligned.
using PanelToBf16 = void(const std::byte* panel, int64_t k, BFloat16* out) noexcept;

namespace scalar {
RowToBf16<float> row_to_bf16;
RowToBf16<Float16> row_to_bf16;
PanelToBf16 panel_f32_to_bf16, panel_f16_to_bf16, panel_bf16_to_bf16, panel_i8_to_bf16, panel_i4_to_bf16;
}  // namespace scalar

namespace avx512_bf16 {
RowToBf16<float> row_to_bf16;
RowToBf16<Float16> row_to_bf16;
PanelToBf16 panel_f32_to_bf16, panel_f16_to_bf16, panel_bf16_to_bf16, panel_i8_to_bf16, panel_i4_to_bf16;
}  // namespace avx512_bf16

}  // namespace pocketvlm
