#include "kernels/gemm/gemm.h"
#include "kernels/gemm/vector.inl"
#include "kernels/simd/f32_avx512.h"

namespace pocketvlm::avx512 {

void gemm_f32(const float* x, int64_t x_stride, int64_t rows, const float* panel, int64_t k,
              const GemmOutput& output) noexcept {
    gemm_f32_vector<F32x16, kGemmNr / F32x16::kWidth, 6>(x, x_stride, rows, panel, k, output);
}

}  // namespace pocketvlm::avx512
