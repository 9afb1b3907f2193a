#include "model/image_view.h"

#include <cmath>
#include <cstring>

#include "base/aligned_buffer.h"
#include "base/check.h"

namespace pocketvlm {
namespace {
constexpr int64_t kMaxSide = int64_t{1} << 20;    // keeps the widest table of weights near 25 MB
constexpr int64_t kMaxPixels = int64_t{1} << 28;  // of any image on the way
}  // namespace

void check_image_size(const ImageSize& size, const char* what) {
    const bool sides_fit =
        size.height >= 1 && size.height <= kMaxSide && size.width >= 1 && size.width <= kMaxSide;
    if (!sides_fit || size.height * size.width > kMaxPixels) {
        throw InputError(concat(what, ": found ", size.height, "x", size.width,
                                " (height x width), expected sides from 1 to ", kMaxSide, " and at most ",
                                kMaxPixels, " pixels"));
    }
}

YuvMatrix yuv_matrix(YuvStandard standard, bool full_range) {
    const double kr = standard == YuvStandard::bt601 ? 0.299 : 0.2126;
    const double kb = standard == YuvStandard::bt601 ? 0.114 : 0.0722;
    const double kg = 1.0 - kr - kb;
    const double luma = full_range ? 1.0 : 255.0 / 219.0;
    const double chroma = full_range ? 1.0 : 255.0 / 224.0;
    const double r_v = 2.0 * (1.0 - kr) * chroma, b_u = 2.0 * (1.0 - kb) * chroma;
    const auto fixed = [](double factor) {
        return static_cast<int32_t>(std::lround(factor * (1 << kYuvFractionBits)));
    };
    return {full_range ? 0 : 16,   fixed(luma),           fixed(r_v),
            fixed(-b_u * kb / kg), fixed(-r_v * kr / kg), fixed(b_u)};
}

void fetch_row(const ImageView& image, int64_t y) noexcept {
    const int64_t channels = image.format == PixelFormat::rgb ? 3 : image.format == PixelFormat::rgba ? 4 : 1;
    const uint8_t* row = image.planes[0].row(y);
    for (int64_t i = 0; i < image.size.width * channels; i += kCacheLine) __builtin_prefetch(row + i, 0, 2);
}

void read_row(const ImageView& image, int64_t y, const KernelTable& kernels, const PlaneRows& out) noexcept {
    const int64_t n = image.size.width;
    const uint8_t* src = image.planes[0].row(y);
    switch (image.format) {
        case PixelFormat::rgb:
            return kernels.unpack_rgb(src, n, out);
        case PixelFormat::rgba:
            return kernels.unpack_rgba(src, n, out);
        case PixelFormat::grey:
            for (uint8_t* plane : {out.r, out.g, out.b}) std::memcpy(plane, src, static_cast<size_t>(n));
            return;
        case PixelFormat::nv12: {
            const uint8_t* chroma = image.planes[1].row(y / 2);
            return kernels.unpack_yuv420(src, chroma, chroma + 1, 2, image.matrix, n, out);
        }
        case PixelFormat::i420:
            return kernels.unpack_yuv420(src, image.planes[1].row(y / 2), image.planes[2].row(y / 2), 1,
                                         image.matrix, n, out);
    }
}

}  // namespace pocketvlm
