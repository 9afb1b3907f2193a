#include <immintrin.h>

#include "kernels/roof/roof.h"

namespace pocketvlm::avx512_vnni {
namespace {

constexpr int kAccumulators = 12;

double run_i8(int64_t rounds, int x, int y) noexcept {
    const __m512i a = _mm512_set1_epi8(static_cast<char>(x)), b = _mm512_set1_epi8(static_cast<char>(y));
    __m512i acc[kAccumulators];
    for (int j = 0; j < kAccumulators; ++j) acc[j] = _mm512_set1_epi32(j);
    for (int64_t round = 0; round < rounds; ++round) {
        // Assembly because gcc 12 copies registers around the intrinsic.
        for (__m512i& sum : acc) asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
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
