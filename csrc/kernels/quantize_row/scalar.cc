#include <cmath>

#include "kernels/gemm/gemm.h"
#include "kernels/quantize_row/quantize_row.h"
#include "kernels/quantize_row/scale.inl"

namespace pocketvlm::scalar {

void quantize_row_i8(const float* x, int64_t k, int8_t* values, float* scales, int32_t* sums) noexcept {
    for (int64_t start = 0; start < k; start += kI8Block) {
        const int64_t count = k - start < kI8Block ? k - start : kI8Block;
        float amax = 0;
        for (int64_t i = 0; i < count; ++i) {
            const float magnitude = std::fabs(x[start + i]);
            if (magnitude > amax) amax = magnitude;
        }
        const auto [scale, inverse] = block_scale(amax);
        int32_t sum = 0;
        for (int64_t i = 0; i < kI8Block; ++i) {
            const int value = i < count ? static_cast<int>(std::nearbyint(x[start + i] * inverse)) : 0;
            values[start + i] = static_cast<int8_t>(value);
            sum += value;
        }
        scales[start / kI8Block] = scale;
        sums[start / kI8Block] = sum;
    }
}

}  // namespace pocketvlm::scalar
