#include <cmath>

#include "kernels/attention/attention.h"

namespace pocketvlm::scalar {

void attend_block(const AttentionBlock& block) noexcept {
    for (int64_t r = 0; r < block.rows; ++r) {
        const int32_t visible = block.visible[r];
        if (visible == 0) continue;
        const float* q = block.q + r * block.q_stride;
        float* scores = block.scores + r * kKeyBlock;
        float* acc = block.acc + r * block.value_dim;

        float max = block.max[r];
        for (int32_t j = 0; j < visible; ++j) {
            float score = 0;
            for (int64_t d = 0; d < block.head_dim; ++d) score += q[d] * block.k[d * kKeyBlock + j];
            scores[j] = score;
            if (score > max) max = score;
        }

        const float rescale = std::exp(block.max[r] - max);
        float sum = block.sum[r] * rescale;
        for (int64_t d = 0; d < block.value_dim; ++d) acc[d] *= rescale;
        for (int32_t j = 0; j < visible; ++j) {
            const float weight = std::exp(scores[j] - max);
            sum += weight;
            for (int64_t d = 0; d < block.value_dim; ++d) acc[d] += weight * block.v[j * block.value_dim + d];
        }
        block.max[r] = max;
        block.sum[r] = sum;
    }
}

}  // namespace pocketvlm::scalar
