#include "kernels/gemm/gemm.h"
#include "kernels/gemm/vector.inl"
#include "kernels/simd/f32_avx512.h"

namespace pocketvlm::avx512 {
namespace {

constexpr int kVectors = kGemmNr / F32x16::kWidth;
constexpr int kRows = 6;

}  // namespace

void gemm_f32(const float* x, int64_t x_stride, int64_t rows, const std::byte* panel, int64_t k,
              const GemmOutput& output) noexcept {
    gemm_float<F32x16, kVectors, kRows, float>(x, x_stride, rows, panel, k, output);
}

void gemm_f16(const float* x, int64_t x_stride, int64_t rows, const std::byte* panel, int64_t k,
              const GemmOutput& output) noexcept {
    gemm_float<F32x16, kVectors, kRows, Float16>(x, x_stride, rows, panel, k, output);
}

void gemm_bf16(const float* x, int64_t x_stride, int64_t rows, const std::byte* panel, int64_t k,
               const GemmOutput& output) noexcept {
    gemm_float<F32x16, kVectors, kRows, BFloat16>(x, x_stride, rows, panel, k, output);
}

}  // namespace pocketvlm::avx512
