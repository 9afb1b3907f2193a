#include "quant/affine_block.h"

#include <algorithm>
#include <iterator>

#include "base/half.h"

namespace pocketvlm {
namespace {

// Of blocks of 32: the low four bits of weight i, and its fifth.
int low_bits(const uint8_t (&qs)[16], int i) noexcept { return i < 16 ? qs[i] & 0x0f : qs[i - 16] >> 4; }
int fifth_bit(const uint8_t (&qh)[4], int i) noexcept { return (qh[i / 8] >> (i % 8) & 1) << 4; }

AffineBlock with_scale(const block_q8_0& block) noexcept {
    const float d = fp16_to_fp32(block.d);
    AffineBlock out{{d, d}, -0.0f, {}};
    std::copy(std::begin(block.qs), std::end(block.qs), out.values);
    return out;
}

AffineBlock with_minimum(const block_q4_1& block) noexcept {
    const float d = fp16_to_fp32(block.d);
    AffineBlock out{{d, d}, fp16_to_fp32(block.m), {}};
    for (int i = 0; i < kAffineBlock; ++i) out.values[i] = static_cast<int8_t>(low_bits(block.qs, i));
    return out;
}

AffineBlock with_minimum(const block_q5_1& block) noexcept {
    const float d = fp16_to_fp32(block.d);
    AffineBlock out{{d, d}, fp16_to_fp32(block.m), {}};
    for (int i = 0; i < kAffineBlock; ++i)
        out.values[i] = static_cast<int8_t>(low_bits(block.qs, i) | fifth_bit(block.qh, i));
    return out;
}

// The six bits of scale (first = 0) or minimum (first = 4) of part p.
int six_bits(const uint8_t (&scales)[12], int first, int p) noexcept {
    if (p < 4) return scales[first + p] & 0x3f;
    const int half = scales[4 + p] >> first & 0x0f;
    return half | (scales[first + p - 4] >> 6) << 4;
}

template <typename Block>
AffineBlock part_with_minimum(const Block& block, int p) noexcept {
    const float d = fp16_to_fp32(block.d) * static_cast<float>(six_bits(block.scales, 0, p));
    const float minimum = fp16_to_fp32(block.dmin) * static_cast<float>(six_bits(block.scales, 4, p));
    AffineBlock out{{d, d}, -minimum, {}};
    const uint8_t* qs = block.qs + p / 2 * 32;
    for (int i = 0; i < kAffineBlock; ++i) {
        out.values[i] = static_cast<int8_t>(p % 2 == 0 ? qs[i] & 0x0f : qs[i] >> 4);
    }
    return out;
}

AffineBlock part_of(const block_q5_k& block, int p) noexcept {
    AffineBlock out = part_with_minimum(block, p);
    for (int i = 0; i < kAffineBlock; ++i)
        out.values[i] = static_cast<int8_t>(out.values[i] | (block.qh[i] >> p & 1) << 4);
    return out;
}

AffineBlock part_of(const block_q6_k& block, int p) noexcept {
    const float d = fp16_to_fp32(block.d);
    AffineBlock out{
        {d * static_cast<float>(block.scales[2 * p]), d * static_cast<float>(block.scales[2 * p + 1])},
        -0.0f,
        {}};
    const int half = p / 4, n = p % 4;
    const uint8_t* ql = block.ql + 64 * half + 32 * (n % 2);
    const uint8_t* qh = block.qh + 32 * half;
    for (int i = 0; i < kAffineBlock; ++i) {
        const int low = n < 2 ? ql[i] & 0x0f : ql[i] >> 4;
        out.values[i] = static_cast<int8_t>((low | (qh[i] >> (2 * n) & 3) << 4) - 32);
    }
    return out;
}

}  // namespace

AffineBlock affine_block(QuantType type, const void* src, int64_t b) noexcept {
    constexpr int kParts = QK_K / kAffineBlock;
    const int64_t block = b / kParts;
    const auto part = static_cast<int>(b % kParts);
    switch (type) {
        case QuantType::Q4_1:
            return with_minimum(static_cast<const block_q4_1*>(src)[b]);
        case QuantType::Q5_0:
            return with_scale(as_q8_0(static_cast<const block_q5_0*>(src)[b]));
        case QuantType::Q5_1:
            return with_minimum(static_cast<const block_q5_1*>(src)[b]);
        case QuantType::Q4_K:
            return part_with_minimum(static_cast<const block_q4_k*>(src)[block], part);
        case QuantType::Q5_K:
            return part_of(static_cast<const block_q5_k*>(src)[block], part);
        case QuantType::Q6_K:
            return part_of(static_cast<const block_q6_k*>(src)[block], part);
        case QuantType::IQ4_NL:
            return with_scale(as_q8_0(static_cast<const block_iq4_nl*>(src)[b]));
        case QuantType::F32:
        case QuantType::F16:
        case QuantType::BF16:
        case QuantType::Q4_0:
        case QuantType::Q8_0:
            break;
    }
    return {};
}

block_q8_0 as_q8_0(const block_q5_0& block) noexcept {
    block_q8_0 out{block.d, {}};
    for (int i = 0; i < kAffineBlock; ++i)
        out.qs[i] = static_cast<int8_t>((low_bits(block.qs, i) | fifth_bit(block.qh, i)) - 16);
    return out;
}

block_q8_0 as_q8_0(const block_iq4_nl& block) noexcept {
    block_q8_0 out{block.d, {}};
    for (int i = 0; i < kAffineBlock; ++i) out.qs[i] = kIq4NlValues[low_bits(block.qs, i)];
    return out;
}

}  // namespace pocketvlm
