#include "model/row_stage.h"

#include <algorithm>
#include <utility>
#include <vector>

namespace pocketvlm {
namespace {

constexpr int64_t round_up(int64_t n, int64_t step) { return (n + step - 1) / step * step; }

constexpr int64_t kPlanes = 3;

// From one row to the next. Some twenty rows are read and written side by side: were they a multiple of 2048
// bytes apart, they would share few places in the cache, and loads would wait for stores to other rows. Seven
// lines beyond a multiple of 1024 bytes spread them.
constexpr int64_t row_stride(int64_t plane_stride) {
    return round_up(kPlanes * plane_stride, 1024) + 7 * static_cast<int64_t>(kCacheLine);
}

// Rows of an image that are on their way from memory: what a batch of a resize takes.
constexpr int64_t kFetchAhead = 4;

class SourceStage : public RowStage {
  public:
    // What is written too much behind one plane must not reach the next.
    SourceStage(const ImageView& image, const KernelTable& kernels)
        : RowStage(image.size, round_up(image.size.width, kCacheLine) + kRowPadding, 1),
          image_(image),
          kernels_(kernels) {}

  private:
    void start_input(int64_t) override {}

    void make(int64_t begin, int64_t end) override {
        for (int64_t y = begin; y < end; ++y) {
            uint8_t* row = mutable_row(y);
            fetch_row(image_, std::min(y + kFetchAhead, size().height - 1));
            read_row(image_, y, kernels_, {row, row + plane_stride(), row + 2 * plane_stride()});
        }
    }

    ImageView image_;
    const KernelTable& kernels_;
};

class RowResizeStage : public RowStage {
  public:
    RowResizeStage(RowStage& input, int64_t width, ResizeFilter filter, const KernelTable& kernels)
        : RowStage({input.size().height, width}, round_up(width, kCacheLine), kGatherRows),
          input_(input),
          kernels_(kernels),
          table_(resize_table(Axis::rows, input.size().width, width, filter, kernels)) {
        input.reserve(kGatherRows);
    }

  private:
    void start_input(int64_t y) override { input_.start_at(y); }

    void make(int64_t begin, int64_t end) override {
        input_.make_until(end);
        const uint8_t* src[kPlanes * kGatherRows];
        uint8_t* dst[kPlanes * kGatherRows];
        int64_t num_rows = 0;
        for (int64_t y = begin; y < end; ++y) {
            for (int64_t c = 0; c < kPlanes; ++c, ++num_rows) {
                src[num_rows] = input_.row(y) + c * input_.plane_stride();
                dst[num_rows] = mutable_row(y) + c * plane_stride();
            }
        }
        if (table_->gather() == nullptr) {
            for (int64_t i = 0; i < num_rows; ++i) kernels_.resize_row_u8(src[i], table_->taps(), dst[i]);
            return;
        }
        for (; num_rows % kGatherRows != 0; ++num_rows) {
            src[num_rows] = src[num_rows - 1];
            dst[num_rows] = dst[num_rows - 1];
        }
        table_->gather()->run(src, num_rows, table_->packed(), dst);
    }

    RowStage& input_;
    const KernelTable& kernels_;
    std::shared_ptr<const ResizeTable> table_;
};

class ColumnResizeStage : public RowStage {
  public:
    ColumnResizeStage(RowStage& input, int64_t height, ResizeFilter filter, const KernelTable& kernels)
        : RowStage({height, input.size().width}, input.plane_stride(), 2),
          input_(input),
          kernels_(kernels),
          table_(resize_table(Axis::columns, input.size().height, height, filter, kernels)),
          sources_(static_cast<size_t>(table_->longest_pair())) {
        input.reserve(table_->longest_pair());
    }

  private:
    void start_input(int64_t y) override { input_.start_at(table_->pair(y / 2).first); }

    void make(int64_t begin, int64_t end) override {
        const ResizeTable::Pair pair = table_->pair(begin / 2);
        input_.make_until(pair.first + pair.count);
        for (int32_t k = 0; k < pair.count; ++k) sources_[k] = input_.row(pair.first + k);
        uint8_t* const dst[2] = {mutable_row(begin), mutable_row(end - 1)};
        kernels_.resize_columns_u8(sources_.data(), pair.weights, pair.count, kPlanes * plane_stride(), dst);
    }

    RowStage& input_;
    const KernelTable& kernels_;
    std::shared_ptr<const ResizeTable> table_;
    std::vector<const uint8_t*> sources_;
};

}  // namespace

RowStage::RowStage(const ImageSize& size, int64_t plane_stride, int64_t batch) noexcept
    : size_(size),
      plane_stride_(plane_stride),
      row_stride_(row_stride(plane_stride)),
      batch_(batch),
      capacity_(batch) {}

void RowStage::reserve(int64_t rows) noexcept {
    // A batch that is made for the last of them may go beyond it.
    capacity_ = std::max(capacity_, round_up(rows, batch_) + batch_);
}

size_t RowStage::bytes() const noexcept {
    return static_cast<size_t>(kRowPadding + capacity_ * row_stride_ + kRowPadding);
}

void RowStage::start_at(int64_t y) {
    y = y / batch_ * batch_;
    next_ = rows_.size() == 0 ? y : std::min(next_, y);
    rows_.grow(bytes());
    start_input(next_);
}

void RowStage::make_until(int64_t end) {
    while (next_ < end) {
        const int64_t begin = next_;
        next_ = std::min(begin + batch_, size_.height);
        make(begin, next_);
        if (!sink_) continue;
        for (int64_t y = begin; y < next_; ++y) sink_(y);
    }
}

std::unique_ptr<RowStage> make_source_stage(const ImageView& image, const KernelTable& kernels) {
    return std::make_unique<SourceStage>(image, kernels);
}

std::unique_ptr<RowStage> make_row_resize_stage(RowStage& input, int64_t width, ResizeFilter filter,
                                                const KernelTable& kernels) {
    return std::make_unique<RowResizeStage>(input, width, filter, kernels);
}

std::unique_ptr<RowStage> make_column_resize_stage(RowStage& input, int64_t height, ResizeFilter filter,
                                                   const KernelTable& kernels) {
    return std::make_unique<ColumnResizeStage>(input, height, filter, kernels);
}

}  // namespace pocketvlm
