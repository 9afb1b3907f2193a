#include <cmath>

#include "kernels/attention/attention.h"

namespace pocketvlm::scalar {
namespace {

float to_float(float x) noexcept { return x; }
float to_float(Float16 x) noexcept { return fp16_to_fp32(x.bits); }

template <typename T>
void attend_block(const AttentionBlock<T>& block) noexcept {
    for (int64_t r = 0; r < block.rows; ++r) {
        const int32_t visible = block.visible[r];
        if (visible == 0) continue;
        const float* q = block.q + r * block.q_stride;
        float* scores = block.scores + r * kKeyBlock;
        float* acc = block.acc + r * block.value_dim;

        float max = block.max[r];
        for (int32_t j = 0; j < visible; ++j) {
            float score = 0;
            for (int64_t d = 0; d < block.head_dim; ++d) score += q[d] * to_float(block.k[d * kKeyBlock + j]);
            scores[j] = score;
            if (score > max) max = score;
        }

        const float rescale = std::exp(block.max[r] - max);
        float sum = block.sum[r] * rescale;
        for (int64_t d = 0; d < block.value_dim; ++d) acc[d] *= rescale;
        for (int32_t j = 0; j < visible; ++j) {
            const float weight = std::exp(scores[j] - max);
            sum += weight;
            for (int64_t d = 0; d < block.value_dim; ++d)
                acc[d] += weight * to_float(block.v[j * block.value_dim + d]);
        }
        block.max[r] = max;
        block.sum[r] = sum;
    }
}

float to_float(BFloat16 x) noexcept { return bf16_to_fp32(x.bits); }

}  // namespace

void attend_block_f32(const AttentionBlock<float>& block) noexcept { attend_block(block); }

void attend_block_f16(const AttentionBlock<Float16>& block) noexcept { attend_block(block); }

void attend_block_bf16(const AttentionBlockBf16& block) noexcept {
    for (int64_t r = 0; r < block.rows; ++r) {
        const int32_t visible = block.visible[r];
        if (visible == 0) continue;
        const BFloat16* q = block.q + r * block.q_stride;
        float* scores = block.scores + r * kKeyBlock;
        float* acc = block.acc + r * block.value_dim;

        float max = block.max[r];
        for (int32_t j = 0; j < visible; ++j) {
            float score = 0;
            for (int64_t d = 0; d < block.key_dim; ++d)
                score += to_float(q[d]) * to_float(block.k[(d / 2 * kKeyBlock + j) * 2 + d % 2]);
            scores[j] = score;
            if (score > max) max = score;
        }

        const float rescale = std::exp((block.max[r] - max) * block.scale);
        float sum = block.sum[r] * rescale;
        for (int64_t d = 0; d < block.value_dim; ++d) acc[d] *= rescale;
        for (int32_t j = 0; j < visible; ++j) {
            const float weight = std::exp((scores[j] - max) * block.scale);
            const float rounded = bf16_to_fp32(fp32_to_bf16(weight));
            sum += weight;
            for (int64_t d = 0; d < block.value_dim; ++d)
                acc[d] += rounded * to_float(block.v[(j / 2 * block.value_dim + d) * 2 + j % 2]);
        }
        block.max[r] = max;
        block.sum[r] = sum;
    }
}

}  // namespace pocketvlm::scalar
