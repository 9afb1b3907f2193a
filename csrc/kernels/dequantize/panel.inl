// The plain loop, which compilers make vectors of: under the flags of an instruction set, its kernel.
#pragma once

#include "kernels/dequantize/dequantize.h"

namespace pocketvlm {
namespace {

template <int nr>
void dequantize_panel(const std::byte* panel, int64_t num_blocks, float* __restrict out) noexcept {
    for (; num_blocks > 0; --num_blocks, panel += affine_panel_block_bytes(nr)) {
        const auto* numbers = reinterpret_cast<const float*>(panel);
        const auto* offsets = numbers + 2 * nr;
        const auto* values = reinterpret_cast<const int8_t*>(numbers + 3 * nr);
        for (int i = 0; i < kAffineBlockRows; ++i, values += nr, out += nr) {
            const float* scales = numbers + i / 16 * nr;
            for (int c = 0; c < nr; ++c) {
                const float scaled = scales[c] * static_cast<float>(values[c]);
                out[c] = scaled + offsets[c];
            }
        }
    }
}

}  // namespace
}  // namespace pocketvlm
