// Images as streams of rows: each stage makes its rows from those of the stage before, in order, and keeps
// only the last few. A row is three rows of planes, R, G and B, `plane_stride` bytes apart.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <utility>

#include "base/aligned_buffer.h"
#include "kernels/kernel_table.h"
#include "model/image_view.h"
#include "model/resize_table.h"

namespace pocketvlm {

class RowStage {
  public:
    // Hears of every row once, as soon as it is there.
    using Sink = std::function<void(int64_t y)>;

    virtual ~RowStage() = default;
    RowStage(const RowStage&) = delete;
    RowStage& operator=(const RowStage&) = delete;

    const ImageSize& size() const noexcept { return size_; }
    int64_t plane_stride() const noexcept { return plane_stride_; }
    void set_sink(Sink sink) { sink_ = std::move(sink); }

    // Makes this stage and those before it ready for rows y and after; called again, for the earlier of both.
    // Allocates.
    void start_at(int64_t y);
    // What start_at allocates for this stage.
    size_t bytes() const noexcept;

    // Makes all rows before `end` that are not there yet.
    void make_until(int64_t end);
    // One of the last rows made: as many as were reserved.
    const uint8_t* row(int64_t y) const noexcept {
        return rows_.data() + kRowPadding + y % capacity_ * row_stride_;
    }

    // Says that a stage behind this one needs up to `rows` rows at a time. Before start_at.
    void reserve(int64_t rows) noexcept;

  protected:
    // batch: how many rows are made at a time, from a multiple of it on.
    RowStage(const ImageSize& size, int64_t plane_stride, int64_t batch) noexcept;

    uint8_t* mutable_row(int64_t y) noexcept { return const_cast<uint8_t*>(row(y)); }

    // Calls start_at of the stage before, so that row y can be made.
    virtual void start_input(int64_t y) = 0;
    // Makes rows [begin, end): the next batch.
    virtual void make(int64_t begin, int64_t end) = 0;

  private:
    ImageSize size_;
    int64_t plane_stride_;
    int64_t row_stride_;
    int64_t batch_;
    int64_t capacity_;
    int64_t next_ = 0;
    AlignedBuffer<uint8_t> rows_;
    Sink sink_;
};

// The rows of an image.
std::unique_ptr<RowStage> make_source_stage(const ImageView& image, const KernelTable& kernels);

// The rows of `input`, resized along them.
std::unique_ptr<RowStage> make_row_resize_stage(RowStage& input, int64_t width, ResizeFilter filter,
                                                const KernelTable& kernels);

// The rows of `input`, resized across them.
std::unique_ptr<RowStage> make_column_resize_stage(RowStage& input, int64_t height, ResizeFilter filter,
                                                   const KernelTable& kernels);

}  // namespace pocketvlm
