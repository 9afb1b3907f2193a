#include "kernels/attention/attention.h"
#include "kernels/attention/vector.inl"
#include "kernels/simd/f32_avx2.h"

namespace pocketvlm::avx2 {

void attend_block_f32(const AttentionBlock<float>& block) noexcept { attend_block<F32x8, 2, 6>(block); }

void attend_block_f16(const AttentionBlock<Float16>& block) noexcept { attend_block<F32x8, 2, 6>(block); }

}  // namespace pocketvlm::avx2
