#include "base/half.h"
#include "kernels/gemm/gemm.h"

namespace pocketvlm::scalar {
namespace {

void store(const GemmOutput& output, int64_t row, int64_t column, float sum) noexcept {
    float& y = output.y[row * output.y_stride + column];
    if (output.bias != nullptr) sum += output.bias[column];
    y = output.accumulate ? y + sum : sum;
}

uint16_t load_u16(const std::byte* bytes) noexcept {
    return static_cast<uint16_t>(std::to_integer<unsigned>(bytes[0]) | std::to_integer<unsigned>(bytes[1])
                                                                           << 8);
}

}  // namespace

void gemm_f32(const float* x, int64_t x_stride, int64_t rows, const float* panel, int64_t k,
              const GemmOutput& output) noexcept {
    for (int64_t r = 0; r < rows; ++r) {
        for (int64_t c = 0; c < output.columns; ++c) {
            float sum = 0;
            for (int64_t i = 0; i < k; ++i) sum += x[r * x_stride + i] * panel[i * kGemmNr + c];
            store(output, r, c, sum);
        }
    }
}

void gemm_i8(const I8Rows& x, const std::byte* panel, const GemmOutput& output) noexcept {
    for (int64_t r = 0; r < x.rows; ++r) {
        for (int64_t c = 0; c < output.columns; ++c) {
            float sum = 0;
            for (int64_t b = 0; b < x.num_blocks; ++b) {
                const std::byte* block = panel + b * i8_panel_block_bytes(kGemmNr);
                const std::byte* weights = block + 2 * kGemmNr;
                const int8_t* values = x.values + (r * x.num_blocks + b) * kI8Block;
                int32_t dot = 0;
                for (int i = 0; i < kI8Block; ++i) {
                    const std::byte weight = weights[(i / 4) * 4 * kGemmNr + 4 * c + i % 4];
                    dot += static_cast<int8_t>(weight) * values[i];
                }
                const float scale = fp16_to_fp32(load_u16(block + 2 * c)) * x.scales[r * x.num_blocks + b];
                sum += scale * static_cast<float>(dot);
            }
            store(output, r, c, sum);
        }
    }
}

}  // namespace pocketvlm::scalar
