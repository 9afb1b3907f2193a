// Memory between two pages that nobody may touch: a kernel that goes too far crashes at once.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <new>

// Which end of the memory lies at the byte where a guard page ends or begins.
enum class Edge { front, back };

// Bytes that may be touched before and after the elements.
struct Padding {
    int64_t before = 0, after = 0;
};

// `size` elements, in the middle of bytes 0xa5.
template <typename T>
class Guarded {
  public:
    Guarded(int64_t size, Edge edge, Padding padding = {}) : size_(size) {
        const int64_t page = sysconf(_SC_PAGESIZE);
        const int64_t bytes = padding.before + size * static_cast<int64_t>(sizeof(T)) + padding.after;
        const int64_t usable = (bytes + page - 1) / page * page;
        mapped_bytes_ = static_cast<size_t>(usable + 2 * page);
        mapped_ = mmap(nullptr, mapped_bytes_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (mapped_ == MAP_FAILED) throw std::bad_alloc();
        std::byte* begin = static_cast<std::byte*>(mapped_) + page;
        if (usable > 0 && mprotect(begin, static_cast<size_t>(usable), PROT_READ | PROT_WRITE) != 0) {
            throw std::bad_alloc();
        }
        std::memset(begin, 0xa5, static_cast<size_t>(usable));
        const int64_t offset = edge == Edge::front ? 0 : usable - bytes;
        data_ = reinterpret_cast<T*>(begin + offset + padding.before);
    }
    ~Guarded() { munmap(mapped_, mapped_bytes_); }
    Guarded(const Guarded&) = delete;
    Guarded& operator=(const Guarded&) = delete;

    T* data() noexcept { return data_; }
    const T* data() const noexcept { return data_; }
    int64_t size() const noexcept { return size_; }
    T* begin() noexcept { return data_; }
    T* end() noexcept { return data_ + size_; }

  private:
    int64_t size_;
    size_t mapped_bytes_;
    void* mapped_;
    T* data_;
};
