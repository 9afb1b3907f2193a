// exp on a vector type V of simd/: relative error below 2 units in the last place.
#pragma once

namespace pocketvlm {
namespace {

// Cody and Waite's reduction x = n ln 2 + r, |r| <= ln 2 / 2, with ln 2 in two parts of which n times the
// first is exact; then the Taylor polynomial of degree 7, whose remainder is below 2^-27. Inputs are clamped
// to where the result is a finite float: exp(-104) is zero, or the smallest subnormal.
template <typename V>
V exponential(V x) noexcept {
    x = min(max(x, V::broadcast(-104.0f)), V::broadcast(88.0f));
    const V n = round(x * V::broadcast(1.44269504f));
    V r = multiply_add(n, V::broadcast(-0.693359375f), x);
    r = multiply_add(n, V::broadcast(2.12194440e-4f), r);
    V p = V::broadcast(1.0f / 5040);
    p = multiply_add(p, r, V::broadcast(1.0f / 720));
    p = multiply_add(p, r, V::broadcast(1.0f / 120));
    p = multiply_add(p, r, V::broadcast(1.0f / 24));
    p = multiply_add(p, r, V::broadcast(1.0f / 6));
    p = multiply_add(p, r, V::broadcast(0.5f));
    p = multiply_add(p, r, V::broadcast(1.0f));
    p = multiply_add(p, r, V::broadcast(1.0f));
    return scale_by_power_of_two(p, n);
}

}  // namespace
}  // namespace pocketvlm
