// Pixels times 22-bit weights by the 16-bit multiply-add of pairs: a weight is split into two halves, each of
// which meets two pixels per 32-bit lane. The sum of a lane may wrap on the way: what is asked for fits, and
// addition modulo 2^32 does not mind the order.
#include <immintrin.h>

#include "kernels/resize/resize.h"

namespace pocketvlm::avx2 {
namespace {

constexpr int32_t kHalf = 1 << (kResizeFractionBits - 1);
constexpr int kLowBits = 15;
constexpr int64_t kVector = 32;

// weight = high_half * 2^15 + low_half; both fit 16 bits with their sign.
int16_t high_half(int32_t weight) noexcept {
    return static_cast<int16_t>((weight + (1 << (kLowBits - 1))) >> kLowBits);
}
int16_t low_half(int32_t weight) noexcept {
    return static_cast<int16_t>(weight - high_half(weight) * (1 << kLowBits));
}

// The sums of products with the two halves.
struct Sums {
    __m256i high, low;

    void start() noexcept {
        high = _mm256_setzero_si256();
        low = _mm256_set1_epi32(kHalf);
    }
    void add(__m256i pixels, __m256i high_weights, __m256i low_weights) noexcept {
        high = _mm256_add_epi32(high, _mm256_madd_epi16(pixels, high_weights));
        low = _mm256_add_epi32(low, _mm256_madd_epi16(pixels, low_weights));
    }
    // Shifted down to pixels that are not clipped yet.
    __m256i pixels() const noexcept {
        return _mm256_srai_epi32(_mm256_add_epi32(_mm256_slli_epi32(high, kLowBits), low),
                                 kResizeFractionBits);
    }
};

uint8_t round_to_u8(int32_t sum) noexcept {
    const int32_t value = sum >> kResizeFractionBits;
    return static_cast<uint8_t>(value < 0 ? 0 : value > 255 ? 255 : value);
}

int32_t add_across(__m256i sums) noexcept {
    __m128i four = _mm_add_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1));
    four = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0x4e));
    four = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0xb1));
    return _mm_cvtsi128_si32(four);
}

}  // namespace

void resize_row_u8(const uint8_t* src, const ResizeTaps& taps, uint8_t* dst) noexcept {
    for (int32_t x = 0; x < taps.size; ++x) {
        const int32_t* weights = taps.weights + int64_t{x} * taps.stride;
        const uint8_t* pixels = src + taps.first[x];
        const int32_t count = taps.count[x];
        __m256i sums = _mm256_setzero_si256();
        int32_t k = 0;
        for (; k + 8 <= count; k += 8) {
            const __m256i eight =
                _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(pixels + k)));
            const __m256i factor = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(weights + k));
            sums = _mm256_add_epi32(sums, _mm256_mullo_epi32(eight, factor));
        }
        int32_t sum = kHalf + add_across(sums);
        for (; k < count; ++k) sum += weights[k] * pixels[k];
        dst[x] = round_to_u8(sum);
    }
}

// ---- Columns.
namespace {

constexpr int kMaxColumnPairs = 128;  // more taps are left to the scalar kernel

struct PairWeights {
    int16_t high[2], low[2];
};

__m256i broadcast(const int16_t (&pair)[2]) noexcept {
    int32_t bits;
    __builtin_memcpy(&bits, pair, sizeof bits);
    return _mm256_set1_epi32(bits);
}

}  // namespace

