// The plan of an image, step by step, and what the resize kernels need: filter weights and the order of the
// passes.
#include "model/preprocess.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/check.h"

namespace pocketvlm {
namespace {

constexpr int64_t kMaxSide = int64_t{1} << 20;    // keeps the widest table of weights near 25 MB
constexpr int64_t kMaxPixels = int64_t{1} << 28;  // of any image on the way
constexpr double kPi = 3.14159265358979323846;

std::string size_text(const ImageSize& size) { return concat(size.height, "x", size.width); }

int64_t num_bytes(const ImageSize& size) noexcept { return size.height * size.width * 3; }

// The filters' arithmetic is in Pillow's order of operations, rounding step by rounding step.
double sinc(double x) {
    if (x == 0.0) return 1.0;
    const double angle = x * kPi;
    return std::sin(angle) / angle;
}

double filter_weight(ResizeFilter filter, double x) {
    const double distance = std::fabs(x);
    switch (filter) {
        case ResizeFilter::bilinear:
            return distance < 1.0 ? 1.0 - distance : 0.0;
        case ResizeFilter::bicubic:  // Keys' cubic convolution with a = -0.5
            if (distance < 1.0) return (1.5 * distance - 2.5) * distance * distance + 1.0;
            if (distance < 2.0) return (((distance - 5.0) * distance + 8.0) * distance - 4.0) * -0.5;
            return 0.0;
        case ResizeFilter::lanczos:  // a sinc in the window of a sinc three times as wide
            return -3.0 <= x && x < 3.0 ? sinc(x) * sinc(x / 3.0) : 0.0;
    }
    return 0.0;
}

double filter_radius(ResizeFilter filter) {
    switch (filter) {
        case ResizeFilter::bilinear:
            return 1.0;
        case ResizeFilter::bicubic:
            return 2.0;
        case ResizeFilter::lanczos:
            return 3.0;
    }
    return 0.0;
}

// Owns what ResizeTaps points to.
struct TapsTable {
    int32_t source_size;
    int32_t size;
    int32_t stride;
    std::vector<int32_t> first;
    std::vector<int32_t> count;
    std::vector<int32_t> weights;

    ResizeTaps view() const noexcept {
        return {source_size, size, stride, first.data(), count.data(), weights.data()};
    }
};

TapsTable make_taps(int64_t source_size, int64_t size, ResizeFilter filter) {
    const double scale = static_cast<double>(source_size) / static_cast<double>(size);
    const double filter_scale =
        std::max(scale, 1.0);  // shrinking widens the filter, growing does not narrow it
    const double inverse = 1.0 / filter_scale;
    const double support = filter_radius(filter) * filter_scale;
    const auto most_taps = static_cast<int64_t>(std::ceil(support)) * 2 + 1;

    TapsTable table;
    table.source_size = static_cast<int32_t>(source_size);
    table.size = static_cast<int32_t>(size);
    table.stride = static_cast<int32_t>(std::min(most_taps, source_size));
    table.first.reserve(size);
    table.count.reserve(size);
    table.weights.resize(size * table.stride);

    std::vector<double> exact(table.stride);
    for (int64_t i = 0; i < size; ++i) {
        const double center = (static_cast<double>(i) + 0.5) * scale;
        const auto first = std::max<int64_t>(static_cast<int64_t>(center - support + 0.5), 0);
        const auto end = std::min<int64_t>(static_cast<int64_t>(center + support + 0.5), source_size);
        const int64_t count = end - first;

        double sum = 0.0;
        for (int64_t k = 0; k < count; ++k) {
            exact[k] = filter_weight(filter, (static_cast<double>(k + first) - center + 0.5) * inverse);
            sum += exact[k];
        }
        for (int64_t k = 0; k < count; ++k) {
            const double fixed = (sum != 0.0 ? exact[k] / sum : exact[k]) * (1 << kResizeFractionBits);
            table.weights[i * table.stride + k] =
                static_cast<int32_t>(fixed < 0.0 ? fixed - 0.5 : fixed + 0.5);
        }
        table.first.push_back(static_cast<int32_t>(first));
        table.count.push_back(static_cast<int32_t>(count));
    }
    return table;
}

struct RowRange {
    int64_t begin;
    int64_t end;
};

// Runs pass(RowRange) over [0, num_rows) in blocks of rows, looking at `stop` every few hundred of them.
template <typename Pass>
void for_row_bands(int64_t num_rows, ThreadPool& pool, const StopPoll& stop, const Pass& pass) {
    constexpr int64_t kBlock = 8;
    constexpr int64_t kBand = 64 * kBlock;
    for (int64_t row = 0; row < num_rows; row += kBand) {
        stop.check();
        const int64_t band_end = std::min(row + kBand, num_rows);
        pool.parallel_for((band_end - row + kBlock - 1) / kBlock, [&](int64_t task) {
            const int64_t begin = row + task * kBlock;
            pass(RowRange{begin, std::min(begin + kBlock, band_end)});
        });
    }
}

// Resizes one side at a time.
struct Resizer {
    ResizeFilter filter;
    const KernelTable& kernels;
    ThreadPool& pool;
    const StopPoll& stop;

