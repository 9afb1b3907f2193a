#include <immintrin.h>

#include "kernels/resize/resize.h"
#include "kernels/resize/weight_planes.inl"

namespace pocketvlm::avx512_vnni {
namespace {

constexpr int kMaxColumnGroups = 64;  // more taps are left to the other kernel

// Four rows of 64 bytes -> four vectors whose 32-bit lanes hold one column of the four rows. Within each 128
// bits, out[v] has columns 4 v .. 4 v + 3: the order that packing undoes.
void interleave(const uint8_t* const (&rows)[kGroup], int64_t i, __m512i (&out)[kGroup]) noexcept {
    const __m512i a = _mm512_loadu_si512(rows[0] + i), b = _mm512_loadu_si512(rows[1] + i);
    const __m512i c = _mm512_loadu_si512(rows[2] + i), d = _mm512_loadu_si512(rows[3] + i);
    const __m512i ab_low = _mm512_unpacklo_epi8(a, b), ab_high = _mm512_unpackhi_epi8(a, b);
    const __m512i cd_low = _mm512_unpacklo_epi8(c, d), cd_high = _mm512_unpackhi_epi8(c, d);
    out[0] = _mm512_unpacklo_epi16(ab_low, cd_low);
    out[1] = _mm512_unpackhi_epi16(ab_low, cd_low);
    out[2] = _mm512_unpacklo_epi16(ab_high, cd_high);
    out[3] = _mm512_unpackhi_epi16(ab_high, cd_high);
}

// Four source rows and what two outputs make of them.
struct ColumnGroup {
    const uint8_t* rows[kGroup];
    uint8_t bytes[2][kPlanes][kGroup];
    bool weighs[2];  // whether each output weighs any of the rows

    __m512i weight(int output, int plane) const noexcept {
        int32_t four;
        __builtin_memcpy(&four, bytes[output][plane], sizeof four);
        return _mm512_set1_epi32(four);
    }
};

// Up to eight taps, as when an image grows.
void resize_columns_of_two_groups(const ColumnGroup (&groups)[2], int64_t n, uint8_t* const* dst) noexcept {
    for (int64_t i = 0; i < n; i += kVector) {
        __m512i pixels[2][kGroup];
        for (int g = 0; g < 2; ++g) interleave(groups[g].rows, i, pixels[g]);
        for (int o = 0; o < 2; ++o) {
            __m512i sums[kGroup];
            for (__m512i& sum : sums) sum = start_of_highest();
            for (int p = kPlanes - 1; p >= 0; --p) {
                for (int g = 0; g < 2; ++g) {
                    const __m512i weight = groups[g].weight(o, p);
                    for (int v = 0; v < kGroup; ++v) dot_four(sums[v], pixels[g][v], weight);
                }
                if (p == 0) break;
                for (__m512i& sum : sums) sum = next_plane(sum);
            }
            _mm512_storeu_si512(dst[o] + i, pack(pixels_of(sums[0]), pixels_of(sums[1]), pixels_of(sums[2]),
                                                 pixels_of(sums[3])));
        }
    }
}

void resize_columns_of_groups(const ColumnGroup* groups, int32_t num_groups, int64_t n,
                              uint8_t* const* dst) noexcept {
    for (int64_t i = 0; i < n; i += kVector) {
        __m512i low[2][kGroup], middle[2][kGroup], high[2][kGroup];
        for (int o = 0; o < 2; ++o) {
            for (int v = 0; v < kGroup; ++v) {
                low[o][v] = _mm512_set1_epi32(kHalf);
                middle[o][v] = high[o][v] = _mm512_setzero_si512();
            }
        }
        for (int32_t g = 0; g < num_groups; ++g) {
            __m512i pixels[kGroup];
            interleave(groups[g].rows, i, pixels);
            for (int o = 0; o < 2; ++o) {
                if (!groups[g].weighs[o]) continue;
                for (int v = 0; v < kGroup; ++v) dot_four(low[o][v], pixels[v], groups[g].weight(o, 0));
                for (int v = 0; v < kGroup; ++v) dot_four(middle[o][v], pixels[v], groups[g].weight(o, 1));
                for (int v = 0; v < kGroup; ++v) dot_four(high[o][v], pixels[v], groups[g].weight(o, 2));
            }
        }
        for (int o = 0; o < 2; ++o) {
            __m512i four[kGroup];
            for (int v = 0; v < kGroup; ++v) four[v] = pixels_of(low[o][v], middle[o][v], high[o][v]);
            _mm512_storeu_si512(dst[o] + i, pack(four[0], four[1], four[2], four[3]));
        }
    }
}

}  // namespace

void resize_columns_u8(const uint8_t* const* rows, const int32_t* weights, int32_t count, int64_t n,
                       uint8_t* const* dst) noexcept {
    const int32_t num_groups = (count + kGroup - 1) / kGroup;
    if (num_groups > kMaxColumnGroups) return avx2::resize_columns_u8(rows, weights, count, n, dst);

    ColumnGroup groups[kMaxColumnGroups];
    const int32_t num_filled = num_groups < 2 ? 2 : num_groups;
    for (int32_t g = 0; g < num_filled; ++g) groups[g].weighs[0] = groups[g].weighs[1] = false;
    for (int32_t k = 0; k < num_filled * kGroup; ++k) {
        const bool is_tap = k < count;
        ColumnGroup& group = groups[k / kGroup];
        group.rows[k % kGroup] = rows[is_tap ? k : count - 1];
        for (int o = 0; o < 2; ++o) {
            const int32_t weight = is_tap ? weights[o * count + k] : 0;
            group.weighs[o] |= weight != 0;
            for (int p = 0; p < kPlanes; ++p) group.bytes[o][p][k % kGroup] = weight_byte(weight, p);
        }
    }
    if (num_groups <= 2) return resize_columns_of_two_groups({groups[0], groups[1]}, n, dst);
    resize_columns_of_groups(groups, num_groups, n, dst);
}

}  // namespace pocketvlm::avx512_vnni