void resize_columns_u8(const uint8_t* const* rows, const int32_t* weights, int32_t count, int64_t n,
                       uint8_t* const* dst) noexcept {
    const int32_t num_pairs = (count + 1) / 2;
    if (num_pairs > kMaxColumnPairs) return scalar::resize_columns_u8(rows, weights, count, n, dst);

    PairWeights halves[kMaxColumnPairs][2];
    for (int32_t k = 0; k < 2 * num_pairs; ++k) {
        for (int o = 0; o < 2; ++o) {
            const int32_t weight = k < count ? weights[o * count + k] : 0;
            halves[k / 2][o].high[k % 2] = high_half(weight);
            halves[k / 2][o].low[k % 2] = low_half(weight);
        }
    }

    for (int64_t i = 0; i < n; i += 16) {
        Sums sums[2][2];  // of each output, columns 0..7 and 8..15
        for (auto& output : sums) {
            for (Sums& eight : output) eight.start();
        }
        for (int32_t g = 0; g < num_pairs; ++g) {
            const uint8_t* second = rows[2 * g + 1 < count ? 2 * g + 1 : 2 * g];
            const __m128i a = _mm_loadu_si128(reinterpret_cast<const __m128i*>(rows[2 * g] + i));
            const __m128i b = _mm_loadu_si128(reinterpret_cast<const __m128i*>(second + i));
            const __m256i left = _mm256_cvtepu8_epi16(_mm_unpacklo_epi8(a, b));
            const __m256i right = _mm256_cvtepu8_epi16(_mm_unpackhi_epi8(a, b));
            for (int o = 0; o < 2; ++o) {
                const __m256i high = broadcast(halves[g][o].high), low = broadcast(halves[g][o].low);
                sums[o][0].add(left, high, low);
                sums[o][1].add(right, high, low);
            }
        }
        for (int o = 0; o < 2; ++o) {
            // Packing clips, first to int16, then to uint8, and works on each 128 bits by themselves.
            const __m256i words = _mm256_packs_epi32(sums[o][0].pixels(), sums[o][1].pixels());
            const __m256i bytes = _mm256_permute4x64_epi64(words, 0xd8);
            _mm_storeu_si128(
                reinterpret_cast<__m128i*>(dst[o] + i),
                _mm_packus_epi16(_mm256_castsi256_si128(bytes), _mm256_extracti128_si256(bytes, 1)));
        }
    }
}

