#include <arm_neon.h>

#include "kernels/roof/roof.h"

namespace pocketvlm::neon {
namespace {

constexpr int kAccumulators = 16;

double run_f32(int64_t rounds, int x, int y) noexcept {
    const float32x4_t a = vdupq_n_f32(static_cast<float>(x)), b = vdupq_n_f32(static_cast<float>(y));
    float32x4_t acc[kAccumulators];
    for (int j = 0; j < kAccumulators; ++j) acc[j] = vdupq_n_f32(static_cast<float>(j));
    for (int64_t round = 0; round < rounds; ++round) {
        for (float32x4_t& sum : acc) sum = vfmaq_f32(sum, a, b);
    }
    double total = 0;
    for (const float32x4_t& sum : acc) {
        float lanes[4];
        vst1q_f32(lanes, sum);
        for (const float lane : lanes) total += lane;
    }
    return total;
}

}  // namespace

const RoofLoop kRoofF32{run_f32, kAccumulators, 4, 1};

}  // namespace pocketvlm::neon
