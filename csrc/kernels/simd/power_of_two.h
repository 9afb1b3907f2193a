// 2^x for results that become bfloat16, on AVX-512.
#pragma once

#include <immintrin.h>

namespace pocketvlm {
namespace {

// Relative error below 2^-13, for -126 <= x <= 127: what bfloat16 keeps has 8 bits. Smaller x count as -126.
// The polynomial is that of the fraction on [-0.5, 0.5], whose nearest integer an addition to 1.5 * 2^23
// leaves in the low bits: vreduceps and vscalefps would do the same in fewer instructions, and slower, as one
// port has them.
inline __m512 power_of_two(__m512 x) noexcept {
    const __m512 magic = _mm512_set1_ps(0x1.8p23f);
    const __m512 clamped = _mm512_max_ps(x, _mm512_set1_ps(-126.0f));
    const __m512 shifted = _mm512_add_ps(clamped, magic);
    const __m512 f = _mm512_sub_ps(clamped, _mm512_sub_ps(shifted, magic));
    __m512 p = _mm512_set1_ps(0.0551716677f);
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0.242611122f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0.693260986f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0.999928074f));
    const __m512i power = _mm512_slli_epi32(_mm512_castps_si512(shifted), 23);
    return _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(p), power));
}

}  // namespace
}  // namespace pocketvlm
