// The definition of the centring of pixels.
#include "kernels/normalize/normalize.h"

namespace pocketvlm::scalar {
namespace {

void center(uint8_t pixel, float& out) noexcept { out = static_cast<float>(2 * pixel - 255); }

void center(uint8_t pixel, BFloat16& out) noexcept {
    float value;
    center(pixel, value);
    out.bits =
        static_cast<uint16_t>(float_to_bits(value) >> 16);  // eight bits at most: the lower half is zero
}

template <typename T>
void center_patches(const uint8_t* const* rows, int64_t first, int64_t num_patches, int64_t patch_size,
                    int64_t patch_stride, T* out) noexcept {
    for (int64_t j = 0; j < num_patches; ++j, first += patch_size, out += patch_stride) {
        for (int64_t ky = 0; ky < patch_size; ++ky) {
            for (int64_t kx = 0; kx < patch_size; ++kx) {
                center(rows[ky][first + kx], out[ky * patch_size + kx]);
            }
        }
    }
}

}  // namespace

void center_patches_bf16(const uint8_t* const* rows, int64_t first, int64_t num_patches, int64_t patch_size,
                         int64_t patch_stride, BFloat16* out) noexcept {
    center_patches(rows, first, num_patches, patch_size, patch_stride, out);
}

void center_patches_f32(const uint8_t* const* rows, int64_t first, int64_t num_patches, int64_t patch_size,
                        int64_t patch_stride, float* out) noexcept {
    center_patches(rows, first, num_patches, patch_size, patch_stride, out);
}

}  // namespace pocketvlm::scalar
