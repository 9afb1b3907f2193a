#include <immintrin.h>

#include "kernels/normalize/normalize.h"

namespace pocketvlm {
namespace {

__m256 centred(const uint8_t* pixels) noexcept {
    const __m128i eight = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(pixels));
    return _mm256_fmadd_ps(_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(eight)), _mm256_set1_ps(2.0f),
                           _mm256_set1_ps(-255.0f));
}

void center_eight(const uint8_t* src, float* out) noexcept { _mm256_storeu_ps(out, centred(src)); }

void center_eight(const uint8_t* src, BFloat16* out) noexcept {
    // The lower half of these floats is zero; the upper one, as a positive number, survives the packing.
    const __m256i upper = _mm256_srli_epi32(_mm256_castps_si256(centred(src)), 16);
    const __m128i words = _mm_packus_epi32(_mm256_castsi256_si128(upper), _mm256_extracti128_si256(upper, 1));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out), words);
}

}  // namespace
}  // namespace pocketvlm

#include "kernels/normalize/eight_pixels.inl"

namespace pocketvlm::avx2 {

void center_patches_bf16(const uint8_t* const* rows, int64_t first, int64_t num_patches, int64_t patch_size,
                         int64_t patch_stride, BFloat16* out) noexcept {
    center_patches(rows, first, num_patches, patch_size, patch_stride, out, scalar::center_patches_bf16);
}

void center_patches_f32(const uint8_t* const* rows, int64_t first, int64_t num_patches, int64_t patch_size,
                        int64_t patch_stride, float* out) noexcept {
    center_patches(rows, first, num_patches, patch_size, patch_stride, out, scalar::center_patches_f32);
}

}  // namespace pocketvlm::avx2
