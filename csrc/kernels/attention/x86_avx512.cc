#include "kernels/attention/attention.h"
#include "kernels/attention/vector.inl"
#include "kernels/simd/f32_avx512.h"

namespace pocketvlm::avx512 {

void attend_block(const AttentionBlock& block) noexcept { attend_block_vector<F32x16, 4, 6>(block); }

}  // namespace pocketvlm::avx512
