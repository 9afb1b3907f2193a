#include "kernels/attention/attention.h"
#include "kernels/attention/vector.inl"
#include "kernels/simd/f32_avx512.h"

namespace pocketvlm::avx512 {

void attend_block_f32(const AttentionBlock<float>& block) noexcept { attend_block<F32x16, 4, 6>(block); }

void attend_block_f16(const AttentionBlock<Float16>& block) noexcept { attend_block<F32x16, 4, 6>(block); }

}  // namespace pocketvlm::avx512
