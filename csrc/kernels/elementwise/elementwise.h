// Kernels that touch each value of a row once or twice. Close, not exact.
#pragma once

#include <cstdint>

#include "base/half.h"

namespace pocketvlm {

// y[i] = (x[i] - mean) / sqrt(variance + epsilon) * weight[i] + bias[i], the variance over n (not n - 1). y
// may be x.
using LayerNorm = void(const float* x, const float* weight, const float* bias, float epsilon, int64_t n,
                       float* y) noexcept;

// y[i] = x[i] / sqrt(mean(x^2) + epsilon) * weight[i]. y may be x.
using RmsNorm = void(const float* x, const float* weight, float epsilon, int64_t n, float* y) noexcept;

// x[i] = 0.5 * x[i] * (1 + tanh(sqrt(2 / pi) * (x[i] + 0.044715 * x[i]^3))), in place.
using GeluTanh = void(float* x, int64_t n) noexcept;

// gate[i] = gate[i] / (1 + exp(-gate[i])) * up[i], in place.
using SiluMul = void(float* gate, const float* up, int64_t n) noexcept;

// Rotates the pairs (x[2 i], x[2 i + 1]) of one head by the angle whose cosine and sine are given, then
// multiplies by `scale`. n is the head's size; cosine, sine: [n / 2].
using RopeInterleaved = void(float* x, const float* cosine, const float* sine, int64_t n,
                             float scale) noexcept;

// y[i] = x[i] in float16, to nearest, ties to even. Exact: every row writes the same bits.
using F32ToF16 = void(const float* x, int64_t n, Float16* y) noexcept;

namespace scalar {
LayerNorm layer_norm;
RmsNorm rms_norm;
GeluTanh gelu_tanh;
SiluMul silu_mul;
RopeInterleaved rope_interleaved;
F32ToF16 f32_to_f16;
}  // namespace scalar

namespace avx2 {
LayerNorm layer_norm;
RmsNorm rms_norm;
GeluTanh gelu_tanh;
SiluMul silu_mul;
RopeInterleaved rope_interleaved;
F32ToF16 f32_to_f16;
}  // namespace avx2

namespace avx512 {
LayerNorm layer_norm;
RmsNorm rms_norm;
GeluTanh gelu_tanh;
SiluMul silu_mul;
RopeInterleaved rope_interleaved;
F32ToF16 f32_to_f16;
}  // namespace avx512

}  // namespace pocketvlm
