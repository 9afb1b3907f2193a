#include <immintrin.h>

#include "kernels/roof/roof.h"

namespace pocketvlm::avx512_bf16 {
namespace {

constexpr int kAccumulators = 12;

// A small integer as two equal bfloat16, the high half of a float32 each.
__m512i pair(int value) noexcept {
    const __m512i bits = _mm512_castps_si512(_mm512_set1_ps(static_cast<float>(value)));
    return _mm512_or_si512(bits, _mm512_srli_epi32(bits, 16));
}

// Assembly, by value, as in x86_avx512_vnni.cc.
__m512 dot_two(__m512 sum, __m512i a, __m512i b) noexcept {
    asm("vdpbf16ps %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
    return sum;
}

double run_bf16(int64_t rounds, int x, int y) noexcept {
    const __m512i a = pair(x), b = pair(y);
    __m512 acc[kAccumulators];
    for (int j = 0; j < kAccumulators; ++j) acc[j] = _mm512_set1_ps(static_cast<float>(j));
    for (int64_t round = 0; round < rounds; ++round) {
        for (__m512& sum : acc) sum = dot_two(sum, a, b);
    }
    double total = 0;
    for (const __m512& sum : acc) {
        float lanes[16];
        _mm512_storeu_ps(lanes, sum);
        for (const float lane : lanes) total += lane;
    }
    return total;
}

}  // namespace

const RoofLoop kRoofBF16{run_bf16, kAccumulators, 16, 2};

}  // namespace pocketvlm::avx512_bf16
