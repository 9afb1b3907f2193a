// From the pixels of one image row, as a caller holds them, to a row of each channel: contract of the
// kernels.
//
// Source rows are the caller's: nothing is read beyond them. Planes are ours: up to kRowPadding bytes too
// many may be written to each (kernels/resize/resize.h). No alignment; exact; nothing overlaps.
#pragma once

#include <cstdint>

namespace pocketvlm {

// One row of each channel, [n].
struct PlaneRows {
    uint8_t* r;
    uint8_t* g;
    uint8_t* b;
};

// src: [n, 3], R, G, B.
using UnpackRgb = void(const uint8_t* src, int64_t n, const PlaneRows& out) noexcept;

// src: [n, 4], R, G, B and an alpha that is not premultiplied; composited over white as
// PIL.Image.alpha_composite does it, of each value p with its alpha a:
//   t = p * a + 255 * (255 - a) + 128,  out = (257 * t) >> 16.
using UnpackRgba = void(const uint8_t* src, int64_t n, const PlaneRows& out) noexcept;

// From Y'CbCr to RGB, in fixed point with 13 fractional bits: factors fit an int16.
inline constexpr int32_t kYuvFractionBits = 13;
struct YuvMatrix {
    int32_t y_offset;  // the luma of black
    int32_t y;
    int32_t r_v;
    int32_t g_u;
    int32_t g_v;
    int32_t b_u;
};

// Luma and chroma of one row; two pixels side by side have one value of chroma, which is not interpolated:
//   l = y * (luma[x] - y_offset) + 2^12,  cu = u[x / 2] - 128,  cv = v[x / 2] - 128,
//   r[x] = clip((l + r_v * cv) >> 13),  g[x] = clip((l + g_u * cu + g_v * cv) >> 13),  b[x] = clip((l + b_u *
//   cu) >> 13),
// clip to [0, 255].
using UnpackYuv420 = void(const uint8_t* luma,                 // [n]
                          const uint8_t* u, const uint8_t* v,  // [ceil(n / 2)], chroma_step bytes apart
                          int64_t chroma_step,                 // 1; or 2, with v = u + 1
                          const YuvMatrix& matrix, int64_t n, const PlaneRows& out) noexcept;

namespace scalar {
UnpackRgb unpack_rgb;
UnpackRgba unpack_rgba;
UnpackYuv420 unpack_yuv420;
}  // namespace scalar

namespace avx2 {
UnpackRgb unpack_rgb;
UnpackRgba unpack_rgba;
UnpackYuv420 unpack_yuv420;
}  // namespace avx2

namespace neon {
UnpackRgb unpack_rgb;
}  // namespace neon

}  // namespace pocketvlm
