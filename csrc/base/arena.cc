#include "base/arena.h"

#include <sys/mman.h>

#include <cstdint>
#include <new>

#include "base/aligned_buffer.h"

namespace pocketvlm {
namespace {

constexpr size_t kPage = size_t{2} << 20;
constexpr size_t kChunk = size_t{64} << 20;  // of addresses: pages that nobody writes to take no memory

#if defined(__SANITIZE_ADDRESS__)
constexpr bool kShareChunks = false;  // so that a read behind a piece is seen
#else
constexpr bool kShareChunks = true;
#endif

constexpr size_t round_up(size_t bytes, size_t to) { return (bytes + to - 1) / to * to; }

// `bytes`, a multiple of kPage, that begin with a large page.
std::shared_ptr<std::byte> map_pages(size_t bytes) {
    void* mapped = ::mmap(nullptr, bytes + kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapped == MAP_FAILED) throw std::bad_alloc();
    auto* start = static_cast<std::byte*>(mapped);
    const size_t before =
        round_up(reinterpret_cast<uintptr_t>(start), kPage) - reinterpret_cast<uintptr_t>(start);
    if (before > 0) ::munmap(start, before);
    if (before < kPage) ::munmap(start + before + bytes, kPage - before);
    start += before;
#if defined(MADV_HUGEPAGE)
    ::madvise(start, bytes, MADV_HUGEPAGE);  // where it is refused, small pages do as well, more slowly
#endif
    return {start, [bytes](std::byte* pages) { ::munmap(pages, bytes); }};
}

}  // namespace

std::shared_ptr<std::byte> Arena::allocate(size_t bytes) {
    if (bytes > ~size_t{0} - 4 * kPage) throw std::bad_alloc();
    const size_t needed = round_up(bytes, kCacheLine) + kCacheLine;
    if (!kShareChunks) {
        auto piece = std::make_shared<AlignedBuffer<std::byte>>(bytes);
        return {piece, piece->data()};
    }
    if (needed > left_) {
        size_ = left_ = round_up(needed < kChunk ? kChunk : needed, kPage);
        chunk_ = map_pages(size_);
    }
    std::shared_ptr<std::byte> piece{chunk_, chunk_.get() + (size_ - left_)};
    left_ -= needed;
    return piece;
}

}  // namespace pocketvlm
