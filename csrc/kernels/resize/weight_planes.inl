// Pixels times 22-bit weights by the int8 dot product: a weight is split into three signed bytes, each of
// which meets four pixels per 32-bit lane. The sum of a lane may wrap on the way: what is asked for fits, and
// addition modulo 2^32 does not mind the order.
#pragma once

#include <immintrin.h>

#include "kernels/resize/resize.h"

namespace pocketvlm::avx512_vnni {
namespace {

constexpr int kPlanes = 3;    // bytes of a weight
constexpr int kGroup = 4;     // taps of one dot product
constexpr int kLanes = 16;    // sums of one vector
constexpr int kQuarters = 4;  // 128-bit parts of one vector, of four sums each
constexpr int64_t kVector = 64;

// sum += dot of unsigned and signed bytes, four per 32-bit lane. Written as assembly because gcc 12 surrounds
// the intrinsic with register copies.
void dot_four(__m512i& sum, __m512i unsigned_bytes, __m512i signed_bytes) noexcept {
    asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(unsigned_bytes), "v"(signed_bytes));
}

// Byte `plane` of a weight = sum of byte[p] * 256^p, bytes in [-128, 127].
uint8_t weight_byte(int32_t weight, int plane) noexcept {
    for (; plane > 0; --plane) weight = (weight - static_cast<int8_t>(weight)) >> 8;
    return static_cast<uint8_t>(weight);
}

constexpr int32_t kHalf = 1 << (kResizeFractionBits - 1);

// A sum shifted down to a pixel that is not clipped yet.
__m512i pixels_of(__m512i sum) noexcept { return _mm512_srai_epi32(sum, kResizeFractionBits); }

// The same of the sums of the planes, the lowest first.
__m512i pixels_of(__m512i low, __m512i middle, __m512i high) noexcept {
    const __m512i upper = _mm512_add_epi32(_mm512_slli_epi32(high, 16), _mm512_slli_epi32(middle, 8));
    return pixels_of(_mm512_add_epi32(upper, low));
}

// Where all pixels of a sum fit the registers, one sum is enough: it is shifted up before the next lower
// plane.
__m512i start_of_highest() noexcept { return _mm512_set1_epi32(kHalf >> (8 * (kPlanes - 1))); }
__m512i next_plane(__m512i sum) noexcept { return _mm512_slli_epi32(sum, 8); }

// In each quarter four pixels of a, b, c and d, one after the other. Packing clips: to int16, then to uint8.
__m512i pack(__m512i a, __m512i b, __m512i c, __m512i d) noexcept {
    return _mm512_packus_epi16(_mm512_packs_epi32(a, b), _mm512_packs_epi32(c, d));
}

}  // namespace
}  // namespace pocketvlm::avx512_vnni
