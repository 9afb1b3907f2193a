#include <arm_neon.h>

#include "kernels/normalize/normalize.h"

namespace pocketvlm {
namespace {

struct EightFloats {
    float32x4_t low, high;
};

EightFloats centred(const uint8_t* pixels) noexcept {
    const int16x8_t twice = vreinterpretq_s16_u16(vshll_n_u8(vld1_u8(pixels), 1));
    const int16x8_t values = vsubq_s16(twice, vdupq_n_s16(255));
    return {vcvtq_f32_s32(vmovl_s16(vget_low_s16(values))), vcvtq_f32_s32(vmovl_s16(vget_high_s16(values)))};
}

void center_eight(const uint8_t* src, float* out) noexcept {
    const EightFloats values = centred(src);
    vst1q_f32(out, values.low);
    vst1q_f32(out + 4, values.high);
}

void center_eight(const uint8_t* src, BFloat16* out) noexcept {
    // The odd 16-bit words are the upper halves of the floats; the lower ones are zero.
    const EightFloats values = centred(src);
    vst1q_u16(&out->bits, vuzp2q_u16(vreinterpretq_u16_f32(values.low), vreinterpretq_u16_f32(values.high)));
}

}  // namespace
}  // namespace pocketvlm

#include "kernels/normalize/eight_pixels.inl"

namespace pocketvlm::neon {

void center_patches_bf16(const uint8_t* const* rows, int64_t first, int64_t num_patches, int64_t patch_size,
                         int64_t patch_stride, BFloat16* out) noexcept {
    center_patches(rows, first, num_patches, patch_size, patch_stride, out, scalar::center_patches_bf16);
}

void center_patches_f32(const uint8_t* const* rows, int64_t first, int64_t num_patches, int64_t patch_size,
                        int64_t patch_stride, float* out) noexcept {
    center_patches(rows, first, num_patches, patch_size, patch_stride, out, scalar::center_patches_f32);
}

}  // namespace pocketvlm::neon
