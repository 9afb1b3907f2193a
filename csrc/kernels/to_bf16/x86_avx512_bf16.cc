#include <immintrin.h>

#include "kernels/gemm/gemm.h"
#include "kernels/simd/f32_avx512.h"
#include "kernels/to_bf16/to_bf16.h"

namespace pocketvlm::avx512_bf16 {
namespace {

constexpr int kNr = avx512::kGemmNr;

// Stores pairs (even[i], odd[i]), i < 16.
void store_pairs(__m512 even, __m512 odd, BFloat16* out) noexcept {
    const __m512i apart = reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(odd, even));
    alignas(64) static constexpr uint16_t kTogether[32] = {0,  16, 1,  17, 2,  18, 3,  19, 4,  20, 5,
                                                           21, 6,  22, 7,  23, 8,  24, 9,  25, 10, 26,
                                                           11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
    _mm512_storeu_si512(out, _mm512_permutexvar_epi16(_mm512_load_si512(kTogether), apart));
}

template <typename T>
void row(const T* x, int64_t k, BFloat16* out) noexcept {
    int64_t i = 0;
    for (; i + kBf16Block <= k; i += kBf16Block) {
        const auto both = _mm512_cvtne2ps_pbh(F32x16::load(x + i + 16).value, F32x16::load(x + i).value);
        _mm512_storeu_si512(out + i, reinterpret_cast<__m512i>(both));
    }
    if (i == k) return;
    T last[kBf16Block] = {};
    for (int64_t j = i; j < k; ++j) last[j - i] = x[j];
    row(last, kBf16Block, out + i);
}

template <typename T>
void float_panel(const std::byte* bytes, int64_t k, BFloat16* out) noexcept {
    const auto* weights = reinterpret_cast<const T*>(bytes);
    for (int64_t i = 0; i < bf16_padded(k); i += 2) {
        for (int64_t c = 0; c < kNr; c += F32x16::kWidth) {
            const F32x16 even = i < k ? F32x16::load(weights + i * kNr + c) : F32x16::zero();
            const F32x16 odd = i + 1 < k ? F32x16::load(weights + (i + 1) * kNr + c) : F32x16::zero();
            store_pairs(even.value, odd.value, out + (i * kNr) + 2 * c);
        }
    }
}

// The unsigned weight in bits at .. at + size - 1 of each lane, times `scale`: under the exponent of
// 2^(23 - at), those bits are 2^(23 - at) + weight, and excess_at() takes off what is too much. Both of its
// factors together have 24 bits at most, so that it is exact and the sum is rounded once.
template <int at, int size>
__m512 weight_at(__m512i lanes, __m512 scale, __m512 excess) noexcept {
    static_assert(at >= 4 && at + size <= 23);
    constexpr int kAndThenOr = 0xea;
    const __m512i mask = _mm512_set1_epi32(((1 << size) - 1) << at);
    const __m512i exponent = _mm512_set1_epi32((127 + 23 - at) << 23);
    const __m512i number = _mm512_ternarylogic_epi32(lanes, mask, exponent, kAndThenOr);
    return _mm512_fmadd_ps(_mm512_castsi512_ps(number), scale, excess);
}

// Weights are stored with `offset` added.
template <int at, int offset>
__m512 excess_at(__m512 scale) noexcept {
    return _mm512_mul_ps(scale, _mm512_set1_ps(-static_cast<float>((1 << (23 - at)) + offset)));
}

}  // namespace

void row_to_bf16(const float* x, int64_t k, BFloat16* out) noexcept { row(x, k, out); }
void row_to_bf16(const Float16* x, int64_t k, BFloat16* out) noexcept { row(x, k, out); }

void panel_f32_to_bf16(const std::byte* bytes, int64_t k, BFloat16* out) noexcept {
    float_panel<float>(bytes, k, out);
}
void panel_f16_to_bf16(const std::byte* bytes, int64_t k, BFloat16* out) noexcept {
    float_panel<Float16>(bytes, k, out);
}
void panel_bf16_to_bf16(const std::byte* bytes, int64_t k, BFloat16* out) noexcept {
    float_panel<BFloat16>(bytes, k, out);
}

void panel_i8_to_bf16(const std::byte* bytes, int64_t k, BFloat16* out) noexcept {
    constexpr int kOffset = avx512_vnni::kWeightOffset;
    for (int64_t start = 0; start < k; start += kI8Block, bytes += i8_panel_block_bytes(kNr)) {
        for (int64_t c = 0; c < kNr; c += F32x16::kWidth) {
            const __m512 scale = F32x16::load(reinterpret_cast<const Float16*>(bytes) + c).value;
            const __m512 excess4 = excess_at<4, kOffset>(scale), excess8 = excess_at<8, kOffset>(scale);
            const __m512 excess12 = excess_at<12, kOffset>(scale);
            for (int i = 0; i < kI8Block / 4; ++i) {
                const __m512i four = _mm512_loadu_si512(bytes + 2 * kNr + (i * kNr + c) * 4);
                const __m512i up = _mm512_slli_epi32(four, 8), down = _mm512_srli_epi32(four, 12);
                BFloat16* pairs = out + (start + 4 * i) * kNr + 2 * c;
                store_pairs(weight_at<8, 8>(up, scale, excess8), weight_at<8, 8>(four, scale, excess8),
                            pairs);
                store_pairs(weight_at<4, 8>(down, scale, excess4), weight_at<12, 8>(down, scale, excess12),
                            pairs + 2 * kNr);
            }
        }
    }
}

void panel_i4_to_bf16(const std::byte* bytes, int64_t k, BFloat16* out) noexcept {
    for (int64_t start = 0; start < k; start += kI8Block, bytes += i4_panel_block_bytes(kNr)) {
        for (int64_t c = 0; c < kNr; c += F32x16::kWidth) {
            const __m512 scale = F32x16::load(reinterpret_cast<const Float16*>(bytes) + c).value;
            const __m512 excess8 = excess_at<8, kI4Offset>(scale), excess12 = excess_at<12, kI4Offset>(scale);
            const __m512 excess16 = excess_at<16, kI4Offset>(scale);
            for (int i = 0; i < kI8Block / 8; ++i) {
                const __m512i four = _mm512_loadu_si512(bytes + 2 * kNr + (i * kNr + c) * 4);
                const __m512i up = _mm512_slli_epi32(four, 8), down = _mm512_srli_epi32(four, 12);
                BFloat16* low = out + (start + 4 * i) * kNr + 2 * c;
                BFloat16* high = low + kI8Block / 2 * kNr;
                store_pairs(weight_at<8, 4>(up, scale, excess8), weight_at<8, 4>(four, scale, excess8), low);
                store_pairs(weight_at<16, 4>(four, scale, excess16), weight_at<12, 4>(down, scale, excess12),
                            low + 2 * kNr);
                store_pairs(weight_at<12, 4>(up, scale, excess12), weight_at<12, 4>(four, scale, excess12),
                            high);
                store_pairs(weight_at<8, 4>(down, scale, excess8), weight_at<16, 4>(down, scale, excess16),
                            high + 2 * kNr);
            }
        }
    }
}

}  // namespace pocketvlm::avx512_bf16
