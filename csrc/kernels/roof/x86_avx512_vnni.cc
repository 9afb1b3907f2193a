#include <immintrin.h>

#include "kernels/roof/roof.h"

namespace pocketvlm::avx512_vnni {
namespace {

constexpr int kAccumulators = 12;

// Assembly because gcc 12 copies registers around the intrinsic; by value because it keeps sums in memory
// that an asm statement changes in place.
__m512i dot_four(__m512i sum, __m512i a, __m512i b) noexcept {
    asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
    return sum;
}

double run_i8(int64_t rounds, int x, int y) noexcept {
    const __m512i a = _mm512_set1_epi8(static_cast<char>(x)), b = _mm512_set1_epi8(static_cast<char>(y));
    __m512i acc[kAccumulators];
    for (int j = 0; j < kAccumulators; ++j) acc[j] = _mm512_set1_epi32(j);
    for (int64_t round = 0; round < rounds; ++round) {
        for (__m512i& sum : acc) sum = dot_four(sum, a, b);
    }
    double total = 0;
    for (const __m512i& sum : acc) {
        int32_t lanes[16];
        _mm512_storeu_si512(lanes, sum);
        for (const int32_t lane : lanes) total += lane;
    }
    return total;
}

}  // namespace

const RoofLoop kRoofI8{run_i8, kAccumulators, 16, 4};

}  // namespace pocketvlm::avx512_vnni
