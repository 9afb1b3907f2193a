#include <immintrin.h>

#include "kernels/resize/resize.h"
#include "kernels/resize/weight_planes.inl"

namespace pocketvlm::avx512_vnni {
namespace {

// sum += dot of words, two per 32-bit lane.
void dot_two(__m512i& sum, __m512i words, __m512i signed_words) noexcept {
    asm("vpdpwssd %2, %1, %0" : "+v"(sum) : "v"(words), "v"(signed_words));
}

// Word 0 or 1 of a weight = word[0] + word[1] * 2^16, words in [-2^15, 2^15).
int16_t weight_word(int32_t weight, int word) noexcept {
    const auto low = static_cast<int16_t>(weight);
    return word == 0 ? low : static_cast<int16_t>((weight - low) >> 16);
}

enum class BlockKind : int32_t {
    any,
    eight_taps,  // two groups, whose pixels are in the same sixteen bytes: an image grows
    six_taps,    // of the second group two taps at most: a product of words takes both
    in_order,    // output j weighs bytes 4 j .. 4 j + 3 of each group: an image shrinks to a quarter
};

// Sixteen outputs, x .. x + 15. A vector of 64 source bytes holds what they weigh of one group of four taps;
// each quarter takes sixteen bytes of it, and of those each output its four. Blocks that do the same, each
// `step` bytes further on, are described once: where sizes have a large common factor, nearly all do.
struct alignas(kVector) GatherBlock {
    int32_t quarter[kLanes];  // 32-bit words of the 64 bytes, for vpermd
    uint8_t byte[kVector];    // of each quarter, for vpshufb
    int32_t base;             // the first of the 64 bytes of group 0; those of group g are 4 g further on
    int32_t num_groups;
    BlockKind kind;
    int32_t num_blocks;
    int32_t step;
    // Followed by the weights, [num_groups, kPlanes, 64]; in the second group of six taps the words of weight
    // = word[0] + word[1] * 2^16.
};

struct alignas(kVector) GatherHeader {
    int32_t num_blocks;
};

constexpr int64_t kGroupBytes = kPlanes * kVector;

struct Block {
    int32_t x, num_outputs, base, num_groups;
    bool fits;
    BlockKind kind;
};

// The output that lane j computes: lanes beyond the end repeat the last one.
int32_t output_of(const Block& block, int32_t j) noexcept {
    return block.x + (j < block.num_outputs ? j : block.num_outputs - 1);
}

// The 32-bit word of the 64 bytes where the sixteen bytes of quarter q start.
int32_t quarter_start(const ResizeTaps& taps, const Block& block, int32_t q) noexcept {
    return (taps.first[output_of(block, kQuarters * q)] - block.base) / 4;
}

// Where in the sixteen bytes of its quarter lane j finds its first pixel.
int32_t first_byte(const ResizeTaps& taps, const Block& block, int32_t j) noexcept {
    return taps.first[output_of(block, j)] - block.base - 4 * quarter_start(taps, block, j / kQuarters);
}

// Whether every quarter holds `num_taps` taps of its outputs.
bool reaches(const ResizeTaps& taps, const Block& block, int32_t num_taps) noexcept {
    for (int32_t j = 0; j < kLanes; ++j) {
        if (quarter_start(taps, block, j / kQuarters) > kLanes - 4) return false;
        if (first_byte(taps, block, j) + num_taps > 16) return false;
    }
    return true;
}

bool is_in_order(const ResizeTaps& taps, const Block& block) noexcept {
    for (int32_t j = 0; j < kLanes; ++j) {
        if (taps.first[output_of(block, j)] - block.base != kGroup * j) return false;
    }
    return true;
}

bool has_six_taps(const ResizeTaps& taps, const Block& block) noexcept {
    for (int32_t j = 0; j < block.num_outputs; ++j) {
        if (taps.count[block.x + j] > kGroup + 2) return false;
    }
    return true;
}

// The 64 bytes may start up to three before the first source pixel: quarters start at multiples of four from
// there, and of four ways to place those, the windows may fit only one.
Block block_at(const ResizeTaps& taps, int32_t x) noexcept {
    Block block{x, taps.size - x < kLanes ? taps.size - x : kLanes, 0, 0, false, BlockKind::any};
    for (int32_t j = 0; j < block.num_outputs; ++j) {
        const int32_t groups = (taps.count[x + j] + kGroup - 1) / kGroup;
        if (groups > block.num_groups) block.num_groups = groups;
    }
    for (int32_t shift = 0; shift < 4 && !block.fits; ++shift) {
        block.base = taps.first[x] - shift;
        block.fits = reaches(taps, block, kGroup);
    }
    if (is_in_order(taps, block)) {
        block.kind = BlockKind::in_order;
    } else if (block.num_groups == 2 && reaches(taps, block, 2 * kGroup)) {
        block.kind = has_six_taps(taps, block) ? BlockKind::six_taps : BlockKind::eight_taps;
    }
    return block;
}

bool is_full(const Block& block) noexcept { return block.num_outputs == kLanes; }

int32_t weight_of(const ResizeTaps& taps, const Block& block, int32_t j, int32_t k) noexcept {
    const int32_t output = output_of(block, j);
    return k < taps.count[output] ? taps.weights[int64_t{output} * taps.stride + k] : 0;
}

// Whether two blocks do the same, from their first byte on.
bool are_alike(const ResizeTaps& taps, const Block& a, const Block& b) noexcept {
    if (a.num_groups != b.num_groups || a.kind != b.kind || !is_full(a) || !is_full(b)) return false;
    for (int32_t j = 0; j < kLanes; ++j) {
        if (taps.first[a.x + j] - a.base != taps.first[b.x + j] - b.base) return false;
        for (int32_t k = 0; k < a.num_groups * kGroup; ++k) {
            if (weight_of(taps, a, j, k) != weight_of(taps, b, j, k)) return false;
        }
    }
    return true;
}

// The block at x and those behind it that are described with it.
struct Run {
    Block block;
    int32_t num_blocks, step;
};

Run run_at(const ResizeTaps& taps, int32_t x) noexcept {
    Run run{block_at(taps, x), 1, 0};
    for (int32_t next = x + kLanes; next < taps.size; next += kLanes) {
        const Block block = block_at(taps, next);
        if (run.num_blocks == 1) run.step = block.base - run.block.base;
        if (block.base != run.block.base + run.num_blocks * run.step) break;
        if (!are_alike(taps, run.block, block)) break;
        ++run.num_blocks;
    }
    return run;
}

int64_t packed_bytes(const Block& block) noexcept {
    return static_cast<int64_t>(sizeof(GatherBlock)) + block.num_groups * kGroupBytes;
}

int64_t gather_packed_bytes(const ResizeTaps& taps) noexcept {
    int64_t bytes = sizeof(GatherHeader);
    for (int32_t x = 0; x < taps.size;) {
        const Run run = run_at(taps, x);
        if (!run.block.fits) return 0;
        bytes += packed_bytes(run.block);
        x += run.num_blocks * kLanes;
    }
    return bytes;
}

void gather_pack(const ResizeTaps& taps, std::byte* packed) noexcept {
    reinterpret_cast<GatherHeader*>(packed)->num_blocks = (taps.size + kLanes - 1) / kLanes;
    packed += sizeof(GatherHeader);
    for (int32_t x = 0; x < taps.size;) {
        const Run run = run_at(taps, x);
        const Block& block = run.block;
        auto& out = *reinterpret_cast<GatherBlock*>(packed);
        out.base = block.base;
        out.num_groups = block.num_groups;
        out.kind = block.kind;
        out.num_blocks = run.num_blocks;
        out.step = run.step;
        auto* weights = reinterpret_cast<uint8_t*>(packed + sizeof(GatherBlock));
        for (int32_t j = 0; j < kLanes; ++j) {
            out.quarter[j] = quarter_start(taps, block, j / kQuarters) + j % kQuarters;
            for (int32_t k = 0; k < kGroup; ++k) {
                out.byte[kGroup * j + k] = static_cast<uint8_t>(first_byte(taps, block, j) + k);
            }
            for (int32_t k = 0; k < block.num_groups * kGroup; ++k) {
                const int32_t weight = weight_of(taps, block, j, k);
                uint8_t* group = weights + k / kGroup * kGroupBytes + kGroup * j;
                if (block.kind == BlockKind::six_taps && k >= kGroup) {
                    if (k >= kGroup + 2) continue;
                    for (int word = 0; word < 2; ++word) {
                        const int16_t value = weight_word(weight, word);
                        __builtin_memcpy(group + word * kVector + 2 * (k - kGroup), &value, sizeof value);
                    }
                } else {
                    for (int p = 0; p < kPlanes; ++p)
                        group[p * kVector + k % kGroup] = weight_byte(weight, p);
                }
            }
        }
        packed += packed_bytes(block);
        x += run.num_blocks * kLanes;
    }
}

// The kernels below compute sixteen outputs of each of four windows, which start at `windows`: of four rows,
// or of four blocks of a row that are alike. The result has fours of outputs in turn.
static_assert(kGatherRows == kQuarters, "four windows of outputs fill one vector");

template <bool kInOrder>
class AnyTaps {
  public:
    AnyTaps(const GatherBlock& block, const std::byte* weights) noexcept
        : quarter_(_mm512_load_si512(block.quarter)),
          byte_(_mm512_load_si512(block.byte)),
          weights_(weights),
          num_groups_(block.num_groups) {}

