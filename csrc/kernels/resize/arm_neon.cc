// Pixels times 22-bit weights in plain 32-bit lanes: pixels are widened first, four to a vector.
#include <arm_neon.h>

#include "kernels/resize/resize.h"

namespace pocketvlm::neon {
namespace {

// Four sums, rounded down to pixels that fit 16 bits, clipped at 0.
uint16x4_t round_to_u16(int32x4_t sums) noexcept {
    return vqmovun_s32(vrshrq_n_s32(sums, kResizeFractionBits));
}

int32x4_t widen(uint16x4_t pixels) noexcept { return vreinterpretq_s32_u32(vmovl_u16(pixels)); }

// sums += pixels * weights, the latter [8].
int32x4_t add_eight(int32x4_t sums, uint8x8_t pixels, const int32_t* weights) noexcept {
    const uint16x8_t words = vmovl_u8(pixels);
    sums = vmlaq_s32(sums, widen(vget_low_u16(words)), vld1q_s32(weights));
    return vmlaq_s32(sums, widen(vget_high_u16(words)), vld1q_s32(weights + 4));
}

// From kKeep + 8 - n on: a mask that keeps the first n of eight bytes.
constexpr uint8_t kKeep[16] = {255, 255, 255, 255, 255, 255, 255, 255};

// Lanes that add up to what output x weighs.
int32x4_t weigh(const uint8_t* src, const ResizeTaps& taps, int64_t x) noexcept {
    const int32_t* weights = taps.weights + x * taps.stride;
    const int64_t num_weights = (taps.size - x) * taps.stride;  // to the end of the table
    const uint8_t* pixels = src + taps.first[x];
    const int64_t count = taps.count[x];
    int32x4_t sums = vdupq_n_s32(0);
    int64_t k = 0;
    for (; k + 8 <= count; k += 8) sums = add_eight(sums, vld1_u8(pixels + k), weights + k);
    if (k == count) return sums;
    if (k + 8 <= num_weights) {  // some of these weights are the next output's: their pixels become zero
        const uint8x8_t keep = vld1_u8(kKeep + 8 - (count - k));
        return add_eight(sums, vand_u8(vld1_u8(pixels + k), keep), weights + k);
    }
    int32_t rest = 0;
    for (; k < count; ++k) rest += weights[k] * pixels[k];
    return vaddq_s32(sums, vsetq_lane_s32(rest, vdupq_n_s32(0), 0));
}

}  // namespace

void resize_row_u8(const uint8_t* src, const ResizeTaps& taps, uint8_t* dst) noexcept {
    for (int64_t x = 0; x < taps.size; x += 4) {
        int32x4_t sums[4];
        for (int64_t j = 0; j < 4; ++j) {
            sums[j] = weigh(src, taps, x + j < taps.size ? x + j : x);
        }
        const int32x4_t four = vpaddq_s32(vpaddq_s32(sums[0], sums[1]), vpaddq_s32(sums[2], sums[3]));
        const uint16x4_t words = round_to_u16(four);
        vst1_u8(dst + x, vqmovn_u16(vcombine_u16(words, words)));  // the next four overwrite the second half
    }
}

void resize_columns_u8(const uint8_t* const* rows, const int32_t* weights, int32_t count, int64_t n,
                       uint8_t* const* dst) noexcept {
    for (int64_t i = 0; i < n; i += 16) {
        int32x4_t sums[2][4];
        for (auto& output : sums) {
            for (int32x4_t& four : output) four = vdupq_n_s32(0);
        }
        for (int32_t k = 0; k < count; ++k) {
            const uint8x16_t bytes = vld1q_u8(rows[k] + i);
            const uint16x8_t left = vmovl_u8(vget_low_u8(bytes)), right = vmovl_u8(vget_high_u8(bytes));
            const int32x4_t pixels[4] = {widen(vget_low_u16(left)), widen(vget_high_u16(left)),
                                         widen(vget_low_u16(right)), widen(vget_high_u16(right))};
            for (int o = 0; o < 2; ++o) {
                const int32x4_t weight = vdupq_n_s32(weights[o * count + k]);
                for (int v = 0; v < 4; ++v) sums[o][v] = vmlaq_s32(sums[o][v], pixels[v], weight);
            }
        }
        for (int o = 0; o < 2; ++o) {
            const uint16x8_t left = vcombine_u16(round_to_u16(sums[o][0]), round_to_u16(sums[o][1]));
            const uint16x8_t right = vcombine_u16(round_to_u16(sums[o][2]), round_to_u16(sums[o][3]));
            vst1q_u8(dst[o] + i, vcombine_u8(vqmovn_u16(left), vqmovn_u16(right)));
        }
    }
}

}  // namespace pocketvlm::neon
