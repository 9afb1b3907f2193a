// From an RGB image to the uint8 tiles of the vision encoder, bit for bit as Pillow 13 resizes. The plan,
// which sizes an image takes on the way, is made in Python (runtime/processor.py); normalisation belongs to
// the vision encoder.
#pragma once

#include <cstdint>
#include <optional>

#include "base/stop_flag.h"
#include "base/thread_pool.h"
#include "kernels/kernel_table.h"

namespace pocketvlm {

struct ImageSize {
    int64_t height;
    int64_t width;
};

inline bool operator==(const ImageSize& a, const ImageSize& b) noexcept {
    return a.height == b.height && a.width == b.width;
}
inline bool operator!=(const ImageSize& a, const ImageSize& b) noexcept { return !(a == b); }

// Pixels that someone else owns: [height, width, 3], R, G, B.
struct ImageView {
    const uint8_t* pixels;
    ImageSize size;
};

// Numbered as in PIL.Image.Resampling and in the `resample` of preprocessor_config.json.
enum class ResizeFilter : int { lanczos = 1, bilinear = 2, bicubic = 3 };

// Throws UnsupportedError for the filters of PIL that are not here.
ResizeFilter resize_filter_from_pil(int resample);

// Throws InputError unless both sides of `size` are in [1, 2^20] and it has at most 2^28 pixels. The
// message begins with `what`.
void check_image_size(const ImageSize& size, const char* what);

// Writes the resized image, [size.height, size.width, 3], to dst, which does not overlap the source. A side
// that keeps its length is left alone. Throws InputError for sizes out of range, Cancelled, std::bad_alloc.
void resize_image(const ImageView& image, const ImageSize& size, ResizeFilter filter,
                  const KernelTable& kernels, ThreadPool& pool, const StopPoll& stop, uint8_t* dst);

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

// Writes tiles, [count_tiles(plan), tile_size, tile_size, 3]: crops row by row, then the global tile. The
// result does not depend on the number of threads. Holds at most three images besides the input and the
// tiles: what a resize starts from, what lies between its passes, what it gives. Throws as resize_image does.
void preprocess(const ImageView& image, const PreprocessPlan& plan, const KernelTable& kernels,
                ThreadPool& pool, const StopPoll& stop, uint8_t* tiles);

}  // namespace pocketvlm