    __m512i resize(const uint8_t* const (&windows)[kQuarters]) const noexcept {
        __m512i low[kQuarters], middle[kQuarters], high[kQuarters];
        for (int r = 0; r < kQuarters; ++r) {
            low[r] = _mm512_set1_epi32(kHalf);
            middle[r] = high[r] = _mm512_setzero_si512();
        }
        for (int32_t g = 0; g < num_groups_; ++g) {
            const std::byte* group = weights_ + g * kGroupBytes;
            const __m512i low_weight = _mm512_load_si512(group);
            const __m512i middle_weight = _mm512_load_si512(group + kVector);
            const __m512i high_weight = _mm512_load_si512(group + 2 * kVector);
            for (int r = 0; r < kQuarters; ++r) {
                __m512i pixels = _mm512_loadu_si512(windows[r] + kGroup * g);
                if (!kInOrder) {
                    pixels = _mm512_shuffle_epi8(_mm512_permutexvar_epi32(quarter_, pixels), byte_);
                }
                dot_four(low[r], pixels, low_weight);
                dot_four(middle[r], pixels, middle_weight);
                dot_four(high[r], pixels, high_weight);
            }
        }
        for (int r = 0; r < kQuarters; ++r) low[r] = pixels_of(low[r], middle[r], high[r]);
        return pack(low[0], low[1], low[2], low[3]);
    }

