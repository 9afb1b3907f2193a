// Eight floats in an AVX register, under the names that the vector kernels (*/vector.inl) are written in.
// Everything is in an anonymous namespace: no code compiled for this instruction set may leave its object
// file.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "base/half.h"

namespace pocketvlm {
namespace {

struct F32x8 {
    static constexpr int kWidth = 8;
    __m256 value;

    static F32x8 zero() noexcept { return {_mm256_setzero_ps()}; }
    static F32x8 broadcast(float x) noexcept { return {_mm256_set1_ps(x)}; }
    static F32x8 load(const float* p) noexcept { return {_mm256_loadu_ps(p)}; }
    // The first n of 1..kWidth floats; the rest is zero, and not read.
    static F32x8 load_first(const float* p, int64_t n) noexcept { return {_mm256_maskload_ps(p, first(n))}; }
    static F32x8 load(const Float16* p) noexcept {
        return {_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))};
    }
    static F32x8 load(const BFloat16* p) noexcept {
        const __m256i words = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
        return {_mm256_castsi256_ps(_mm256_slli_epi32(words, 16))};
    }
    // p[0], p[0], p[1], p[1], ...: kWidth / 2 floats.
    static F32x8 load_each_twice(const float* p) noexcept {
        const __m128 four = _mm_loadu_ps(p);
        return {_mm256_set_m128(_mm_unpackhi_ps(four, four), _mm_unpacklo_ps(four, four))};
    }
    void store(float* p) const noexcept { _mm256_storeu_ps(p, value); }
    void store(Float16* p) const noexcept {
        _mm_storeu_si128(reinterpret_cast<__m128i*>(p),
                         _mm256_cvtps_ph(value, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
    }
    void store_first(float* p, int64_t n) const noexcept { _mm256_maskstore_ps(p, first(n), value); }
    float sum() const noexcept {
        const __m128 four = _mm_add_ps(_mm256_castps256_ps128(value), _mm256_extractf128_ps(value, 1));
        const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
        return _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps(two, two, 1)));
    }
    float max() const noexcept {
        const __m128 four = _mm_max_ps(_mm256_castps256_ps128(value), _mm256_extractf128_ps(value, 1));
        const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
        return _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps(two, two, 1)));
    }

  private:
    static __m256i first(int64_t n) noexcept {
        return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(n)),
                                  _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
    }
};

inline F32x8 operator+(F32x8 a, F32x8 b) noexcept { return {_mm256_add_ps(a.value, b.value)}; }
inline F32x8 operator-(F32x8 a, F32x8 b) noexcept { return {_mm256_sub_ps(a.value, b.value)}; }
inline F32x8 operator*(F32x8 a, F32x8 b) noexcept { return {_mm256_mul_ps(a.value, b.value)}; }
inline F32x8 operator/(F32x8 a, F32x8 b) noexcept { return {_mm256_div_ps(a.value, b.value)}; }
inline F32x8 max(F32x8 a, F32x8 b) noexcept { return {_mm256_max_ps(a.value, b.value)}; }
inline F32x8 min(F32x8 a, F32x8 b) noexcept { return {_mm256_min_ps(a.value, b.value)}; }
inline F32x8 multiply_add(F32x8 a, F32x8 b, F32x8 c) noexcept {
    return {_mm256_fmadd_ps(a.value, b.value, c.value)};
}
// a * b - c in even lanes, a * b + c in odd ones.
inline F32x8 multiply_subtract_add(F32x8 a, F32x8 b, F32x8 c) noexcept {
    return {_mm256_fmaddsub_ps(a.value, b.value, c.value)};
}
inline F32x8 swap_neighbours(F32x8 a) noexcept { return {_mm256_permute_ps(a.value, 0b10110001)}; }
inline F32x8 round(F32x8 a) noexcept {
    return {_mm256_round_ps(a.value, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}
// a * 2^n, n an integer of at least -252 and at most 254: in two steps, as one exponent field would overflow.
inline F32x8 scale_by_power_of_two(F32x8 a, F32x8 n) noexcept {
    const __m256i whole = _mm256_cvtps_epi32(n.value);
    const __m256i half = _mm256_srai_epi32(whole, 1);
    const __m256i bias = _mm256_set1_epi32(127);
    const auto power = [&](__m256i e) {
        return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(e, bias), 23));
    };
    return {_mm256_mul_ps(_mm256_mul_ps(a.value, power(half)), power(_mm256_sub_epi32(whole, half)))};
}

}  // namespace
}  // namespace pocketvlm
