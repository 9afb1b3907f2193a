// 2^x for results that become bfloat16, on AVX-512.
#pragma once

#include <immintrin.h>

namespace pocketvlm {
namespace {

// Relative error below 2^-13: what bfloat16 keeps has 8 bits. vscalefps takes the floor of x itself; the
// polynomial approximates 2^f on [0, 1) and is exact at both ends, so that it has no steps.
inline __m512 power_of_two(__m512 x) noexcept {
    const __m512 f = _mm512_reduce_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
    __m512 p = _mm512_set1_ps(0.07826796f);
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0.22630768f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0.69542436f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.0f));
    return _mm512_scalef_ps(p, x);
}

}  // namespace
}  // namespace pocketvlm