  private:
    __m512i quarter_, byte_;
    const std::byte* weights_;
    int32_t num_groups_;
};

// Four blocks in order whose windows follow each other without a gap: a group's pixels are those of the group
// before, a 32-bit word further on. They are taken from registers, because most loads of 64 bytes that start
// anywhere touch two cache lines.
class SlidingTaps {
  public:
    static bool fits(const GatherBlock& block) noexcept {
        // Fewer groups reach less far than what is loaded, more than two vectors.
        return block.step == kVector && block.num_groups >= 2 && block.num_groups <= kLanes + 1;
    }

    SlidingTaps(const GatherBlock& block, const std::byte* weights) noexcept
        : weights_(weights), num_groups_(block.num_groups) {}

    __m512i resize(const uint8_t* const (&windows)[kQuarters]) const noexcept {
        __m512i low[kQuarters], middle[kQuarters], high[kQuarters], pixels[kQuarters + 1];
        for (int r = 0; r < kQuarters; ++r) {
            low[r] = _mm512_set1_epi32(kHalf);
            middle[r] = high[r] = _mm512_setzero_si512();
            pixels[r] = _mm512_loadu_si512(windows[r]);
        }
        pixels[kQuarters] = _mm512_loadu_si512(windows[kQuarters - 1] + kVector);
        __m512i words = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
        for (int32_t g = 0; g < num_groups_; ++g) {
            const std::byte* group = weights_ + g * kGroupBytes;
            const __m512i low_weight = _mm512_load_si512(group);
            const __m512i middle_weight = _mm512_load_si512(group + kVector);
            const __m512i high_weight = _mm512_load_si512(group + 2 * kVector);
            for (int r = 0; r < kQuarters; ++r) {
                const __m512i four = _mm512_permutex2var_epi32(pixels[r], words, pixels[r + 1]);
                dot_four(low[r], four, low_weight);
                dot_four(middle[r], four, middle_weight);
                dot_four(high[r], four, high_weight);
            }
            words = _mm512_add_epi32(words, _mm512_set1_epi32(1));
        }
        for (int r = 0; r < kQuarters; ++r) low[r] = pixels_of(low[r], middle[r], high[r]);
        return pack(low[0], low[1], low[2], low[3]);
    }

