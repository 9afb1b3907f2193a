// The definition of the resize kernels, and their fast enough version: plain loops over int32 sums.
#include "kernels/resize/resize.h"

namespace pocketvlm::scalar {
namespace {

constexpr int32_t kHalf = 1 << (kResizeFractionBits - 1);

// The right shift of a negative sum is arithmetic on every compiler we build with: it rounds down, as
// Pillow's does.
uint8_t round_to_u8(int32_t sum) noexcept {
    const int32_t value = sum >> kResizeFractionBits;
    return static_cast<uint8_t>(value < 0 ? 0 : value > 255 ? 255 : value);
}

}  // namespace

void resize_horizontal_u8(const uint8_t* src, int64_t num_rows, const ResizeTaps& taps,
                          uint8_t* dst) noexcept {
    for (int64_t y = 0; y < num_rows; ++y) {
        for (int32_t x = 0; x < taps.size; ++x) {
            const int32_t* weights = taps.weights + int64_t{x} * taps.stride;
            const uint8_t* pixel = src + 3 * int64_t{taps.first[x]};
            int32_t r = kHalf, g = kHalf, b = kHalf;
            for (int32_t k = 0; k < taps.count[x]; ++k, pixel += 3) {
                r += weights[k] * pixel[0];
                g += weights[k] * pixel[1];
                b += weights[k] * pixel[2];
            }
            dst[0] = round_to_u8(r);
            dst[1] = round_to_u8(g);
            dst[2] = round_to_u8(b);
            dst += 3;
        }
        src += 3 * int64_t{taps.source_size};
    }
}

void resize_vertical_u8(const uint8_t* src, int64_t row_bytes, const ResizeTaps& taps, int32_t y,
                        uint8_t* dst) noexcept {
    const int32_t* weights = taps.weights + int64_t{y} * taps.stride;
    const uint8_t* rows = src + taps.first[y] * row_bytes;
    const int32_t count = taps.count[y];

    // Sums of a few columns at a time stay in registers while the rows go by; the compiler makes vectors of
    // them.
    constexpr int64_t kColumns = 32;
    int64_t i = 0;
    for (; i + kColumns <= row_bytes; i += kColumns) {
        int32_t sums[kColumns];
        for (int64_t j = 0; j < kColumns; ++j) sums[j] = kHalf;
        for (int32_t k = 0; k < count; ++k) {
            const uint8_t* row = rows + k * row_bytes + i;
            for (int64_t j = 0; j < kColumns; ++j) sums[j] += weights[k] * row[j];
        }
        for (int64_t j = 0; j < kColumns; ++j) dst[i + j] = round_to_u8(sums[j]);
    }
    for (; i < row_bytes; ++i) {
        int32_t sum = kHalf;
        for (int32_t k = 0; k < count; ++k) sum += weights[k] * rows[k * row_bytes + i];
        dst[i] = round_to_u8(sum);
    }
}

}  // namespace pocketvlm::scalar
