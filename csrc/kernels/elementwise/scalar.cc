#include <cmath>

#include "kernels/elementwise/elementwise.h"

namespace pocketvlm::scalar {

void layer_norm(const float* x, const float* weight, const float* bias, float epsilon, int64_t n,
                float* y) noexcept {
    double sum = 0;
    for (int64_t i = 0; i < n; ++i) sum += x[i];
    const float mean = static_cast<float>(sum / static_cast<double>(n));
    double squares = 0;
    for (int64_t i = 0; i < n; ++i) squares += static_cast<double>(x[i] - mean) * (x[i] - mean);
    const float inverse = 1.0f / std::sqrt(static_cast<float>(squares / static_cast<double>(n)) + epsilon);
    for (int64_t i = 0; i < n; ++i) y[i] = (x[i] - mean) * inverse * weight[i] + bias[i];
}

void rms_norm(const float* x, const float* weight, float epsilon, int64_t n, float* y) noexcept {
    double squares = 0;
    for (int64_t i = 0; i < n; ++i) squares += static_cast<double>(x[i]) * x[i];
    const float inverse = 1.0f / std::sqrt(static_cast<float>(squares / static_cast<double>(n)) + epsilon);
    for (int64_t i = 0; i < n; ++i) y[i] = x[i] * inverse * weight[i];
}

void gelu_tanh(float* x, int64_t n) noexcept {
    constexpr float kSqrtTwoOverPi = 0.7978845608f;
    for (int64_t i = 0; i < n; ++i) {
        const float inner = kSqrtTwoOverPi * (x[i] + 0.044715f * x[i] * x[i] * x[i]);
        x[i] = 0.5f * x[i] * (1.0f + std::tanh(inner));
    }
}

void silu_mul(float* gate, const float* up, int64_t n) noexcept {
    for (int64_t i = 0; i < n; ++i) gate[i] = gate[i] / (1.0f + std::exp(-gate[i])) * up[i];
}

void rope_interleaved(float* x, const float* cosine, const float* sine, int64_t n, float scale) noexcept {
    for (int64_t i = 0; i < n / 2; ++i) {
        const float even = x[2 * i], odd = x[2 * i + 1];
        x[2 * i] = (even * cosine[i] - odd * sine[i]) * scale;
        x[2 * i + 1] = (even * sine[i] + odd * cosine[i]) * scale;
    }
}

void f32_to_f16(const float* x, int64_t n, Float16* y) noexcept {
    for (int64_t i = 0; i < n; ++i) y[i].bits = fp32_to_fp16(x[i]);
}

}  // namespace pocketvlm::scalar
