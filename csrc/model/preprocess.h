// From an image to what the vision encoder takes, in one pass over its rows: bit for bit as Pillow 13
// resizes. The plan, which sizes an image takes on the way, is made in Python (runtime/processor.py).
#pragma once

#include <cstdint>
#include <optional>

#include "base/stop_flag.h"
#include "base/thread_pool.h"
#include "kernels/kernel_table.h"
#include "model/image_view.h"
#include "model/resize_table.h"

namespace pocketvlm {

// Resize to `resized`; then, with `split`, resize to `split`, whose sides are multiples of tile_size, cut it
// into tiles and add the whole of it, resized to one tile, at the end (unless it is one tile). Without,
// resize to one tile.
struct PreprocessPlan {
    ImageSize resized;
    std::optional<ImageSize> split;
    int64_t tile_size;
    ResizeFilter filter;
};

// Tiles that `preprocess` writes. Throws InputError if the sizes of the plan are out of range or do not fit
// each other.
int64_t count_tiles(const PreprocessPlan& plan);

// How tiles lie in memory. Patches come in rows, as the patch embedding takes them: for each patch, row by
// row, its pixels [3, patch_size, patch_size], as 2 p - 255. Pixels at the right and the bottom that fill no
// patch are left out.
enum class TileLayout {
    tiles,         // uint8 [tiles, 3, tile_size, tile_size]
    patches_bf16,  // bfloat16 [tiles, patches, 3 * patch_size^2]
    patches_f32,   // float32 of that shape
};

struct TileOutput {
    TileLayout layout;
    int64_t patch_size;  // in [1, tile_size]; not looked at for tiles
    void* data;
};

// Writes all tiles: crops row by row, then the global tile. The result does not depend on the number of
// threads. Holds `scratch_bytes` besides the image and the tiles. Throws InputError for sizes out of range,
// Cancelled, std::bad_alloc.
void preprocess(const ImageView& image, const PreprocessPlan& plan, const KernelTable& kernels,
                ThreadPool& pool, const StopPoll& stop, const TileOutput& output);

// Bytes that `preprocess` allocates: a few rows per resize and thread.
int64_t scratch_bytes(const ImageSize& image, const PreprocessPlan& plan, const KernelTable& kernels,
                      int num_threads, TileLayout layout, int64_t patch_size);

// Writes the resized image, uint8 [3, size.height, size.width], to dst. A side that keeps its length is left
// alone. Throws InputError for sizes out of range, std::bad_alloc.
void resize_image(const ImageView& image, const ImageSize& size, ResizeFilter filter,
                  const KernelTable& kernels, uint8_t* dst);

}  // namespace pocketvlm
