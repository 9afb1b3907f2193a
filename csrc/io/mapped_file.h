// A file mapped read-only into memory. It knows nothing of what the bytes mean.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace pocketvlm {

// Owns the map; views into it are good for as long as the object lives, also after a move.
//
// The size is taken when the file is opened. A file that somebody shortens afterwards is out of scope:
// reading a page behind its new end kills the process (SIGBUS), as with every mapped file. Exports are
// replaced by rename, which leaves the old file whole for those who have it open.
class MappedFile {
  public:
    // Throws FormatError (path, reason) when the file is missing, not readable or not a regular file, and
    // OutOfBudgetError when no room is left to map it. An empty file is no error here: data() is then nullptr
    // and size() 0.
    explicit MappedFile(std::string path);
    ~MappedFile();
    MappedFile(MappedFile&& other) noexcept;
    MappedFile& operator=(MappedFile&& other) noexcept;
    MappedFile(const MappedFile&) = delete;
    MappedFile& operator=(const MappedFile&) = delete;

    const uint8_t* data() const noexcept { return data_; }  // [size()], page-aligned
    size_t size() const noexcept { return size_; }
    const std::string& path() const noexcept { return path_; }

    // Lets the system take back the memory behind the whole pages inside [offset, offset + length). The bytes
    // stay readable: a later access fetches them from the file again.
    void give_back(size_t offset, size_t length) const noexcept;

  private:
    std::string path_;
    const uint8_t* data_ = nullptr;
    size_t size_ = 0;
};

}  // namespace pocketvlm
