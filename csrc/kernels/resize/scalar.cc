// The definition of the resize kernels: plain loops over int32 sums.
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

void resize_row_u8(const uint8_t* src, const ResizeTaps& taps, uint8_t* dst) noexcept {
    for (int32_t x = 0; x < taps.size; ++x) {
        const int32_t* weights = taps.weights + int64_t{x} * taps.stride;
        const uint8_t* pixels = src + taps.first[x];
        int32_t sum = kHalf;
        for (int32_t k = 0; k < taps.count[x]; ++k) sum += weights[k] * pixels[k];
        dst[x] = round_to_u8(sum);
    }
}

void resize_columns_u8(const uint8_t* const* rows, const int32_t* weights, int32_t count, int64_t n,
                       uint8_t* const* dst) noexcept {
    // Sums of a few columns at a time stay in registers while the rows go by; the compiler makes vectors of
    // them.
    constexpr int64_t kColumns = 32;
    for (int o = 0; o < 2; ++o, weights += count) {
        int64_t i = 0;
        for (; i + kColumns <= n; i += kColumns) {
            int32_t sums[kColumns];
            for (int64_t j = 0; j < kColumns; ++j) sums[j] = kHalf;
            for (int32_t k = 0; k < count; ++k) {
                for (int64_t j = 0; j < kColumns; ++j) sums[j] += weights[k] * rows[k][i + j];
            }
            for (int64_t j = 0; j < kColumns; ++j) dst[o][i + j] = round_to_u8(sums[j]);
        }
        for (; i < n; ++i) {
            int32_t sum = kHalf;
            for (int32_t k = 0; k < count; ++k) sum += weights[k] * rows[k][i];
            dst[o][i] = round_to_u8(sum);
        }
    }
}

}  // namespace pocketvlm::scalar
