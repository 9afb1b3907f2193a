#include "kernels/attention/attention.h"
#include "kernels/attention/vector.inl"
#include "kernels/simd/f32_avx2.h"

namespace pocketvlm::avx2 {

void attend_block(const AttentionBlock& block) noexcept { attend_block_vector<F32x8, 2, 6>(block); }

}  // namespace pocketvlm::avx2
