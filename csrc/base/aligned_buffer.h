// Uninitialised memory on a cache-line boundary: room for packed weights, activations and scratch.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <memory>
#include <new>

namespace pocketvlm {

constexpr size_t kCacheLine = 64;

// `size` elements, not initialised; the allocation is rounded up so that whole vectors may be read at its
// end.
template <typename T>
class AlignedBuffer {
  public:
    AlignedBuffer() = default;
    explicit AlignedBuffer(size_t size) : size_(size) {
        if (size == 0) return;
        if (size > (~size_t{0} - 2 * kCacheLine) / sizeof(T)) throw std::bad_alloc();
        const size_t bytes = (size * sizeof(T) + 2 * kCacheLine - 1) / kCacheLine * kCacheLine;
        data_.reset(static_cast<T*>(std::aligned_alloc(kCacheLine, bytes)));
        if (data_ == nullptr) throw std::bad_alloc();
    }

    T* data() noexcept { return data_.get(); }
    const T* data() const noexcept { return data_.get(); }
    size_t size() const noexcept { return size_; }
    size_t bytes() const noexcept { return size_ * sizeof(T); }

    // Makes room for at least `size` elements; what was there is lost when it has to grow.
    void grow(size_t size) {
        if (size > size_) *this = AlignedBuffer(size);
    }

  private:
    struct Free {
        void operator()(T* pointer) const noexcept { std::free(pointer); }
    };
    std::unique_ptr<T, Free> data_;
    size_t size_ = 0;
};

}  // namespace pocketvlm
