#include <immintrin.h>

#include "kernels/unpack/unpack.h"

namespace pocketvlm::avx2 {
namespace {

constexpr int64_t kStep = 32;  // pixels at a time, sixteen in each 128 bits

__m256i load_halves(const uint8_t* lower, const uint8_t* upper) noexcept {
    return _mm256_loadu2_m128i(reinterpret_cast<const __m128i*>(upper),
                               reinterpret_cast<const __m128i*>(lower));
}

// Where the sixteen values of one channel are in the 48 bytes of sixteen pixels. Byte i of the three
// registers of sixteen bytes holds channels i, i + 1 and i + 2 modulo 3: each channel is once at every i, so
// that blending brings a channel into one register, and one shuffle into order.
struct ChannelBytes {
    alignas(32) uint8_t from_second[32], from_third[32], order[32];
};

constexpr ChannelBytes bytes_of(int channel) {
    ChannelBytes bytes{};
    for (int half = 0; half < 32; half += 16) {
        for (int x = 0; x < 16; ++x) {
            const int position = 3 * x + channel, i = position % 16;
            bytes.order[half + x] = static_cast<uint8_t>(i);
            bytes.from_second[half + i] = position / 16 == 1 ? 0xff : 0;
            bytes.from_third[half + i] = position / 16 == 2 ? 0xff : 0;
        }
    }
    return bytes;
}

constexpr ChannelBytes kChannels[3] = {bytes_of(0), bytes_of(1), bytes_of(2)};

__m256i load(const uint8_t (&bytes)[32]) noexcept {
    return _mm256_load_si256(reinterpret_cast<const __m256i*>(bytes));
}

constexpr int64_t kWordStep = 16;  // pixels at a time, where channels become 16-bit numbers

// Channel c of eight RGBA pixels in each of a and b, as 16-bit numbers; in each half of the result four of a,
// then four of b.
__m256i channel(__m256i a, __m256i b, int c) noexcept {
    const __m256i byte = _mm256_set1_epi32(0xff);
    const __m128i shift = _mm_cvtsi32_si128(8 * c);
    return _mm256_packus_epi32(_mm256_and_si256(_mm256_srl_epi32(a, shift), byte),
                               _mm256_and_si256(_mm256_srl_epi32(b, shift), byte));
}

// Sixteen numbers that lie as `channel` leaves them, in order, as bytes with saturation.
void store_channel(__m256i words, uint8_t* out) noexcept {
    const __m128i a = _mm256_castsi256_si128(words), b = _mm256_extracti128_si256(words, 1);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out),
                     _mm_packus_epi16(_mm_unpacklo_epi64(a, b), _mm_unpackhi_epi64(a, b)));
}

// (257 * (value * alpha + 255 * (255 - alpha) + 128)) >> 16: both the sum and 257 fit 16 bits.
__m256i over_white(__m256i value, __m256i alpha, __m256i white) noexcept {
    return _mm256_mulhi_epu16(_mm256_add_epi16(_mm256_mullo_epi16(value, alpha), white),
                              _mm256_set1_epi16(257));
}

// The factors a and b of two 16-bit numbers side by side.
__m256i pair(int32_t a, int32_t b) noexcept {
    return _mm256_set1_epi32(
        static_cast<int32_t>((static_cast<uint32_t>(b) << 16) | (static_cast<uint32_t>(a) & 0xffff)));
}

// Luma and chroma of sixteen pixels, as 16-bit numbers without their offsets.
struct YuvWords {
    __m256i y, u, v;
};

struct YuvFactors {
    __m256i r_yv, g_yu, g_v1, b_yu, half;
};

// Rounded down and narrowed to 16 bits; lo and hi as unpacklo and unpackhi have left them.
__m256i to_words(__m256i lo, __m256i hi) noexcept {
    return _mm256_packs_epi32(_mm256_srai_epi32(lo, kYuvFractionBits),
                              _mm256_srai_epi32(hi, kYuvFractionBits));
}

void store_words(__m256i words, uint8_t* out) noexcept {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out),
                     _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1)));
}

__m256i two_products(__m256i lo_or_hi, __m256i factors, __m256i half) noexcept {
    return _mm256_add_epi32(_mm256_madd_epi16(lo_or_hi, factors), half);
}

