// The scale of a block of activations, in one place so that every instruction set gives the same.
#pragma once

#include <cstdint>

#include "kernels/quantize_row/quantize_row.h"

namespace pocketvlm {
namespace {

struct BlockScale {
    float scale;
    float inverse;  // 1 / scale, or 0 where scale is
};

inline BlockScale block_scale(float amax) noexcept {
    if (amax < kMinAmax) return {0.0f, 0.0f};
    float scale = amax * (1.0f / 127.0f);
    uint32_t bits;
    __builtin_memcpy(&bits, &scale, sizeof bits);
    constexpr uint32_t kDropped = (uint32_t{1} << (23 - kScaleMantissaBits)) - 1;
    bits = (bits + kDropped) & ~kDropped;
    __builtin_memcpy(&scale, &bits, sizeof scale);
    return {scale, 1.0f / scale};
}

}  // namespace
}  // namespace pocketvlm