  private:
    const std::byte* weights_;
    int32_t num_groups_;
};

class EightTaps {
  public:
    EightTaps(const GatherBlock& block, const std::byte* weights) noexcept
        : quarter_(_mm512_load_si512(block.quarter)),
          byte_(_mm512_load_si512(block.byte)),
          byte_of_next_(_mm512_add_epi8(byte_, _mm512_set1_epi8(kGroup))) {
        for (int g = 0; g < 2; ++g) {
            for (int p = 0; p < kPlanes; ++p) {
                weights_[g][p] = _mm512_load_si512(weights + g * kGroupBytes + p * kVector);
            }
        }
    }

    __m512i resize(const uint8_t* const (&windows)[kQuarters]) const noexcept {
        __m512i pixels[2][kQuarters], sums[kQuarters];
        for (int r = 0; r < kQuarters; ++r) {
            const __m512i window = _mm512_permutexvar_epi32(quarter_, _mm512_loadu_si512(windows[r]));
            pixels[0][r] = _mm512_shuffle_epi8(window, byte_);
            pixels[1][r] = _mm512_shuffle_epi8(window, byte_of_next_);
            sums[r] = start_of_highest();
        }
        for (int p = kPlanes - 1; p >= 0; --p) {
            for (int g = 0; g < 2; ++g) {
                for (int r = 0; r < kQuarters; ++r) dot_four(sums[r], pixels[g][r], weights_[g][p]);
            }
            if (p == 0) break;
            for (int r = 0; r < kQuarters; ++r) sums[r] = next_plane(sums[r]);
        }
        for (int r = 0; r < kQuarters; ++r) sums[r] = pixels_of(sums[r]);
        return pack(sums[0], sums[1], sums[2], sums[3]);
    }

  private:
    __m512i quarter_, byte_, byte_of_next_, weights_[2][kPlanes];
};

class SixTaps {
  public:
    SixTaps(const GatherBlock& block, const std::byte* weights) noexcept
        : quarter_(_mm512_load_si512(block.quarter)), byte_(_mm512_load_si512(block.byte)) {
        // The first two bytes of each lane twice, counted from four pixels on; the repeated ones give zero.
        const __m512i twice = _mm512_shuffle_epi8(
            byte_, _mm512_broadcast_i32x4(_mm_setr_epi8(0, 0, 1, 1, 4, 4, 5, 5, 8, 8, 9, 9, 12, 12, 13, 13)));
        words_of_next_ = _mm512_or_si512(_mm512_add_epi8(twice, _mm512_set1_epi8(kGroup)),
                                         _mm512_set1_epi16(static_cast<int16_t>(0x8000)));
        for (int p = 0; p < kPlanes; ++p) weights_[p] = _mm512_load_si512(weights + p * kVector);
        for (int w = 0; w < 2; ++w) words_[w] = _mm512_load_si512(weights + kGroupBytes + w * kVector);
    }

    __m512i resize(const uint8_t* const (&windows)[kQuarters]) const noexcept {
        __m512i four[kQuarters], two[kQuarters], sums[kQuarters];
        for (int r = 0; r < kQuarters; ++r) {
            const __m512i window = _mm512_permutexvar_epi32(quarter_, _mm512_loadu_si512(windows[r]));
            four[r] = _mm512_shuffle_epi8(window, byte_);
            two[r] = _mm512_shuffle_epi8(window, words_of_next_);
            sums[r] = start_of_highest();
        }
        for (int r = 0; r < kQuarters; ++r) dot_two(sums[r], two[r], words_[1]);
        for (int p = kPlanes - 1; p >= 0; --p) {
            for (int r = 0; r < kQuarters; ++r) dot_four(sums[r], four[r], weights_[p]);
            if (p == 0) break;
            for (int r = 0; r < kQuarters; ++r) sums[r] = next_plane(sums[r]);
        }
        for (int r = 0; r < kQuarters; ++r) {
            dot_two(sums[r], two[r], words_[0]);
            sums[r] = pixels_of(sums[r]);
        }
        return pack(sums[0], sums[1], sums[2], sums[3]);
    }