void store_rgb(const YuvWords& in, const YuvFactors& f, uint8_t* r, uint8_t* g, uint8_t* b) noexcept {
    const __m256i zero = _mm256_setzero_si256();
    const __m256i yv_lo = _mm256_unpacklo_epi16(in.y, in.v), yv_hi = _mm256_unpackhi_epi16(in.y, in.v);
    const __m256i yu_lo = _mm256_unpacklo_epi16(in.y, in.u), yu_hi = _mm256_unpackhi_epi16(in.y, in.u);
    const __m256i v_lo = _mm256_unpacklo_epi16(in.v, zero), v_hi = _mm256_unpackhi_epi16(in.v, zero);
    store_words(to_words(two_products(yv_lo, f.r_yv, f.half), two_products(yv_hi, f.r_yv, f.half)), r);
    store_words(to_words(two_products(yu_lo, f.b_yu, f.half), two_products(yu_hi, f.b_yu, f.half)), b);
    const __m256i g_lo = two_products(yu_lo, f.g_yu, two_products(v_lo, f.g_v1, f.half));
    const __m256i g_hi = two_products(yu_hi, f.g_yu, two_products(v_hi, f.g_v1, f.half));
    store_words(to_words(g_lo, g_hi), g);
}

// Each of eight bytes twice, as 16-bit numbers less 128.
__m256i doubled(__m128i chroma) noexcept {
    return _mm256_sub_epi16(_mm256_cvtepu8_epi16(_mm_unpacklo_epi8(chroma, chroma)), _mm256_set1_epi16(128));
}

}  // namespace

void unpack_rgb(const uint8_t* src, int64_t n, const PlaneRows& out) noexcept {
    uint8_t* const planes[3] = {out.r, out.g, out.b};
    int64_t x = 0;
    for (; x + kStep <= n; x += kStep, src += 3 * kStep) {
        const __m256i first = load_halves(src, src + 48);
        const __m256i second = load_halves(src + 16, src + 64);
        const __m256i third = load_halves(src + 32, src + 80);
        for (int c = 0; c < 3; ++c) {
            const __m256i two = _mm256_blendv_epi8(first, second, load(kChannels[c].from_second));
            const __m256i all = _mm256_blendv_epi8(two, third, load(kChannels[c].from_third));
            _mm256_storeu_si256(reinterpret_cast<__m256i*>(planes[c] + x),
                                _mm256_shuffle_epi8(all, load(kChannels[c].order)));
        }
    }
    scalar::unpack_rgb(src, n - x, {out.r + x, out.g + x, out.b + x});
}

void unpack_rgba(const uint8_t* src, int64_t n, const PlaneRows& out) noexcept {
    int64_t x = 0;
    for (; x + kWordStep <= n; x += kWordStep) {
        const auto* pixels = reinterpret_cast<const __m256i*>(src + 4 * x);
        const __m256i a = _mm256_loadu_si256(pixels), b = _mm256_loadu_si256(pixels + 1);
        const __m256i alpha = channel(a, b, 3);
        // 255 * 255 + 128 - 255 * alpha
        const __m256i white = _mm256_sub_epi16(_mm256_set1_epi16(static_cast<int16_t>(65153)),
                                               _mm256_mullo_epi16(alpha, _mm256_set1_epi16(255)));
        store_channel(over_white(channel(a, b, 0), alpha, white), out.r + x);
        store_channel(over_white(channel(a, b, 1), alpha, white), out.g + x);
        store_channel(over_white(channel(a, b, 2), alpha, white), out.b + x);
    }
    scalar::unpack_rgba(src + 4 * x, n - x, {out.r + x, out.g + x, out.b + x});
}

void unpack_yuv420(const uint8_t* luma, const uint8_t* u, const uint8_t* v, int64_t chroma_step,
                   const YuvMatrix& matrix, int64_t n, const PlaneRows& out) noexcept {
    const YuvFactors factors{pair(matrix.y, matrix.r_v), pair(matrix.y, matrix.g_u), pair(matrix.g_v, 0),
                             pair(matrix.y, matrix.b_u), _mm256_set1_epi32(1 << (kYuvFractionBits - 1))};
    const __m256i offset = _mm256_set1_epi16(static_cast<int16_t>(matrix.y_offset));
    const __m128i split = _mm_setr_epi8(0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15);
    int64_t x = 0;
    for (; x + kWordStep <= n; x += kWordStep) {
        const int64_t k = x / 2 * chroma_step;
        __m128i us, vs;
        if (chroma_step == 2) {
            us = _mm_shuffle_epi8(_mm_loadu_si128(reinterpret_cast<const __m128i*>(u + k)), split);
            vs = _mm_unpackhi_epi64(us, us);
        } else {
            us = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(u + k));
            vs = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(v + k));
        }
        const __m256i y = _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(luma + x)));
        store_rgb({_mm256_sub_epi16(y, offset), doubled(us), doubled(vs)}, factors, out.r + x, out.g + x,
                  out.b + x);
    }
    const int64_t k = x / 2 * chroma_step;
    scalar::unpack_yuv420(luma + x, u + k, v + k, chroma_step, matrix, n - x,
                          {out.r + x, out.g + x, out.b + x});
}

}  // namespace pocketvlm::avx2
