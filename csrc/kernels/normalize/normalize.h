// From the pixels of one row to the rows that the patch embedding multiplies: contract of the kernels.
//
// Pixels are only centred: 2 p - 255 is exact in every float format we have. What a checkpoint does beyond
// that, one factor and one offset per channel, is folded into the weights of the patch embedding.
#pragma once

#include <cstdint>

#include "base/half.h"

namespace pocketvlm {

// Writes one channel of the patches, side by side, that patch_size rows of pixels make up:
//   out[j * patch_stride + ky * patch_size + kx] = 2 * rows[ky][first + j * patch_size + kx] - 255,
//   j in [0, num_patches), ky and kx in [0, patch_size).
// Exact. No alignment; nothing is read or written beyond that: out lies between the other channels. Other
// threads may look at it once the caller has called finish_patches.
template <typename T>
using CenterPatches =
    void(const uint8_t* const* rows,  // [patch_size] pointers to [first + num_patches * patch_size]
         int64_t first, int64_t num_patches, int64_t patch_size, int64_t patch_stride, T* out) noexcept;

// Ends a series of calls of one thread. Kernels may write past the cache, where a later write, which tells
// others that the patches are there, can overtake. To prevent that takes as long as a memory access: not by
// each call.
inline void finish_patches() noexcept {
#if defined(__x86_64__)
    asm volatile("sfence" ::: "memory");
#endif
}

namespace scalar {
CenterPatches<BFloat16> center_patches_bf16;
CenterPatches<float> center_patches_f32;
}  // namespace scalar

namespace avx2 {
CenterPatches<BFloat16> center_patches_bf16;
CenterPatches<float> center_patches_f32;
}  // namespace avx2

namespace avx512 {
CenterPatches<BFloat16> center_patches_bf16;
CenterPatches<float> center_patches_f32;
}  // namespace avx512

namespace neon {
CenterPatches<BFloat16> center_patches_bf16;
CenterPatches<float> center_patches_f32;
}  // namespace neon

}  // namespace pocketvlm