    // `size` differs from the size of the image in one side only.
    void pass(const ImageView& image, const ImageSize& size, uint8_t* dst) const {
        const int64_t row_bytes = size.width * 3;
        if (size.width != image.size.width) {
            const TapsTable table = make_taps(image.size.width, size.width, filter);
            for_row_bands(size.height, pool, stop, [&](const RowRange& rows) {
                kernels.resize_horizontal_u8(image.pixels + rows.begin * image.size.width * 3,
                                             rows.end - rows.begin, table.view(),
                                             dst + rows.begin * row_bytes);
            });
        } else {
            const TapsTable table = make_taps(image.size.height, size.height, filter);
            for_row_bands(size.height, pool, stop, [&](const RowRange& rows) {
                for (int64_t y = rows.begin; y < rows.end; ++y) {
                    kernels.resize_vertical_u8(image.pixels, row_bytes, table.view(), static_cast<int32_t>(y),
                                               dst + y * row_bytes);
                }
            });
        }
    }
};

// The order matters to the last bit, because pixels are rounded in between. Pillow 13 runs the vertical pass
// first when the height shrinks by more than twice as many pixels as the width; earlier versions never do.
bool runs_horizontal_first(const ImageSize& from, const ImageSize& to) noexcept {
    const int64_t lost_rows = from.height - to.height;
    const int64_t lost_columns = from.width - to.width;
    return !(lost_rows > 0 && lost_rows > 2 * lost_columns);
}

using Pixels = std::unique_ptr<uint8_t[]>;

Pixels allocate_pixels(const ImageSize& size) { return Pixels(new uint8_t[num_bytes(size)]); }

}  // namespace

ResizeFilter resize_filter_from_pil(int resample) {
    switch (resample) {
        case 1:
            return ResizeFilter::lanczos;
        case 2:
            return ResizeFilter::bilinear;
        case 3:
            return ResizeFilter::bicubic;
        default:
            throw UnsupportedError(
                concat("resample: found ", resample,
                       ", expected a PIL filter: 1 (LANCZOS), 2 (BILINEAR) or 3 (BICUBIC)"));
    }
}

void check_image_size(const ImageSize& size, const char* what) {
    const bool sides_fit =
        size.height >= 1 && size.height <= kMaxSide && size.width >= 1 && size.width <= kMaxSide;
    if (!sides_fit || size.height * size.width > kMaxPixels) {
        throw InputError(concat(what, ": found ", size_text(size),
                                " (height x width), expected sides from 1 to ", kMaxSide, " and at most ",
                                kMaxPixels, " pixels"));
    }
}

void resize_image(const ImageView& image, const ImageSize& size, ResizeFilter filter,
                  const KernelTable& kernels, ThreadPool& pool, const StopPoll& stop, uint8_t* dst) {
    check_image_size(image.size, "image");
    check_image_size(size, "resized image");
    const bool horizontal_first = runs_horizontal_first(image.size, size);
    const ImageSize between = horizontal_first ? ImageSize{image.size.height, size.width}
                                               : ImageSize{size.height, image.size.width};
    // A pass that would not change the length of its side is skipped. The image in between is no larger than
    // the larger of the other two. The filters reach both edges, so the second pass needs all of it.
    const Resizer resizer{filter, kernels, pool, stop};
    if (between == image.size && between == size) {
        std::memcpy(dst, image.pixels, num_bytes(size));
    } else if (between == image.size) {
        resizer.pass(image, size, dst);
    } else if (between == size) {
        resizer.pass(image, between, dst);
    } else {
        const Pixels pixels = allocate_pixels(between);
        resizer.pass(image, between, pixels.get());
        resizer.pass({pixels.get(), between}, size, dst);
    }
}

int64_t count_tiles(const PreprocessPlan& plan) {
    const int64_t tile_size = plan.tile_size;
    check_image_size(plan.resized, "resized");
    check_image_size({tile_size, tile_size}, "tile_size");
    if (!plan.split) return 1;

    const ImageSize& split = *plan.split;
    check_image_size(split, "split");
    if (split.height % tile_size != 0 || split.width % tile_size != 0) {
        throw InputError(concat("split: found ", size_text(split),
                                " (height x width), expected multiples of tile_size ", tile_size));
    }
    const int64_t crops = (split.height / tile_size) * (split.width / tile_size);
    return crops == 1 ? 1 : crops + 1;
}

void preprocess(const ImageView& image, const PreprocessPlan& plan, const KernelTable& kernels,
                ThreadPool& pool, const StopPoll& stop, uint8_t* tiles) {
    const int64_t num_tiles = count_tiles(plan);
    const ImageSize tile{plan.tile_size, plan.tile_size};
    check_image_size(image.size, "image");

    ImageView current = image;
    Pixels owned;  // pixels of `current`, unless they are the caller's
    const auto resize_to = [&](const ImageSize& size) {
        if (current.size == size) return;
        Pixels resized = allocate_pixels(size);
        resize_image(current, size, plan.filter, kernels, pool, stop, resized.get());
        owned = std::move(resized);
        current = {owned.get(), size};
    };

    resize_to(plan.resized);
    if (!plan.split) {
        resize_image(current, tile, plan.filter, kernels, pool, stop, tiles);
        return;
    }
    resize_to(*plan.split);

    // The crops, row by row: tile row y of crop t starts at (t / columns, t % columns) in units of tiles.
    const int64_t columns = current.size.width / plan.tile_size;
    const int64_t crops = columns * (current.size.height / plan.tile_size);
    const int64_t tile_row_bytes = plan.tile_size * 3;
    stop.check();
    pool.parallel_for(crops, [&](int64_t t) {
        for (int64_t y = 0; y < plan.tile_size; ++y) {
            const int64_t row = (t / columns) * plan.tile_size + y;
            std::memcpy(tiles + (t * plan.tile_size + y) * tile_row_bytes,
                        current.pixels + (row * columns + t % columns) * tile_row_bytes, tile_row_bytes);
        }
    });
    if (num_tiles > crops) {
        resize_image(current, tile, plan.filter, kernels, pool, stop, tiles + crops * num_bytes(tile));
    }
}

}  // namespace pocketvlm