  private:
    __m512i quarter_, byte_, words_of_next_, weights_[kPlanes], words_[2];
};

// One after the other the outputs of four windows, from fours of them in turn.
__m512i in_turn(__m512i fours) noexcept {
    return _mm512_permutexvar_epi32(_mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15),
                                    fours);
}

void store_rows(__m512i fours, uint8_t* const* dst, int64_t x) noexcept {
    const __m512i rows = in_turn(fours);
    const auto at = [x](uint8_t* row) { return reinterpret_cast<__m128i*>(row + x); };
    _mm_storeu_si128(at(dst[0]), _mm512_castsi512_si128(rows));
    _mm_storeu_si128(at(dst[1]), _mm512_extracti32x4_epi32(rows, 1));
    _mm_storeu_si128(at(dst[2]), _mm512_extracti32x4_epi32(rows, 2));
    _mm_storeu_si128(at(dst[3]), _mm512_extracti32x4_epi32(rows, 3));
}

// All rows of the blocks that are described at once; the outputs of the first start at x. Four of them at a
// time are resized by AlongRow, the rest by Taps. gcc 12 keeps sums in registers only where the loops over
// them lie within another one.
template <typename Taps, typename AlongRow = Taps>
void resize_blocks(const uint8_t* const* src, int64_t num_rows, const GatherBlock& block,
                   const std::byte* weights, int64_t x, uint8_t* const* dst) noexcept {
    const Taps taps(block, weights);
    const AlongRow along_row(block, weights);
    const int64_t base = block.base, step = block.step;
    const int64_t num_together = block.num_blocks / kQuarters * kQuarters;
    for (int64_t row = 0; row < num_rows && num_together > 0; ++row) {
        const uint8_t* window = src[row] + base;
        uint8_t* out = dst[row] + x;
        for (int64_t b = 0; b < num_together; b += kQuarters) {
            const __m512i fours =
                along_row.resize({window, window + step, window + 2 * step, window + 3 * step});
            _mm512_storeu_si512(out, in_turn(fours));
            window += kQuarters * step;
            out += kVector;
        }
    }
    for (int64_t b = num_together; b < block.num_blocks; ++b) {
        const int64_t first = base + b * step;
        for (int64_t row = 0; row < num_rows; row += kGatherRows) {
            const uint8_t* const* rows = src + row;
            store_rows(taps.resize({rows[0] + first, rows[1] + first, rows[2] + first, rows[3] + first}),
                       dst + row, x + b * kLanes);
        }
    }
}

void gather_run(const uint8_t* const* src, int64_t num_rows, const std::byte* packed,
                uint8_t* const* dst) noexcept {
    const int32_t num_blocks = reinterpret_cast<const GatherHeader*>(packed)->num_blocks;
    packed += sizeof(GatherHeader);
    for (int64_t b = 0; b < num_blocks;) {
        const auto& block = *reinterpret_cast<const GatherBlock*>(packed);
        packed += sizeof(GatherBlock);
        switch (block.kind) {
            case BlockKind::any:
                resize_blocks<AnyTaps<false>>(src, num_rows, block, packed, b * kLanes, dst);
                break;
            case BlockKind::eight_taps:
                resize_blocks<EightTaps>(src, num_rows, block, packed, b * kLanes, dst);
                break;
            case BlockKind::six_taps:
                resize_blocks<SixTaps>(src, num_rows, block, packed, b * kLanes, dst);
                break;
            case BlockKind::in_order:
                if (SlidingTaps::fits(block)) {
                    resize_blocks<AnyTaps<true>, SlidingTaps>(src, num_rows, block, packed, b * kLanes, dst);
                } else {
                    resize_blocks<AnyTaps<true>>(src, num_rows, block, packed, b * kLanes, dst);
                }
                break;
        }
        packed += block.num_groups * kGroupBytes;
        b += block.num_blocks;
    }
}

}  // namespace

const ResizeGather kResizeGather{gather_packed_bytes, gather_pack, gather_run};

}  // namespace pocketvlm::avx512_vnni
