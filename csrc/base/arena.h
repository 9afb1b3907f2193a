// Memory for what is made once and read all the time, such as packed weights, in large pages (2 MB) where the
// system gives them when asked: a processor that streams gigabytes stops for the address of every small page,
// twice over in a virtual machine. Matrices are smaller than such a page, so they share chunks.
#pragma once

#include <cstddef>
#include <memory>

namespace pocketvlm {

class Arena {
  public:
    // Uninitialised, on a cache-line boundary; as large as asked and a cache line. A chunk lives until the
    // last piece of it is gone, whether or not the arena does. Throws std::bad_alloc.
    std::shared_ptr<std::byte> allocate(size_t bytes);

  private:
    std::shared_ptr<std::byte> chunk_;
    size_t left_ = 0;  // bytes at the end of chunk_
    size_t size_ = 0;
};

}  // namespace pocketvlm
