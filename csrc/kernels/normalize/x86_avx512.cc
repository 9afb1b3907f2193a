#include <immintrin.h>

#include "kernels/normalize/normalize.h"

namespace pocketvlm::avx512 {
namespace {

// 2 p - 255 of sixteen pixels, each in the lowest byte of a 32-bit lane that is zero elsewhere.
__m512 centred(__m512i pixels) noexcept {
    return _mm512_fmadd_ps(_mm512_cvtepi32_ps(pixels), _mm512_set1_ps(2.0f), _mm512_set1_ps(-255.0f));
}

// The same of 32 pixels, as bfloat16. Two neighbours share a 32-bit lane on the way in and on the way out;
// the lower half of these floats is zero.
__m512i centred_bf16(__m256i pixels) noexcept {
    const __m512i pairs = _mm512_cvtepu16_epi32(pixels);
    const __m512i even = _mm512_castps_si512(centred(_mm512_and_si512(pairs, _mm512_set1_epi32(0xff))));
    const __m512i odd = _mm512_castps_si512(centred(_mm512_srli_epi32(pairs, 8)));
    return _mm512_or_si512(odd, _mm512_srli_epi32(even, 16));
}

// The first n of 1..32.
__mmask32 first(int64_t n) noexcept { return static_cast<__mmask32>(0xffffffffu >> (32 - n)); }

int64_t at_most(int64_t n, int64_t most) noexcept { return n < most ? n : most; }

// Whether two rows of every patch of 16 x 16 start on a cache line.
bool fills_cache_lines(const BFloat16* out, int64_t patch_stride) noexcept {
    return reinterpret_cast<uintptr_t>(out) % sizeof(__m512i) == 0 && patch_stride % 32 == 0;
}

// Patches of 16 x 16: those side by side share a vector on the way in, two rows of one patch on the way out.
// Whole cache lines are written past the cache: the patches of an image are larger than it, and the lines
// need not be read first.
template <bool kPastCache>
void center_patches_of_16(const uint8_t* const* rows, int64_t first_pixel, int64_t num_pairs,
                          int64_t patch_stride, BFloat16* out) noexcept {
    const auto store = [](BFloat16* line, __m512i values) {
        if (kPastCache) {
            _mm512_stream_si512(reinterpret_cast<__m512i*>(line), values);
        } else {
            _mm512_storeu_si512(line, values);
        }
    };
    for (int64_t j = 0; j < num_pairs; ++j, first_pixel += 32, out += 2 * patch_stride) {
        for (int64_t ky = 0; ky < 16; ky += 2) {
            const auto* upper = reinterpret_cast<const __m256i*>(rows[ky] + first_pixel);
            const auto* lower = reinterpret_cast<const __m256i*>(rows[ky + 1] + first_pixel);
            const __m512i a = centred_bf16(_mm256_loadu_si256(upper));
            const __m512i b = centred_bf16(_mm256_loadu_si256(lower));
            store(out + ky * 16, _mm512_shuffle_i64x2(a, b, 0x44));
            store(out + patch_stride + ky * 16, _mm512_shuffle_i64x2(a, b, 0xee));
        }
    }
}

}  // namespace

void center_patches_bf16(const uint8_t* const* rows, int64_t first_pixel, int64_t num_patches,
                         int64_t patch_size, int64_t patch_stride, BFloat16* out) noexcept {
    if (patch_size == 16) {
        const int64_t num_pairs = num_patches / 2;
        if (fills_cache_lines(out, patch_stride)) {
            center_patches_of_16<true>(rows, first_pixel, num_pairs, patch_stride, out);
        } else {
            center_patches_of_16<false>(rows, first_pixel, num_pairs, patch_stride, out);
        }
        first_pixel += num_pairs * 32;
        out += num_pairs * 2 * patch_stride;
        num_patches %= 2;
    }
    for (int64_t j = 0; j < num_patches; ++j, first_pixel += patch_size, out += patch_stride) {
        for (int64_t ky = 0; ky < patch_size; ++ky) {
            for (int64_t kx = 0; kx < patch_size; kx += 32) {
                const __mmask32 mask = first(at_most(patch_size - kx, 32));
                const __m256i pixels = _mm256_maskz_loadu_epi8(mask, rows[ky] + first_pixel + kx);
                _mm512_mask_storeu_epi16(out + ky * patch_size + kx, mask, centred_bf16(pixels));
            }
        }
    }
}

void center_patches_f32(const uint8_t* const* rows, int64_t first_pixel, int64_t num_patches,
                        int64_t patch_size, int64_t patch_stride, float* out) noexcept {
    for (int64_t j = 0; j < num_patches; ++j, first_pixel += patch_size, out += patch_stride) {
        for (int64_t ky = 0; ky < patch_size; ++ky) {
            for (int64_t kx = 0; kx < patch_size; kx += 16) {
                const auto mask = static_cast<__mmask16>(first(at_most(patch_size - kx, 16)));
                const __m128i pixels = _mm_maskz_loadu_epi8(mask, rows[ky] + first_pixel + kx);
                _mm512_mask_storeu_ps(out + ky * patch_size + kx, mask,
                                      centred(_mm512_cvtepu8_epi32(pixels)));
            }
        }
    }
}

}  // namespace pocketvlm::avx512
