// The POSIX side of MappedFile. A port to Windows replaces this file (CreateFileMapping, MapViewOfFile).
#include "io/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>
#include <utility>

#include "base/check.h"

namespace pocketvlm {
namespace {

class FileDescriptor {
  public:
    explicit FileDescriptor(int fd) noexcept : fd_(fd) {}
    ~FileDescriptor() {
        if (fd_ >= 0) ::close(fd_);
    }
    FileDescriptor(const FileDescriptor&) = delete;
    FileDescriptor& operator=(const FileDescriptor&) = delete;
    int get() const noexcept { return fd_; }

  private:
    int fd_;
};

// strerror() may share its buffer between threads; this may not.
std::string reason(int error) { return std::generic_category().message(error); }

}  // namespace

MappedFile::MappedFile(std::string path) : path_(std::move(path)) {
    if (path_.find('\0') != std::string::npos) {
        // open() would read the path up to there only, and so another file than the one that was named.
        throw InputError(concat(path_.c_str(), ": a zero byte follows in the path, expected none"));
    }
    // O_NONBLOCK: a FIFO without a writer is refused below instead of waited for.
    const FileDescriptor fd(::open(path_.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
    if (fd.get() < 0) throw FormatError(concat(path_, ": cannot be opened: ", reason(errno)));
    struct stat status{};
    if (::fstat(fd.get(), &status) != 0)
        throw FormatError(concat(path_, ": cannot be read: ", reason(errno)));
    if (!S_ISREG(status.st_mode)) {
        const char* found = S_ISDIR(status.st_mode) ? "a directory" : "not a regular file";
        throw FormatError(concat(path_, ": ", found, ", expected a file"));
    }
    size_ = static_cast<size_t>(status.st_size);
    if (size_ == 0) return;  // mmap refuses a length of 0
    void* const address = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, fd.get(), 0);
    if (address == MAP_FAILED) {
        const int error = errno;
        const std::string message = concat(path_, ": ", size_, " bytes cannot be mapped: ", reason(error));
        if (error == ENOMEM) throw OutOfBudgetError(message);
        throw FormatError(message);
    }
    data_ = static_cast<const uint8_t*>(address);
}

MappedFile::~MappedFile() {
    if (data_ != nullptr) ::munmap(const_cast<uint8_t*>(data_), size_);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)),
      data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
    std::swap(path_, other.path_);
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
}

void MappedFile::give_back(size_t offset, size_t length) const noexcept {
    if (data_ == nullptr || offset >= size_) return;
    const size_t page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
    const size_t end = length < size_ - offset ? offset + length : size_;
    const size_t first_page = (offset + page - 1) / page * page;
    const size_t last_page = end / page * page;
    if (first_page >= last_page) return;
    // Advice only: a system that does not take it costs memory, not correctness.
    ::madvise(const_cast<uint8_t*>(data_) + first_page, last_page - first_page, MADV_DONTNEED);
}

}  // namespace pocketvlm
