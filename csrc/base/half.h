// Conversions between float32 and the two 16-bit float formats, bit by bit and without intrinsics: the
// definition that the scalar kernels use and that vector kernels must reproduce.
//
// The functions are `static inline` and not `inline` on purpose: a file compiled for one ISA may include this
// header without leaving a weak symbol behind that the linker could hand to the rest of the program.
#pragma once

#include <cstdint>
#include <cstring>

namespace pocketvlm {

// A stored 16-bit float; which of the two formats it has is in its type.
struct Float16 {
    std::uint16_t bits;
};
struct BFloat16 {
    std::uint16_t bits;
};

static inline float float_from_bits(uint32_t bits) noexcept {
    float value;
    std::memcpy(&value, &bits, sizeof(value));
    return value;
}

static inline uint32_t float_to_bits(float value) noexcept {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof(bits));
    return bits;
}

// IEEE binary16 -> float32. Exact; a NaN keeps its sign and payload.
static inline float fp16_to_fp32(uint16_t half) noexcept {
    const uint32_t sign = static_cast<uint32_t>(half & 0x8000u) << 16;
    const uint32_t exponent = (half >> 10) & 0x1fu;
    const uint32_t mantissa = half & 0x3ffu;
    if (exponent == 0) {  // zero or subnormal: mantissa * 2^-24, which float32 holds exactly
        const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;
        return float_from_bits(sign | float_to_bits(magnitude));
    }
    if (exponent == 0x1f) {  // infinity or NaN
        return float_from_bits(sign | 0x7f800000u | (mantissa << 13));
    }
    return float_from_bits(sign | ((exponent + 112u) << 23) | (mantissa << 13));
}

// float32 -> IEEE binary16, to nearest, ties to even; 65520 and more become infinity, a NaN stays NaN.
static inline uint16_t fp32_to_fp16(float value) noexcept {
    const uint32_t bits = float_to_bits(value);
    const uint32_t sign = (bits >> 16) & 0x8000u;
    const uint32_t magnitude = bits & 0x7fffffffu;
    if (magnitude > 0x7f800000u) {  // NaN
        return static_cast<uint16_t>(sign | 0x7e00u | ((magnitude >> 13) & 0x3ffu));
    }
    if (magnitude >= 0x477ff000u) {  // 65520, half way between the largest finite half and the next step
        return static_cast<uint16_t>(sign | 0x7c00u);
    }
    if (magnitude >= 0x38800000u) {  // 2^-14: normal
        // A carry out of the mantissa moves the exponent up, as it should; 112 is the difference of the
        // biases.
        const uint32_t rounded = magnitude + 0xfffu + ((magnitude >> 13) & 1u);
        return static_cast<uint16_t>(sign | ((rounded - (112u << 23)) >> 13));
    }
    if (magnitude < 0x33000000u) {  // below 2^-25, half of the smallest subnormal
        return static_cast<uint16_t>(sign);
    }
    // Subnormal: the 24-bit mantissa counts units of 2^(exponent - 150), the half counts units of 2^-24.
    const uint32_t shift = 126u - (magnitude >> 23);  // 14..24
    const uint32_t mantissa = (magnitude & 0x7fffffu) | 0x800000u;
    const uint32_t remainder = mantissa & ((1u << shift) - 1u);
    const uint32_t tie = 1u << (shift - 1u);
    uint32_t half = mantissa >> shift;
    if (remainder > tie || (remainder == tie && (half & 1u) != 0)) {
        ++half;
    }
    return static_cast<uint16_t>(sign | half);
}

// bfloat16 -> float32. Exact.
static inline float bf16_to_fp32(uint16_t bf16) noexcept {
    return float_from_bits(static_cast<uint32_t>(bf16) << 16);
}

// float32 -> bfloat16, to nearest, ties to even; NaN stays a (quiet) NaN.
static inline uint16_t fp32_to_bf16(float value) noexcept {
    const uint32_t bits = float_to_bits(value);
    if ((bits & 0x7fffffffu) > 0x7f800000u) {
        return static_cast<uint16_t>((bits >> 16) | 0x40u);
    }
    return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

}  // namespace pocketvlm
