#include <arm_neon.h>

#include "kernels/unpack/unpack.h"

namespace pocketvlm::neon {

void unpack_rgb(const uint8_t* src, int64_t n, const PlaneRows& out) noexcept {
    constexpr int64_t kStep = 16;
    int64_t x = 0;
    for (; x + kStep <= n; x += kStep, src += 3 * kStep) {
        const uint8x16x3_t channels = vld3q_u8(src);
        vst1q_u8(out.r + x, channels.val[0]);
        vst1q_u8(out.g + x, channels.val[1]);
        vst1q_u8(out.b + x, channels.val[2]);
    }
    scalar::unpack_rgb(src, n - x, {out.r + x, out.g + x, out.b + x});
}

}  // namespace pocketvlm::neon
