// Sixteen floats in an AVX-512 register, under the names that the vector kernels (*/vector.inl) are written
// in. Everything is in an anonymous namespace: no code compiled for this instruction set may leave its object
// file.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "base/half.h"

namespace pocketvlm {
namespace {

struct F32x16 {
    static constexpr int kWidth = 16;
    __m512 value;

    static F32x16 zero() noexcept { return {_mm512_setzero_ps()}; }
    static F32x16 broadcast(float x) noexcept { return {_mm512_set1_ps(x)}; }
    static F32x16 load(const float* p) noexcept { return {_mm512_loadu_ps(p)}; }
    // The first n of 1..kWidth floats; the rest is zero, and not read.
    static F32x16 load_first(const float* p, int64_t n) noexcept {
        return {_mm512_maskz_loadu_ps(first(n), p)};
    }
    static F32x16 load(const Float16* p) noexcept {
        return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
    }
    static F32x16 load(const BFloat16* p) noexcept {
        const __m512i words = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
        return {_mm512_castsi512_ps(_mm512_slli_epi32(words, 16))};
    }
    // p[0], p[0], p[1], p[1], ...: kWidth / 2 floats.
    static F32x16 load_each_twice(const float* p) noexcept {
        const __m512i places = _mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
        return {_mm512_permutexvar_ps(places, _mm512_castps256_ps512(_mm256_loadu_ps(p)))};
    }
    void store(float* p) const noexcept { _mm512_storeu_ps(p, value); }
    void store(Float16* p) const noexcept {
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                            _mm512_cvtps_ph(value, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
    }
    void store_first(float* p, int64_t n) const noexcept { _mm512_mask_storeu_ps(p, first(n), value); }
    float sum() const noexcept { return _mm512_reduce_add_ps(value); }
    float max() const noexcept { return _mm512_reduce_max_ps(value); }

  private:
    static __mmask16 first(int64_t n) noexcept { return static_cast<__mmask16>((1u << n) - 1u); }
};

inline F32x16 operator+(F32x16 a, F32x16 b) noexcept { return {_mm512_add_ps(a.value, b.value)}; }
inline F32x16 operator-(F32x16 a, F32x16 b) noexcept { return {_mm512_sub_ps(a.value, b.value)}; }
inline F32x16 operator*(F32x16 a, F32x16 b) noexcept { return {_mm512_mul_ps(a.value, b.value)}; }
inline F32x16 operator/(F32x16 a, F32x16 b) noexcept { return {_mm512_div_ps(a.value, b.value)}; }
inline F32x16 max(F32x16 a, F32x16 b) noexcept { return {_mm512_max_ps(a.value, b.value)}; }
inline F32x16 min(F32x16 a, F32x16 b) noexcept { return {_mm512_min_ps(a.value, b.value)}; }
inline F32x16 multiply_add(F32x16 a, F32x16 b, F32x16 c) noexcept {
    return {_mm512_fmadd_ps(a.value, b.value, c.value)};
}
// a * b - c in even lanes, a * b + c in odd ones.
inline F32x16 multiply_subtract_add(F32x16 a, F32x16 b, F32x16 c) noexcept {
    return {_mm512_fmaddsub_ps(a.value, b.value, c.value)};
}
inline F32x16 swap_neighbours(F32x16 a) noexcept { return {_mm512_permute_ps(a.value, 0b10110001)}; }
inline F32x16 round(F32x16 a) noexcept {
    return {_mm512_roundscale_ps(a.value, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}
// a * 2^n, n an integer; results below the normal range become zero or subnormal.
inline F32x16 scale_by_power_of_two(F32x16 a, F32x16 n) noexcept {
    return {_mm512_scalef_ps(a.value, n.value)};
}

}  // namespace
}  // namespace pocketvlm
