// The plan of an image as a chain of row stages, one chain per band of rows, and where finished rows go.
#include "model/preprocess.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/check.h"
#include "model/row_stage.h"

namespace pocketvlm {
namespace {

// The stop flag is looked at each time every thread has worked on so many pixels.
constexpr int64_t kPixelsPerPoll = int64_t{4} << 20;

// Rows of a band start at a multiple of it at least, so that no stage makes part of a batch twice.
constexpr int64_t kBandRows = 4;

std::string size_text(const ImageSize& size) { return concat(size.height, "x", size.width); }

int64_t num_pixels(const ImageSize& size) noexcept { return size.height * size.width; }

// The order matters to the last bit, because pixels are rounded in between. Pillow 13 runs the vertical pass
// first when the height shrinks by more than twice as many pixels as the width; earlier versions never do.
bool resizes_along_rows_first(const ImageSize& from, const ImageSize& to) noexcept {
    const int64_t lost_rows = from.height - to.height;
    const int64_t lost_columns = from.width - to.width;
    return !(lost_rows > 0 && lost_rows > 2 * lost_columns);
}

// Stages one behind the other. Each refers to the one before it.
class Chain {
  public:
    Chain(ResizeFilter filter, const KernelTable& kernels) : filter_(filter), kernels_(kernels) {}

    RowStage& add_source(const ImageView& image) { return add(make_source_stage(image, kernels_)); }

    // Resizes what `stage` makes. A pass that would not change the length of its side is left out.
    RowStage& add_resize(RowStage& stage, const ImageSize& size) {
        if (resizes_along_rows_first(stage.size(), size)) {
            return add_column_resize(add_row_resize(stage, size.width), size.height);
        }
        return add_row_resize(add_column_resize(stage, size.height), size.width);
    }

    int64_t bytes() const noexcept {
        int64_t bytes = 0;
        for (const auto& stage : stages_) bytes += static_cast<int64_t>(stage->bytes());
        return bytes;
    }

  private:
    RowStage& add(std::unique_ptr<RowStage> stage) {
        stages_.push_back(std::move(stage));
        return *stages_.back();
    }
    RowStage& add_row_resize(RowStage& stage, int64_t width) {
        if (stage.size().width == width) return stage;
        return add(make_row_resize_stage(stage, width, filter_, kernels_));
    }
    RowStage& add_column_resize(RowStage& stage, int64_t height) {
        if (stage.size().height == height) return stage;
        return add(make_column_resize_stage(stage, height, filter_, kernels_));
    }

    ResizeFilter filter_;
    const KernelTable& kernels_;
    std::vector<std::unique_ptr<RowStage>> stages_;
};

// Writes finished rows of tiles where they belong.
class TileWriter {
  public:
    TileWriter(const TileOutput& output, int64_t tile_size, const KernelTable& kernels)
        : output_(output), tile_size_(tile_size), kernels_(kernels) {}

    // Rows are written so many at a time, from a multiple of it within each tile on.
    int64_t batch() const noexcept { return output_.layout == TileLayout::tiles ? 1 : output_.patch_size; }

    // `stage` has row `last` of its tiles; the first of those side by side is `tile`, and there it is row y.
    // `rows` has room for a batch.
    void write(const RowStage& stage, int64_t last, int64_t tile, int64_t y, const uint8_t** rows) const {
        switch (output_.layout) {
            case TileLayout::tiles:
                return write_planes(stage, last, tile, y);
            case TileLayout::patches_bf16:
                return write_patches(stage, last, tile, y, rows, kernels_.center_patches_bf16);
            case TileLayout::patches_f32:
                return write_patches(stage, last, tile, y, rows, kernels_.center_patches_f32);
        }
    }

  private:
    void write_planes(const RowStage& stage, int64_t last, int64_t tile, int64_t y) const {
        auto* planes = static_cast<uint8_t*>(output_.data);
        for (int64_t x = 0; x < stage.size().width; x += tile_size_, ++tile) {
            for (int64_t c = 0; c < 3; ++c) {
                std::memcpy(planes + ((tile * 3 + c) * tile_size_ + y) * tile_size_,
                            stage.row(last) + c * stage.plane_stride() + x, static_cast<size_t>(tile_size_));
            }
        }
    }

    template <typename T>
    void write_patches(const RowStage& stage, int64_t last, int64_t tile, int64_t y, const uint8_t** rows,
                       CenterPatches<T>* center_patches) const {
        const int64_t size = output_.patch_size, grid = tile_size_ / size, values = 3 * size * size;
        if (y % size != size - 1) return;
        for (int64_t ky = 0; ky < size; ++ky) rows[ky] = stage.row(last - size + 1 + ky);
        for (int64_t x = 0; x < stage.size().width; x += tile_size_, ++tile) {
            T* patches = static_cast<T*>(output_.data) + (tile * grid + y / size) * grid * values;
            for (int64_t c = 0; c < 3; ++c) {
                center_patches(rows, c * stage.plane_stride() + x, grid, size, values,
                               patches + c * size * size);
            }
        }
    }

    TileOutput output_;
    int64_t tile_size_;
    const KernelTable& kernels_;
};

struct RowRange {
    int64_t begin, end;

