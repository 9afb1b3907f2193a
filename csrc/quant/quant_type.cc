// The traits table and the reference conversions, in plain loops.
#include "quant/quant_type.h"

#include <cmath>
#include <cstring>
#include <limits>

#include "base/check.h"
#include "base/half.h"
#include "quant/affine_block.h"

namespace pocketvlm {
namespace {

constexpr QuantTraits kTraits[] = {
    {QuantType::F32, "f32", 1, 4},
    {QuantType::F16, "f16", 1, 2},
    {QuantType::Q4_0, "q4_0", QK4_0, sizeof(block_q4_0)},
    {QuantType::Q4_1, "q4_1", 32, sizeof(block_q4_1)},
    {QuantType::Q5_0, "q5_0", 32, sizeof(block_q5_0)},
    {QuantType::Q5_1, "q5_1", 32, sizeof(block_q5_1)},
    {QuantType::Q8_0, "q8_0", QK8_0, sizeof(block_q8_0)},
    {QuantType::Q4_K, "q4_k", QK_K, sizeof(block_q4_k)},
    {QuantType::Q5_K, "q5_k", QK_K, sizeof(block_q5_k)},
    {QuantType::Q6_K, "q6_k", QK_K, sizeof(block_q6_k)},
    {QuantType::IQ4_NL, "iq4_nl", 32, sizeof(block_iq4_nl)},
    {QuantType::BF16, "bf16", 1, 2},
};

void dequantize_row_q8_0(const block_q8_0* src, float* dst, int64_t k) noexcept {
    for (int64_t b = 0; b < k / QK8_0; ++b) {
        const float d = fp16_to_fp32(src[b].d);
        for (int i = 0; i < QK8_0; ++i) {
            dst[b * QK8_0 + i] = d * static_cast<float>(src[b].qs[i]);
        }
    }
}

void dequantize_row_q4_0(const block_q4_0* src, float* dst, int64_t k) noexcept {
    constexpr int kHalf = QK4_0 / 2;
    for (int64_t b = 0; b < k / QK4_0; ++b) {
        const float d = fp16_to_fp32(src[b].d);
        for (int i = 0; i < kHalf; ++i) {
            dst[b * QK4_0 + i] = d * static_cast<float>((src[b].qs[i] & 0x0f) - 8);
            dst[b * QK4_0 + kHalf + i] = d * static_cast<float>((src[b].qs[i] >> 4) - 8);
        }
    }
}

}  // namespace

const QuantTraits& traits(QuantType type) noexcept { return *find_traits(static_cast<uint32_t>(type)); }

const QuantTraits* find_traits(uint32_t ggml_type_id) noexcept {
    for (const QuantTraits& row : kTraits) {
        if (static_cast<uint32_t>(row.type) == ggml_type_id) return &row;
    }
    return nullptr;
}

const QuantTraits* find_traits(std::string_view name) noexcept {
    for (const QuantTraits& row : kTraits) {
        if (row.name == name) return &row;
    }
    return nullptr;
}

std::string known_quant_types() {
    std::string list;
    for (const QuantTraits& row : kTraits) {
        list += concat(list.empty() ? "" : ", ", row.name, " (", static_cast<uint32_t>(row.type), ")");
    }
    return list;
}

int64_t row_bytes(QuantType type, int64_t k) noexcept {
    const QuantTraits& row = traits(type);
    return k / row.block_size * row.type_size;
}

void dequantize_row(QuantType type, const void* src, float* dst, int64_t k) noexcept {
    switch (type) {
        case QuantType::F32:
            std::memcpy(dst, src, static_cast<size_t>(k) * sizeof(float));
            return;
        case QuantType::F16:
            for (int64_t i = 0; i < k; ++i) dst[i] = fp16_to_fp32(static_cast<const uint16_t*>(src)[i]);
            return;
        case QuantType::BF16:
            for (int64_t i = 0; i < k; ++i) dst[i] = bf16_to_fp32(static_cast<const uint16_t*>(src)[i]);
            return;
        case QuantType::Q8_0:
            dequantize_row_q8_0(static_cast<const block_q8_0*>(src), dst, k);
            return;
        case QuantType::Q4_0:
            dequantize_row_q4_0(static_cast<const block_q4_0*>(src), dst, k);
            return;
        case QuantType::Q4_1:
        case QuantType::Q5_0:
        case QuantType::Q5_1:
        case QuantType::Q4_K:
        case QuantType::Q5_K:
        case QuantType::Q6_K:
        case QuantType::IQ4_NL:
            for (int64_t b = 0; b < k / kAffineBlock; ++b) {
                const AffineBlock block = affine_block(type, src, b);
                for (int i = 0; i < kAffineBlock; ++i) {
                    const float scaled = block.scales[i / 16] * static_cast<float>(block.values[i]);
                    dst[b * kAffineBlock + i] = scaled + block.offset;
                }
            }
            return;
    }
}

void quantize_row_q8_0(const float* src, block_q8_0* dst, int64_t k) noexcept {
    for (int64_t b = 0; b < k / QK8_0; ++b) {
        const float* x = src + b * QK8_0;
        float amax = 0.0f;
        for (int i = 0; i < QK8_0; ++i) amax = std::fmax(amax, std::fabs(x[i]));
        const float d = amax / 127.0f;
        // A d below 2^-128 has no finite reciprocal. Its float16 is 0, so nothing is lost by quants of 0.
        const float reciprocal = d == 0.0f ? 0.0f : 1.0f / d;
        const float inverse = reciprocal <= std::numeric_limits<float>::max() ? reciprocal : 0.0f;
        dst[b].d = fp32_to_fp16(d);
        for (int i = 0; i < QK8_0; ++i) {
            dst[b].qs[i] = static_cast<int8_t>(std::round(x[i] * inverse));
        }
    }
}

}  // namespace pocketvlm
