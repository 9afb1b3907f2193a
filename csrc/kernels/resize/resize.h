// The two passes of an image resize on rows of uint8, in the fixed point arithmetic of Pillow: contract of
// the kernels. A row is one channel of an image, or several side by side: the kernels do not tell them apart.
// Which source pixels an output pixel weighs, and the order of the passes, are decided in model/resize.cc.
#pragma once

#include <cstddef>
#include <cstdint>

namespace pocketvlm {

// Weights have 22 fractional bits: 8 bits of pixel and 2 bits of headroom for filters that overshoot complete
// an int32.
inline constexpr int32_t kResizeFractionBits = 22;

// Rows lie in buffers of ours: a kernel may read as many bytes beyond both ends of a source row, and write as
// many beyond the end of a destination row.
inline constexpr int64_t kRowPadding = 64;

// Along one axis: output position i is the weighted sum of source positions first[i] .. first[i] + count[i]
// - 1. All of them lie in [0, source_size); first does not decrease. The sum of |weights| of one position is
// 127 * 0x010101 at most, so that the sum over pixels, with its rounding, fits an int32, and each weight
// three signed bytes.
struct ResizeTaps {
    int32_t source_size;
    int32_t size;
    int32_t stride;          // taps kept per output position, 1 <= count[i] <= stride
    const int32_t* first;    // [size]
    const int32_t* count;    // [size]
    const int32_t* weights;  // [size, stride], zero from count[i] on
};

// Resizes one row to taps.size pixels:
//   dst[x] = clip((2^21 + sum_k taps.weights[x, k] * src[taps.first[x] + k]) >> 22),  clip to [0, 255].
// Exact. No alignment. Reads and writes up to kRowPadding bytes too many. dst and src do not overlap.
using ResizeRowU8 = void(const uint8_t* src,  // [taps.source_size]
                         const ResizeTaps& taps,
                         uint8_t* dst) noexcept;  // [taps.size]

// The same for several rows at a time, with taps that were laid out beforehand for the vectors of one
// instruction set: the fast way, for filters whose windows fit those vectors.
inline constexpr int kGatherRows = 4;
struct ResizeGather {
    // Bytes that the taps take when laid out; 0 where their windows do not fit.
    int64_t (*packed_bytes)(const ResizeTaps& taps) noexcept;
    // packed: 64-byte aligned.
    void (*pack)(const ResizeTaps& taps, std::byte* packed) noexcept;
    // As ResizeRowU8, for each of num_rows rows, a multiple of kGatherRows; rows may be named twice. packed:
    // as `pack` left it.
    void (*run)(const uint8_t* const* src, int64_t num_rows, const std::byte* packed,
                uint8_t* const* dst) noexcept;
};

// Computes two rows of a vertical pass from the rows that either of them weighs:
//   dst[o][i] = clip((2^21 + sum_k weights[o, k] * rows[k][i]) >> 22),  o in {0, 1}, k in [0, count).
// Exact. No alignment. Reads and writes up to kRowPadding bytes too many. The rows of dst may be one and the
// same, but overlap no source row.
using ResizeColumnsU8 = void(const uint8_t* const* rows,  // [count] pointers to [n]
                             const int32_t* weights,      // [2, count]
                             int32_t count, int64_t n,
                             uint8_t* const* dst) noexcept;  // 2 pointers to [n]

namespace scalar {
ResizeRowU8 resize_row_u8;
ResizeColumnsU8 resize_columns_u8;
}  // namespace scalar

namespace avx2 {
ResizeRowU8 resize_row_u8;
ResizeColumnsU8 resize_columns_u8;
extern const ResizeGather kResizeGather;
}  // namespace avx2

namespace avx512_vnni {
ResizeColumnsU8 resize_columns_u8;
extern const ResizeGather kResizeGather;
}  // namespace avx512_vnni

namespace neon {
ResizeRowU8 resize_row_u8;
ResizeColumnsU8 resize_columns_u8;
}  // namespace neon

}  // namespace pocketvlm
