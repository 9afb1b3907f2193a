#include <immintrin.h>

#include "kernels/roof/roof.h"

namespace pocketvlm::avx2 {
namespace {

constexpr int kAccumulators = 12;

double run_f32(int64_t rounds, int x, int y) noexcept {
    const __m256 a = _mm256_set1_ps(static_cast<float>(x)), b = _mm256_set1_ps(static_cast<float>(y));
    __m256 acc[kAccumulators];
    for (int j = 0; j < kAccumulators; ++j) acc[j] = _mm256_set1_ps(static_cast<float>(j));
    for (int64_t round = 0; round < rounds; ++round) {
        for (__m256& sum : acc) sum = _mm256_fmadd_ps(a, b, sum);
    }
    double total = 0;
    for (const __m256& sum : acc) {
        float lanes[8];
        _mm256_storeu_ps(lanes, sum);
        for (const float lane : lanes) total += lane;
    }
    return total;
}

// As gemm's dot_four: four products in three instructions. Assembly because the compiler would compute the
// same products only once.
__m256i dot_four(__m256i sum, __m256i a, __m256i b, __m256i ones) noexcept {
    __m256i pairs;
    asm("vpmaddubsw %3, %2, %1\n\tvpmaddwd %4, %1, %1\n\tvpaddd %1, %0, %0"
        : "+x"(sum), "=&x"(pairs)
        : "x"(a), "x"(b), "x"(ones));
    return sum;
}

double run_i8(int64_t rounds, int x, int y) noexcept {
    const __m256i a = _mm256_set1_epi8(static_cast<char>(x)), b = _mm256_set1_epi8(static_cast<char>(y)),
                  ones = _mm256_set1_epi16(1);
    __m256i acc[kAccumulators];
    for (int j = 0; j < kAccumulators; ++j) acc[j] = _mm256_set1_epi32(j);
    for (int64_t round = 0; round < rounds; ++round) {
        for (__m256i& sum : acc) sum = dot_four(sum, a, b, ones);
    }
    double total = 0;
    for (const __m256i& sum : acc) {
        int32_t lanes[8];
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(lanes), sum);
        for (const int32_t lane : lanes) total += lane;
    }
    return total;
}

}  // namespace

const RoofLoop kRoofF32{run_f32, kAccumulators, 8, 1};
const RoofLoop kRoofI8{run_i8, kAccumulators, 8, 4};

uint64_t read_sum(const std::byte* data, int64_t bytes) noexcept {
    constexpr int kVectors = 8;
    __m256i acc[kVectors];
    for (__m256i& sum : acc) sum = _mm256_setzero_si256();
    for (int64_t i = 0; i < bytes; i += kVectors * 32) {
        for (int v = 0; v < kVectors; ++v) {
            const std::byte* p = data + i + v * 32;
            if (v % 2 == 0) _mm_prefetch(reinterpret_cast<const char*>(p + kReadAhead), _MM_HINT_T0);
            acc[v] = _mm256_add_epi64(acc[v], _mm256_load_si256(reinterpret_cast<const __m256i*>(p)));
        }
    }
    uint64_t total = 0;
    for (const __m256i& sum : acc) {
        uint64_t lanes[4];
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(lanes), sum);
        for (const uint64_t lane : lanes) total += lane;
    }
    return total;
}

}  // namespace pocketvlm::avx2
