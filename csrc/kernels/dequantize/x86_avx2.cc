// In intrinsics: of the plain loop over 16 columns compilers make vectors along k, and five times the
// instructions.
#include <immintrin.h>

#include "kernels/dequantize/dequantize.h"
#include "kernels/gemm/gemm.h"

namespace pocketvlm::avx2 {
namespace {

constexpr int kVector = 8;
static_assert(kGemmNr == 2 * kVector);

__m256 load_values(const int8_t* values) {
    const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(values));
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes));
}

}  // namespace

void dequantize_affine(const std::byte* panel, int64_t num_blocks, float* out) noexcept {
    for (; num_blocks > 0; --num_blocks, panel += affine_panel_block_bytes(kGemmNr)) {
        const auto* scales = reinterpret_cast<const float*>(panel);
        const auto* values = reinterpret_cast<const int8_t*>(scales + 3 * kGemmNr);
        const __m256 offset0 = _mm256_loadu_ps(scales + 2 * kGemmNr);
        const __m256 offset1 = _mm256_loadu_ps(scales + 2 * kGemmNr + kVector);
        for (int half = 0; half < 2; ++half, scales += kGemmNr) {
            const __m256 scale0 = _mm256_loadu_ps(scales), scale1 = _mm256_loadu_ps(scales + kVector);
            for (int i = 0; i < kAffineBlockRows / 2; ++i, values += kGemmNr, out += kGemmNr) {
                _mm256_storeu_ps(out, _mm256_add_ps(_mm256_mul_ps(scale0, load_values(values)), offset0));
                _mm256_storeu_ps(
                    out + kVector,
                    _mm256_add_ps(_mm256_mul_ps(scale1, load_values(values + kVector)), offset1));
            }
        }
    }
}

}  // namespace pocketvlm::avx2