// ---- Rows, gathered.
namespace {

constexpr int kLanes = 8;  // outputs of a block, four in each 128 bits

// Eight outputs, x .. x + 7. Sixteen source bytes hold what four of them weigh of one pair of taps.
struct alignas(kVector) GatherBlock {
    uint8_t byte[kVector];  // of the sixteen, for vpshufb, which also widens pixels to 16 bits
    int32_t base[2];        // the first of the sixteen bytes of pair 0; those of pair g are 2 g further on
    int32_t num_pairs;
    // Followed by the weights, [num_pairs, 2, 16]: high halves and low halves.
};

struct alignas(kVector) GatherHeader {
    int32_t num_blocks;
};

constexpr int64_t kPairBytes = 2 * kVector;
constexpr uint8_t kZero = 0x80;  // vpshufb puts a zero there

// The output that lane j of the block at x computes: lanes beyond the end repeat the last one.
int32_t output_of(const ResizeTaps& taps, int32_t x, int32_t j) noexcept {
    return x + j < taps.size ? x + j : taps.size - 1;
}

int32_t pairs_of(const ResizeTaps& taps, int32_t x) noexcept {
    int32_t most = 0;
    for (int32_t j = 0; j < kLanes; ++j) {
        const int32_t pairs = (taps.count[output_of(taps, x, j)] + 1) / 2;
        if (pairs > most) most = pairs;
    }
    return most;
}

int64_t gather_packed_bytes(const ResizeTaps& taps) noexcept {
    int64_t bytes = sizeof(GatherHeader);
    for (int32_t x = 0; x < taps.size; x += kLanes) {
        for (int32_t j = 0; j < kLanes; j += 4) {
            const int32_t base = taps.first[output_of(taps, x, j)];
            if (taps.first[output_of(taps, x, j + 3)] - base + 2 > 16) return 0;
        }
        bytes += static_cast<int64_t>(sizeof(GatherBlock)) + pairs_of(taps, x) * kPairBytes;
    }
    return bytes;
}

void gather_pack(const ResizeTaps& taps, std::byte* packed) noexcept {
    reinterpret_cast<GatherHeader*>(packed)->num_blocks = (taps.size + kLanes - 1) / kLanes;
    packed += sizeof(GatherHeader);
    for (int32_t x = 0; x < taps.size; x += kLanes) {
        auto& block = *reinterpret_cast<GatherBlock*>(packed);
        block.num_pairs = pairs_of(taps, x);
        for (int half = 0; half < 2; ++half) block.base[half] = taps.first[output_of(taps, x, 4 * half)];
        auto* weights = reinterpret_cast<int16_t*>(packed + sizeof(GatherBlock));
        for (int32_t j = 0; j < kLanes; ++j) {
            const int32_t output = output_of(taps, x, j);
            const int32_t first = taps.first[output] - block.base[j / 4];
            const uint8_t bytes[4] = {static_cast<uint8_t>(first), kZero, static_cast<uint8_t>(first + 1),
                                      kZero};
            __builtin_memcpy(block.byte + 4 * j, bytes, sizeof bytes);
            for (int32_t k = 0; k < 2 * block.num_pairs; ++k) {
                const int32_t weight =
                    k < taps.count[output] ? taps.weights[int64_t{output} * taps.stride + k] : 0;
                int16_t* pair = weights + (k / 2) * 32 + 2 * j + k % 2;
                pair[0] = high_half(weight);
                pair[16] = low_half(weight);
            }
        }
        packed += sizeof(GatherBlock) + block.num_pairs * kPairBytes;
    }
}

void store(__m128i eight, uint8_t* dst) noexcept { _mm_storel_epi64(reinterpret_cast<__m128i*>(dst), eight); }

// Writes a block of four rows.
void resize_block(const uint8_t* const* src, const GatherBlock& block, const std::byte* weights, int64_t x,
                  uint8_t* const* dst) noexcept {
    const __m256i byte = _mm256_load_si256(reinterpret_cast<const __m256i*>(block.byte));
    Sums sums[kGatherRows];
    for (Sums& row : sums) row.start();
    for (int32_t g = 0; g < block.num_pairs; ++g, weights += kPairBytes) {
        const __m256i high = _mm256_load_si256(reinterpret_cast<const __m256i*>(weights));
        const __m256i low = _mm256_load_si256(reinterpret_cast<const __m256i*>(weights + kVector));
        for (int r = 0; r < kGatherRows; ++r) {
            const uint8_t* pixels = src[r] + 2 * g;
            const __m256i window =
                _mm256_loadu2_m128i(reinterpret_cast<const __m128i*>(pixels + block.base[1]),
                                    reinterpret_cast<const __m128i*>(pixels + block.base[0]));
            sums[r].add(_mm256_shuffle_epi8(window, byte), high, low);
        }
    }
    const __m256i first_two = _mm256_packs_epi32(sums[0].pixels(), sums[1].pixels());
    const __m256i last_two = _mm256_packs_epi32(sums[2].pixels(), sums[3].pixels());
    // Four outputs of each row in the lower 128 bits, four in the upper: bring those of a row together.
    const __m256i by_rows = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    const __m256i rows = _mm256_permutevar8x32_epi32(_mm256_packus_epi16(first_two, last_two), by_rows);
    const __m128i lower = _mm256_castsi256_si128(rows), upper = _mm256_extracti128_si256(rows, 1);
    store(lower, dst[0] + x);
    store(_mm_unpackhi_epi64(lower, lower), dst[1] + x);
    store(upper, dst[2] + x);
    store(_mm_unpackhi_epi64(upper, upper), dst[3] + x);
}

void gather_run(const uint8_t* const* src, int64_t num_rows, const std::byte* packed,
                uint8_t* const* dst) noexcept {
    const int32_t num_blocks = reinterpret_cast<const GatherHeader*>(packed)->num_blocks;
    packed += sizeof(GatherHeader);
    for (int64_t b = 0; b < num_blocks; ++b) {
        const auto& block = *reinterpret_cast<const GatherBlock*>(packed);
        packed += sizeof(GatherBlock);
        for (int64_t r = 0; r < num_rows; r += kGatherRows) {
            resize_block(src + r, block, packed, b * kLanes, dst + r);
        }
        packed += block.num_pairs * kPairBytes;
    }
}

}  // namespace

const ResizeGather kResizeGather{gather_packed_bytes, gather_pack, gather_run};

}  // namespace pocketvlm::avx2
