#include "kernels/elementwise/elementwise.h"
#include "kernels/elementwise/vector.inl"
#include "kernels/simd/f32_avx2.h"

namespace pocketvlm::avx2 {

void layer_norm(const float* x, const float* weight, const float* bias, float epsilon, int64_t n,
                float* y) noexcept {
    layer_norm_vector<F32x8>(x, weight, bias, epsilon, n, y);
}

void rms_norm(const float* x, const float* weight, float epsilon, int64_t n, float* y) noexcept {
    rms_norm_vector<F32x8>(x, weight, epsilon, n, y);
}

void gelu_tanh(float* x, int64_t n) noexcept { gelu_tanh_vector<F32x8>(x, n); }

void silu_mul(float* gate, const float* up, int64_t n) noexcept { silu_mul_vector<F32x8>(gate, up, n); }

void rope_interleaved(float* x, const float* cosine, const float* sine, int64_t n, float scale) noexcept {
    rope_interleaved_vector<F32x8>(x, cosine, sine, n, scale);
}

void f32_to_f16(const float* x, int64_t n, Float16* y) noexcept { f32_to_f16_vector<F32x8>(x, n, y); }

}  // namespace pocketvlm::avx2
