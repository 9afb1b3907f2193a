// The definition of operands in bfloat16.
#include <cstring>

#include "kernels/gemm/gemm.h"
#include "kernels/to_bf16/to_bf16.h"

namespace pocketvlm::scalar {
namespace {

float to_float(float value) noexcept { return value; }
float to_float(Float16 value) noexcept { return fp16_to_fp32(value.bits); }
float to_float(BFloat16 value) noexcept { return bf16_to_fp32(value.bits); }

template <typename T>
void row(const T* x, int64_t k, BFloat16* out) noexcept {
    for (int64_t i = 0; i < bf16_padded(k); ++i)
        out[i] = {i < k ? fp32_to_bf16(to_float(x[i])) : uint16_t{0}};
}

// weight(column, i) is weight i of a column, i < k.
template <typename WeightOf>
void panel(int64_t k, const WeightOf& weight, BFloat16* out) noexcept {
    for (int64_t i = 0; i < bf16_padded(k); ++i) {
        for (int64_t c = 0; c < kGemmNr; ++c) {
            out[(i / 2 * kGemmNr + c) * 2 + i % 2] = {i < k ? fp32_to_bf16(weight(c, i)) : uint16_t{0}};
        }
    }
}

template <typename T>
void float_panel(const std::byte* bytes, int64_t k, BFloat16* out) noexcept {
    const auto* weights = reinterpret_cast<const T*>(bytes);
    panel(k, [=](int64_t c, int64_t i) { return to_float(weights[i * kGemmNr + c]); }, out);
}

float block_scale(const std::byte* block, int64_t c) noexcept {
    Float16 scale;
    std::memcpy(&scale, block + 2 * c, sizeof scale);
    return to_float(scale);
}

}  // namespace

void row_to_bf16(const float* x, int64_t k, BFloat16* out) noexcept { row(x, k, out); }
void row_to_bf16(const Float16* x, int64_t k, BFloat16* out) noexcept { row(x, k, out); }

void panel_f32_to_bf16(const std::byte* bytes, int64_t k, BFloat16* out) noexcept {
    float_panel<float>(bytes, k, out);
}
void panel_f16_to_bf16(const std::byte* bytes, int64_t k, BFloat16* out) noexcept {
    float_panel<Float16>(bytes, k, out);
}
void panel_bf16_to_bf16(const std::byte* bytes, int64_t k, BFloat16* out) noexcept {
    float_panel<BFloat16>(bytes, k, out);
}

void panel_i8_to_bf16(const std::byte* bytes, int64_t k, BFloat16* out) noexcept {
    const auto weight = [=](int64_t c, int64_t i) {
        const std::byte* block = bytes + i / kI8Block * i8_panel_block_bytes(kGemmNr);
        const std::byte* weights = block + 2 * kGemmNr;
        const int64_t at = i % kI8Block;
        return block_scale(block, c) *
               static_cast<float>(static_cast<int8_t>(weights[at / 4 * 4 * kGemmNr + 4 * c + at % 4]));
    };
    panel(k, weight, out);
}

void panel_i4_to_bf16(const std::byte* bytes, int64_t k, BFloat16* out) noexcept {
    const auto weight = [=](int64_t c, int64_t i) {
        const std::byte* block = bytes + i / kI8Block * i4_panel_block_bytes(kGemmNr);
        const std::byte* weights = block + 2 * kGemmNr;
        const int64_t at = i % kI8Block, half = at % (kI8Block / 2);
        const auto both = std::to_integer<int>(weights[half / 4 * 4 * kGemmNr + 4 * c + half % 4]);
        const int value = at < kI8Block / 2 ? both & 0xf : both >> 4;
        return block_scale(block, c) * static_cast<float>(value - kI4Offset);
    };
    panel(k, weight, out);
}

}  // namespace pocketvlm::scalar
