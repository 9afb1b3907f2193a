#include <cstring>

#include "base/half.h"
#include "kernels/elementwise/elementwise.h"
#include "kernels/gemm/gemm.h"

namespace pocketvlm::scalar {
namespace {

float to_float(float weight) noexcept { return weight; }
float to_float(Float16 weight) noexcept { return fp16_to_fp32(weight.bits); }
float to_float(BFloat16 weight) noexcept { return bf16_to_fp32(weight.bits); }

void store(const GemmOutput& output, int64_t row, int64_t column, float sum) noexcept {
    float& y = output.y[row * output.y_stride + column];
    if (output.bias != nullptr) sum += output.bias[column];
    y = output.accumulate ? y + sum : sum;
}

template <typename Weight>
void gemm_float(const float* x, int64_t x_stride, int64_t rows, const std::byte* panel, int64_t k,
                const GemmOutput& output) noexcept {
    const auto* weights = reinterpret_cast<const Weight*>(panel);
    for (int64_t r = 0; r < rows; ++r) {
        for (int64_t c = 0; c < output.columns; ++c) {
            float sum = 0;
            for (int64_t i = 0; i < k; ++i) sum += x[r * x_stride + i] * to_float(weights[i * kGemmNr + c]);
            store(output, r, c, sum);
        }
    }
}

// weight(block, column, i) is integer weight i of a column in a block.
template <typename WeightOf>
void gemm_blocks(const I8Rows& x, const std::byte* panel, int64_t block_bytes, const GemmOutput& output,
                 const WeightOf& weight) noexcept {
    for (int64_t r = 0; r < x.rows; ++r) {
        for (int64_t c = 0; c < output.columns; ++c) {
            float sum = 0;
            for (int64_t b = 0; b < x.num_blocks; ++b) {
                const std::byte* block = panel + b * block_bytes;
                const int8_t* values = x.values + (r * x.num_blocks + b) * kI8Block;
                int32_t dot = 0;
                for (int i = 0; i < kI8Block; ++i) dot += weight(block + 2 * kGemmNr, c, i) * values[i];
                Float16 scale;
                std::memcpy(&scale, block + 2 * c, sizeof scale);
                sum += to_float(scale) * x.scales[r * x.num_blocks + b] * static_cast<float>(dot);
            }
            store(output, r, c, sum);
        }
    }
}

}  // namespace

void gemm_f32(const float* x, int64_t x_stride, int64_t rows, const std::byte* panel, int64_t k,
              const GemmOutput& output) noexcept {
    gemm_float<float>(x, x_stride, rows, panel, k, output);
}

void gemm_f16(const float* x, int64_t x_stride, int64_t rows, const std::byte* panel, int64_t k,
              const GemmOutput& output) noexcept {
    gemm_float<Float16>(x, x_stride, rows, panel, k, output);
}

void gemm_bf16(const float* x, int64_t x_stride, int64_t rows, const std::byte* panel, int64_t k,
               const GemmOutput& output) noexcept {
    gemm_float<BFloat16>(x, x_stride, rows, panel, k, output);
}

void gemm_i8(const I8Rows& x, const std::byte* panel, const GemmOutput& output) noexcept {
    gemm_blocks(x, panel, i8_panel_block_bytes(kGemmNr), output,
                [](const std::byte* bytes, int64_t c, int i) {
                    return static_cast<int8_t>(bytes[(i / 4) * 4 * kGemmNr + 4 * c + i % 4]);
                });
}

void gemm_i4(const I8Rows& x, const std::byte* panel, const GemmOutput& output) noexcept {
    gemm_blocks(
        x, panel, i4_panel_block_bytes(kGemmNr), output, [](const std::byte* bytes, int64_t c, int i) {
            const int half = i % (kI8Block / 2);
            const auto both = std::to_integer<int>(bytes[(half / 4) * 4 * kGemmNr + 4 * c + half % 4]);
            return (i < kI8Block / 2 ? both & 0xf : both >> 4) - kI4Offset;
        });
}

void gemm_bf16_bf16(const BFloat16* x, int64_t x_stride, int64_t rows, const BFloat16* panel, int64_t k,
                    const GemmBf16Output& output) noexcept {
    for (int64_t r = 0; r < rows; ++r) {
        for (int64_t c = 0; c < output.f32.columns; ++c) {
            float sum = 0;
            for (int64_t i = 0; i < k; ++i) {
                sum += to_float(x[r * x_stride + i]) * to_float(panel[(i / 2 * kGemmNr + c) * 2 + i % 2]);
            }
            if (output.y_bf16 == nullptr) {
                store(output.f32, r, c, sum);
                continue;
            }
            if (output.f32.bias != nullptr) sum += output.f32.bias[c];
            if (output.gelu_tanh) gelu_tanh(&sum, 1);
            output.y_bf16[r * output.f32.y_stride + c] = {fp32_to_bf16(sum)};
        }
    }
}

}  // namespace pocketvlm::scalar
