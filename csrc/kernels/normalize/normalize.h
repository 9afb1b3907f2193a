// From the pixels of one tile to the rows that the patch embedding multiplies: contract of the kernel.
#pragma once

#include <cstdint>

namespace pocketvlm {

// Values of preprocessor_config.json, per channel R, G, B.
struct NormalizeConfig {
    double rescale_factor;
    double image_mean[3];
    double image_std[3];
};

// A pixel has 256 values, so the arithmetic is done once, in the steps and the precision of the reference
// processor:
//   value[c][p] = (float(double(p) * rescale_factor) - float(image_mean[c])) / float(image_std[c])
struct NormalizeTable {
    float value[3][256];
};

NormalizeTable make_normalize_table(const NormalizeConfig& config) noexcept;

// A square tile cut into a grid of patches. Pixels beyond grid() * patch_size, at the right and the bottom,
// are unused.
struct PatchGrid {
    int32_t tile_size;
    int32_t patch_size;

    int32_t grid() const noexcept { return tile_size / patch_size; }           // patches along one side
    int32_t row_size() const noexcept { return 3 * patch_size * patch_size; }  // floats of one patch
};

// Writes the patches of grid row `grid_row`, [0, grid()), channels first as the convolution's weights [out,
// 3, p, p] are:
//   rows[j, c, ky, kx] = table.value[c][tile[grid_row * p + ky, j * p + kx, c]],  j in [0, grid()).
// Exact. No alignment, no over-read. The row of patch (i, j) of a whole tile is i * grid() + j.
using NormalizePatchesF32 = void(const uint8_t* tile,  // [tile_size, tile_size, 3]
                                 const PatchGrid& patches, int32_t grid_row, const NormalizeTable& table,
                                 float* rows) noexcept;  // [grid(), 3, patch_size, patch_size]

namespace scalar {
NormalizePatchesF32 normalize_patches_f32;
}  // namespace scalar

}  // namespace pocketvlm
