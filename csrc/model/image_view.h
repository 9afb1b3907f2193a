// Images that someone else owns, and how one row of them is read.
#pragma once

#include <cstdint>

#include "kernels/kernel_table.h"
#include "kernels/unpack/unpack.h"

namespace pocketvlm {

struct ImageSize {
    int64_t height;
    int64_t width;
};

inline bool operator==(const ImageSize& a, const ImageSize& b) noexcept {
    return a.height == b.height && a.width == b.width;
}
inline bool operator!=(const ImageSize& a, const ImageSize& b) noexcept { return !(a == b); }

// Throws InputError unless both sides of `size` are in [1, 2^20] and it has at most 2^28 pixels. The
// message begins with `what`.
void check_image_size(const ImageSize& size, const char* what);

enum class PixelFormat {
    rgb,   // [H, W, 3]
    rgba,  // [H, W, 4], alpha not premultiplied; composited over white
    grey,  // [H, W]
    nv12,  // luma [H, W], and chroma of 2 x 2 pixels, U and V in turn: [ceil(H / 2), ceil(W / 2), 2]
    i420,  // luma [H, W], then U and V, [ceil(H / 2), ceil(W / 2)] each
};

// Rows of bytes, a fixed number of bytes apart.
struct PixelPlane {
    const uint8_t* data = nullptr;
    int64_t row_stride = 0;

    const uint8_t* row(int64_t y) const noexcept { return data + y * row_stride; }
};

// How camera frames code colours: by the luma factors of ITU-R BT.601 or of BT.709.
enum class YuvStandard { bt601, bt709 };

// With kr and kb of the standard, kg = 1 - kr - kb, and U and V counted from 128:
//   R = l + 2 (1 - kr) c V,  B = l + 2 (1 - kb) c U,  G = (l - kr R - kb B) / kg,
// l = Y and c = 1 in full range; l = (Y - 16) * 255 / 219 and c = 255 / 224 in the limited range of
// television.
YuvMatrix yuv_matrix(YuvStandard standard, bool full_range);

struct ImageView {
    PixelFormat format;
    ImageSize size;
    PixelPlane planes[3];  // as many as the format has
    YuvMatrix matrix;      // nv12 and i420
};

// Asks for the pixels of row y, which will be read soon.
void fetch_row(const ImageView& image, int64_t y) noexcept;

// Reads row y of an image, in RGB.
void read_row(const ImageView& image, int64_t y, const KernelTable& kernels, const PlaneRows& out) noexcept;

}  // namespace pocketvlm
