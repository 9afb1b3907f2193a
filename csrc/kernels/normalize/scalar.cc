// The definition of the normalisation: a table of 256 values per channel, and the walk from pixels to patch
// rows.
#include "kernels/normalize/normalize.h"

namespace pocketvlm {

NormalizeTable make_normalize_table(const NormalizeConfig& config) noexcept {
    NormalizeTable table;
    for (int32_t c = 0; c < 3; ++c) {
        const auto mean = static_cast<float>(config.image_mean[c]);
        const auto std = static_cast<float>(config.image_std[c]);
        for (int32_t p = 0; p < 256; ++p) {
            const auto rescaled = static_cast<float>(static_cast<double>(p) * config.rescale_factor);
            table.value[c][p] = (rescaled - mean) / std;
        }
    }
    return table;
}

namespace scalar {

void normalize_patches_f32(const uint8_t* tile, const PatchGrid& patches, int32_t grid_row,
                           const NormalizeTable& table, float* rows) noexcept {
    const int32_t size = patches.patch_size;
    for (int32_t j = 0; j < patches.grid(); ++j) {
        for (int32_t c = 0; c < 3; ++c) {
            for (int32_t ky = 0; ky < size; ++ky) {
                const int64_t y = int64_t{grid_row} * size + ky;
                const uint8_t* pixel = tile + (y * patches.tile_size + int64_t{j} * size) * 3 + c;
                for (int32_t kx = 0; kx < size; ++kx) *rows++ = table.value[c][pixel[3 * kx]];
            }
        }
    }
}

}  // namespace scalar
}  // namespace pocketvlm
