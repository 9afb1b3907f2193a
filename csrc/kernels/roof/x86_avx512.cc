#include <immintrin.h>

#include "kernels/roof/roof.h"

namespace pocketvlm::avx512 {
namespace {

constexpr int kAccumulators = 12;

double run_f32(int64_t rounds, int x, int y) noexcept {
    const __m512 a = _mm512_set1_ps(static_cast<float>(x)), b = _mm512_set1_ps(static_cast<float>(y));
    __m512 acc[kAccumulators];
    for (int j = 0; j < kAccumulators; ++j) acc[j] = _mm512_set1_ps(static_cast<float>(j));
    for (int64_t round = 0; round < rounds; ++round) {
        for (__m512& sum : acc) sum = _mm512_fmadd_ps(a, b, sum);
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

const RoofLoop kRoofF32{run_f32, kAccumulators, 16, 1};

uint64_t read_sum(const std::byte* data, int64_t bytes) noexcept {
    constexpr int kVectors = 8;
    __m512i acc[kVectors];
    for (__m512i& sum : acc) sum = _mm512_setzero_si512();
    for (int64_t i = 0; i < bytes; i += kVectors * 64) {
        for (int v = 0; v < kVectors; ++v) {
            const std::byte* p = data + i + v * 64;
            _mm_prefetch(reinterpret_cast<const char*>(p + kReadAhead), _MM_HINT_T0);
            acc[v] = _mm512_add_epi64(acc[v], _mm512_load_si512(p));
        }
    }
    uint64_t total = 0;
    for (const __m512i& sum : acc) {
        uint64_t lanes[8];
        _mm512_storeu_si512(lanes, sum);
        for (const uint64_t lane : lanes) total += lane;
    }
    return total;
}

}  // namespace pocketvlm::avx512
