// The two passes of an image resize on interleaved uint8 RGB, in the fixed point arithmetic of Pillow:
// contract of the kernels. Which source pixels an output pixel weighs, and the order of the passes, are
// decided in model/preprocess.cc.
#pragma once

#include <cstdint>

namespace pocketvlm {

// Weights have 22 fractional bits: 8 bits of pixel and 2 bits of headroom for filters that overshoot complete
// an int32.
inline constexpr int32_t kResizeFractionBits = 22;

// Along one axis: output position i is the weighted sum of source positions first[i] .. first[i] + count[i]
// - 1. All of them lie in [0, source_size). With p in [0, 255], the sum of |weights| of one position times p
// fits an int32.
struct ResizeTaps {
    int32_t source_size;
    int32_t size;
    int32_t stride;          // taps kept per output position, 1 <= count[i] <= stride
    const int32_t* first;    // [size]
    const int32_t* count;    // [size]
    const int32_t* weights;  // [size, stride], zero from count[i] on
};

// Resizes num_rows rows to taps.size pixels each:
//   dst[y, x, c] = clip((2^21 + sum_k taps.weights[x, k] * src[y, taps.first[x] + k, c]) >> 22),  clip to [0,
//   255].
// Exact. No alignment, no over-read. dst and src do not overlap.
using ResizeHorizontalU8 = void(const uint8_t* src,  // [num_rows, taps.source_size, 3]
                                int64_t num_rows, const ResizeTaps& taps,
                                uint8_t* dst) noexcept;  // [num_rows, taps.size, 3]

// Computes output row y of a vertical pass; src is the whole image, because rows share sources:
//   dst[i] = clip((2^21 + sum_k taps.weights[y, k] * src[taps.first[y] + k, i]) >> 22).
// Exact. No alignment, no over-read. dst and src do not overlap.
using ResizeVerticalU8 = void(const uint8_t* src,  // [taps.source_size, row_bytes]
                              int64_t row_bytes, const ResizeTaps& taps, int32_t y,
                              uint8_t* dst) noexcept;  // [row_bytes]

namespace scalar {
ResizeHorizontalU8 resize_horizontal_u8;
ResizeVerticalU8 resize_vertical_u8;
}  // namespace scalar

}  // namespace pocketvlm
