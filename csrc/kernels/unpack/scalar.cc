// The definition of the unpacking of pixels.
#include "kernels/unpack/unpack.h"

namespace pocketvlm::scalar {
namespace {

uint8_t over_white(uint32_t value, uint32_t alpha) noexcept {
    const uint32_t sum = value * alpha + 255 * (255 - alpha) + 128;
    return static_cast<uint8_t>((257 * sum) >> 16);
}

uint8_t to_pixel(int32_t fixed) noexcept {
    const int32_t value = fixed >> kYuvFractionBits;
    return static_cast<uint8_t>(value < 0 ? 0 : value > 255 ? 255 : value);
}

}  // namespace

void unpack_rgb(const uint8_t* src, int64_t n, const PlaneRows& out) noexcept {
    for (int64_t x = 0; x < n; ++x, src += 3) {
        out.r[x] = src[0];
        out.g[x] = src[1];
        out.b[x] = src[2];
    }
}

void unpack_rgba(const uint8_t* src, int64_t n, const PlaneRows& out) noexcept {
    for (int64_t x = 0; x < n; ++x, src += 4) {
        out.r[x] = over_white(src[0], src[3]);
        out.g[x] = over_white(src[1], src[3]);
        out.b[x] = over_white(src[2], src[3]);
    }
}

void unpack_yuv420(const uint8_t* luma, const uint8_t* u, const uint8_t* v, int64_t chroma_step,
                   const YuvMatrix& matrix, int64_t n, const PlaneRows& out) noexcept {
    for (int64_t x = 0; x < n; ++x) {
        const int32_t l = matrix.y * (luma[x] - matrix.y_offset) + (1 << (kYuvFractionBits - 1));
        const int32_t cu = u[x / 2 * chroma_step] - 128;
        const int32_t cv = v[x / 2 * chroma_step] - 128;
        out.r[x] = to_pixel(l + matrix.r_v * cv);
        out.g[x] = to_pixel(l + matrix.g_u * cu + matrix.g_v * cv);
        out.b[x] = to_pixel(l + matrix.b_u * cu);
    }
}

}  // namespace pocketvlm::scalar
