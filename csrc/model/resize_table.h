// What the resize kernels need for one side of an image: filter weights in Pillow's fixed point, laid out for
// a row of the kernel table. Making them takes as long as a resize, so they are kept.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "base/aligned_buffer.h"
#include "kernels/kernel_table.h"

namespace pocketvlm {

// Numbered as in PIL.Image.Resampling and in the `resample` of preprocessor_config.json.
enum class ResizeFilter : int { lanczos = 1, bilinear = 2, bicubic = 3 };

// Throws UnsupportedError for the filters of PIL that are not here.
ResizeFilter resize_filter_from_pil(int resample);

enum class Axis { rows, columns };  // rows: along each row, which changes the width

class ResizeTable {
  public:
    ResizeTable(Axis axis, int64_t source_size, int64_t size, ResizeFilter filter,
                const KernelTable& kernels);

    ResizeTaps taps() const noexcept {
        return {source_size_, size_, stride_, first_.data(), count_.data(), weights_.data()};
    }

    // Axis::rows: the kernel that is to be used with `packed`, or null where the taps fit none.
    const ResizeGather* gather() const noexcept { return gather_; }
    const std::byte* packed() const noexcept { return packed_.data(); }

    // Axis::columns: outputs 2 i and 2 i + 1 (the last one twice where there is one more) and the source rows
    // that either of them weighs.
    struct Pair {
        int32_t first, count;
        const int32_t* weights;  // [2, count]
    };
    Pair pair(int64_t i) const noexcept;
    // The most source rows of a pair.
    int64_t longest_pair() const noexcept { return pair_stride_; }

    size_t bytes() const noexcept;

  private:
    void make_taps(ResizeFilter filter);
    void make_pairs();
    void pack(const KernelTable& kernels);

    int32_t source_size_;
    int32_t size_;
    int32_t stride_ = 0;
    std::vector<int32_t> first_;
    std::vector<int32_t> count_;
    std::vector<int32_t> weights_;
    const ResizeGather* gather_ = nullptr;
    AlignedBuffer<std::byte> packed_;
    int32_t pair_stride_ = 0;
    std::vector<int32_t> pair_weights_;  // [pairs, 2 * pair_stride_]
};

// The table for these arguments, made now or kept from an earlier call. Any thread.
std::shared_ptr<const ResizeTable> resize_table(Axis axis, int64_t source_size, int64_t size,
                                                ResizeFilter filter, const KernelTable& kernels);

}  // namespace pocketvlm
