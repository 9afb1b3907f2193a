#include "kernels/attention/attention.h"
#include "kernels/attention/vector.inl"
#include "kernels/simd/f32_avx512.h"

namespace pocketvlm::avx512 {
namespace {

constexpr int64_t kAheadBytes = 8192;

}  // namespace

void attend_block_f32(const AttentionBlock<float>& block) noexcept { attend_block<F32x16, 4, 6>(block); }

// Few rows are a token's: what bounds them is how soon keys and values come from memory, where values follow
// keys and head follows head. Eight vectors are all keys of a block, so that lines are read in their order.
void attend_block_f16(const AttentionBlock<Float16>& block) noexcept {
    if (block.rows <= 3) return attend_block<F32x16, 8, 3, kAheadBytes>(block);
    attend_block<F32x16, 4, 6>(block);
}

}  // namespace pocketvlm::avx512
