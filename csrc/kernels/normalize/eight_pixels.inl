// Patches, eight pixels at a time. The file that includes this declares, before it, for both types T of
// output:
//     void center_eight(const uint8_t* src, T* out) noexcept;
#pragma once

#include <cstdint>

#include "kernels/normalize/normalize.h"

namespace pocketvlm {
namespace {

// `narrow` takes patches of fewer than eight pixels a row.
template <typename T>
void center_patches(const uint8_t* const* rows, int64_t first, int64_t num_patches, int64_t patch_size,
                    int64_t patch_stride, T* out, CenterPatches<T>& narrow) noexcept {
    constexpr int64_t kStep = 8;
    if (patch_size < kStep) return narrow(rows, first, num_patches, patch_size, patch_stride, out);
    for (int64_t j = 0; j < num_patches; ++j, first += patch_size, out += patch_stride) {
        for (int64_t ky = 0; ky < patch_size; ++ky) {
            const uint8_t* src = rows[ky] + first;
            T* row = out + ky * patch_size;
            for (int64_t kx = 0; kx + kStep <= patch_size; kx += kStep) center_eight(src + kx, row + kx);
            // The last eight once more, rather than the rest one by one.
            if (patch_size % kStep != 0) center_eight(src + patch_size - kStep, row + patch_size - kStep);
        }
    }
}

}  // namespace
}  // namespace pocketvlm