    bool has(int64_t y) const noexcept { return begin <= y && y < end; }
    // Where the first `step` of `num_steps` equal parts end.
    int64_t part_end(int64_t step, int64_t num_steps) const noexcept {
        return begin + (end - begin) * step / num_steps;
    }
};

// One thread's share: a range of rows of the image that is cut into tiles, and of the global tile. Its stages
// also make the rows around those that the resize of the global tile weighs.
class Band {
  public:
    Band(const ImageView& image, const PreprocessPlan& plan, const TileWriter& writer,
         const KernelTable& kernels, int64_t index, int64_t num_bands)
        : chain_(plan.filter, kernels),
          tile_size_(plan.tile_size),
          row_pointers_(static_cast<size_t>(writer.batch())) {
        const ImageSize tile{tile_size_, tile_size_};
        RowStage& resized = chain_.add_resize(chain_.add_source(image), plan.resized);
        cut_ = &chain_.add_resize(resized, plan.split.value_or(tile));
        cut_rows_ = share(cut_->size().height, writer.batch(), index, num_bands);
        cut_->reserve(writer.batch());
        if (cut_->size() != tile) {
            global_ = &chain_.add_resize(*cut_, tile);
            global_rows_ = share(tile_size_, writer.batch(), index, num_bands);
            global_->reserve(writer.batch());
        }
    }

    int64_t bytes() const noexcept { return chain_.bytes(); }

    // `writer` outlives the band.
    void start(const TileWriter& writer, int64_t num_tiles) {
        const int64_t columns = cut_->size().width / tile_size_;
        cut_->set_sink([=, &writer](int64_t y) {
            if (!cut_rows_.has(y)) return;
            writer.write(*cut_, y, y / tile_size_ * columns, y % tile_size_, row_pointers_.data());
        });
        cut_->start_at(cut_rows_.begin);
        if (global_ == nullptr) return;
        global_->set_sink([=, &writer](int64_t y) {
            if (global_rows_.has(y)) writer.write(*global_, y, num_tiles - 1, y, row_pointers_.data());
        });
        global_->start_at(global_rows_.begin);
    }

    // The step-th of num_steps, from 1 on.
    void run(int64_t step, int64_t num_steps) {
        if (global_ != nullptr) global_->make_until(global_rows_.part_end(step, num_steps));
        cut_->make_until(cut_rows_.part_end(step, num_steps));
        finish_patches();
    }

  private:
    // Starts at a row from which the writer writes, and from which a stage makes a batch.
    RowRange share(int64_t num_rows, int64_t batch, int64_t index, int64_t num_bands) const {
        const int64_t step = (kBandRows + batch - 1) / batch * batch;
        const auto cut = [&](int64_t i) {
            const int64_t row = num_rows * i / num_bands;
            return i == num_bands ? num_rows : row - row % tile_size_ % step;
        };
        return {cut(index), cut(index + 1)};
    }

    Chain chain_;
    int64_t tile_size_;
    std::vector<const uint8_t*> row_pointers_;
    RowStage* cut_;
    RowStage* global_ = nullptr;
    RowRange cut_rows_{};
    RowRange global_rows_{};
};

// Bands for so many threads: fewer where they would be so low that they mostly made each other's rows.
int64_t count_bands(const PreprocessPlan& plan, int num_threads) {
    constexpr int64_t kLeastRows = 64;
    const int64_t height = plan.split ? plan.split->height : plan.tile_size;
    return std::clamp<int64_t>(height / kLeastRows, 1, num_threads);
}

void check_plan(const ImageView& image, const PreprocessPlan& plan) {
    check_image_size(image.size, "image");
    count_tiles(plan);
}

}  // namespace

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
                ThreadPool& pool, const StopPoll& stop, const TileOutput& output) {
    check_plan(image, plan);
    const int64_t num_tiles = count_tiles(plan), num_bands = count_bands(plan, pool.num_threads());
    const TileWriter writer(output, plan.tile_size, kernels);
    std::vector<std::unique_ptr<Band>> bands;
    for (int64_t b = 0; b < num_bands; ++b) {
        bands.push_back(std::make_unique<Band>(image, plan, writer, kernels, b, num_bands));
        bands.back()->start(writer, num_tiles);
    }
    const int64_t most_pixels = std::max(
        {num_pixels(image.size), num_pixels(plan.resized), num_pixels(plan.split.value_or(plan.resized))});
    const int64_t num_steps = 1 + most_pixels / (kPixelsPerPoll * num_bands);
    for (int64_t step = 1; step <= num_steps; ++step) {
        stop.check();
        pool.parallel_for(num_bands, [&](int64_t b) { bands[b]->run(step, num_steps); });
    }
}

int64_t scratch_bytes(const ImageSize& image, const PreprocessPlan& plan, const KernelTable& kernels,
                      int num_threads, TileLayout layout, int64_t patch_size) {
    const ImageView view{PixelFormat::rgb, image, {}, {}};
    check_plan(view, plan);
    const int64_t num_bands = count_bands(plan, num_threads);
    const TileWriter writer({layout, patch_size, nullptr}, plan.tile_size, kernels);
    return num_bands * Band(view, plan, writer, kernels, 0, num_bands).bytes();
}

void resize_image(const ImageView& image, const ImageSize& size, ResizeFilter filter,
                  const KernelTable& kernels, uint8_t* dst) {
    check_image_size(image.size, "image");
    check_image_size(size, "resized image");
    Chain chain(filter, kernels);
    RowStage& last = chain.add_resize(chain.add_source(image), size);
    last.set_sink([&](int64_t y) {
        for (int64_t c = 0; c < 3; ++c) {
            std::memcpy(dst + (c * size.height + y) * size.width, last.row(y) + c * last.plane_stride(),
                        static_cast<size_t>(size.width));
        }
    });
    last.start_at(0);
    last.make_until(size.height);
}

}  // namespace pocketvlm
