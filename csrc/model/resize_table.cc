#include "model/resize_table.h"

#include <algorithm>
#include <cmath>
#include <list>
#include <mutex>
#include <tuple>
#include <utility>

#include "base/check.h"

namespace pocketvlm {
namespace {

constexpr double kPi = 3.14159265358979323846;

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

// The tables used last. What a camera or a video needs stays; a table larger than the whole of it is not
// kept.
class TableCache {
  public:
    using Key = std::tuple<Axis, int64_t, int64_t, ResizeFilter, const KernelTable*>;
    using Table = std::shared_ptr<const ResizeTable>;

    Table find(const Key& key) {
        const std::lock_guard<std::mutex> lock(mutex_);
        const auto entry = std::find_if(entries_.begin(), entries_.end(),
                                        [&](const Entry& candidate) { return candidate.first == key; });
        if (entry == entries_.end()) return nullptr;
        entries_.splice(entries_.begin(), entries_, entry);
        return entry->second;
    }

    void insert(const Key& key, const Table& table) {
        const std::lock_guard<std::mutex> lock(mutex_);
        entries_.emplace_front(key, table);
        bytes_ += table->bytes();
        while (bytes_ > kMaxBytes) {
            bytes_ -= entries_.back().second->bytes();
            entries_.pop_back();
        }
    }

  private:
    using Entry = std::pair<Key, Table>;
    static constexpr size_t kMaxBytes = size_t{4} << 20;

    std::mutex mutex_;
    std::list<Entry> entries_;
    size_t bytes_ = 0;
};

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

ResizeTable::ResizeTable(Axis axis, int64_t source_size, int64_t size, ResizeFilter filter,
                         const KernelTable& kernels)
    : source_size_(static_cast<int32_t>(source_size)), size_(static_cast<int32_t>(size)) {
    make_taps(filter);
    if (axis == Axis::columns) {
        make_pairs();
    } else {
        pack(kernels);
    }
}

void ResizeTable::make_taps(ResizeFilter filter) {
    const double scale = static_cast<double>(source_size_) / static_cast<double>(size_);
    const double filter_scale =
        std::max(scale, 1.0);  // shrinking widens the filter, growing does not narrow it
    const double inverse = 1.0 / filter_scale;
    const double support = filter_radius(filter) * filter_scale;
    const auto most_taps = static_cast<int64_t>(std::ceil(support)) * 2 + 1;

    stride_ = static_cast<int32_t>(std::min<int64_t>(most_taps, source_size_));
    first_.reserve(static_cast<size_t>(size_));
    count_.reserve(static_cast<size_t>(size_));
    weights_.resize(static_cast<size_t>(size_) * static_cast<size_t>(stride_));

    std::vector<double> exact(static_cast<size_t>(stride_));
    for (int64_t i = 0; i < size_; ++i) {
        const double center = (static_cast<double>(i) + 0.5) * scale;
        const auto first = std::max<int64_t>(static_cast<int64_t>(center - support + 0.5), 0);
        const auto end = std::min<int64_t>(static_cast<int64_t>(center + support + 0.5), source_size_);
        const int64_t count = end - first;

        double sum = 0.0;
        for (int64_t k = 0; k < count; ++k) {
            exact[k] = filter_weight(filter, (static_cast<double>(k + first) - center + 0.5) * inverse);
            sum += exact[k];
        }
        for (int64_t k = 0; k < count; ++k) {
            const double fixed = (sum != 0.0 ? exact[k] / sum : exact[k]) * (1 << kResizeFractionBits);
            weights_[i * stride_ + k] = static_cast<int32_t>(fixed < 0.0 ? fixed - 0.5 : fixed + 0.5);
        }
        first_.push_back(static_cast<int32_t>(first));
        count_.push_back(static_cast<int32_t>(count));
    }
}

ResizeTable::Pair ResizeTable::pair(int64_t i) const noexcept {
    const int64_t a = 2 * i, b = std::min<int64_t>(a + 1, size_ - 1);
    return {first_[a], std::max(first_[a] + count_[a], first_[b] + count_[b]) - first_[a],
            pair_weights_.data() + i * 2 * pair_stride_};
}

void ResizeTable::make_pairs() {
    const int64_t num_pairs = (int64_t{size_} + 1) / 2;
    for (int64_t i = 0; i < num_pairs; ++i) pair_stride_ = std::max(pair_stride_, pair(i).count);
    pair_weights_.resize(static_cast<size_t>(num_pairs) * 2 * static_cast<size_t>(pair_stride_));
    for (int64_t i = 0; i < num_pairs; ++i) {
        const Pair rows = pair(i);
        for (int64_t o = 0; o < 2; ++o) {
            const int64_t y = std::min<int64_t>(2 * i + o, size_ - 1);
            std::copy_n(
                weights_.begin() + y * stride_, count_[y],
                pair_weights_.begin() + (2 * i * pair_stride_ + o * rows.count) + first_[y] - rows.first);
        }
    }
}

void ResizeTable::pack(const KernelTable& kernels) {
    for (const ResizeGather* gather : kernels.resize_gather) {
        const int64_t bytes = gather->packed_bytes(taps());
        if (bytes == 0) continue;
        gather_ = gather;
        packed_ = AlignedBuffer<std::byte>(static_cast<size_t>(bytes));
        gather->pack(taps(), packed_.data());
        return;
    }
}

size_t ResizeTable::bytes() const noexcept {
    const size_t numbers = first_.size() + count_.size() + weights_.size() + pair_weights_.size();
    return sizeof(*this) + numbers * sizeof(int32_t) + packed_.size();
}

std::shared_ptr<const ResizeTable> resize_table(Axis axis, int64_t source_size, int64_t size,
                                                ResizeFilter filter, const KernelTable& kernels) {
    static TableCache cache;
    const TableCache::Key key{axis, source_size, size, filter, &kernels};
    if (TableCache::Table table = cache.find(key)) return table;
    auto table = std::make_shared<const ResizeTable>(axis, source_size, size, filter, kernels);
    cache.insert(key, table);
    return table;
}

}  // namespace pocketvlm
