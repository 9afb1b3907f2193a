// Reads the numbers and strings of a GGUF header one after the other, never behind its end. What they mean,
// and whether they make sense together, is for gguf.cc to say.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/check.h"
#include "io/gguf.h"
#include "io/mapped_file.h"

namespace pocketvlm {

// A position in the header, and the name of what stands there, for messages.
class HeaderReader {
  public:
    static constexpr size_t kMaxHeaderBytes = size_t{32} << 20;

    explicit HeaderReader(const MappedFile& file) noexcept
        : file_(file), end_(std::min(file.size(), kMaxHeaderBytes)) {}

    // Names what is read next: "key 3" by its number until its name is known, then "key llama.block_count".
    void set_place(const char* kind, uint64_t number) { place_ = concat(kind, " ", number); }
    void set_place(const char* kind, std::string_view name) { place_ = concat(kind, " ", printable(name)); }

    size_t position() const noexcept { return position_; }
    size_t bytes_left() const noexcept { return end_ - position_; }
    const uint8_t* here() const noexcept { return file_.data() + position_; }

    [[noreturn]] void fail(std::string_view problem) const {
        throw FormatError(concat(file_.path(), ": ", place_, ": ", problem));
    }

    [[noreturn]] void fail_unsupported(std::string_view problem) const {
        throw UnsupportedError(concat(file_.path(), ": ", place_, ": ", problem));
    }

    // Moves over `count` items of `item_bytes` each.
    void skip(uint64_t count, size_t item_bytes, const char* what) {
        if (count > bytes_left() / item_bytes) {
            const char* limit = end_ < file_.size() ? " of the 32 MiB that a header may have" : "";
            fail(concat(bytes_left(), " bytes left", limit, ", ", what, " needs ", count,
                        item_bytes == 1 ? "" : concat(" x ", item_bytes)));
        }
        position_ += static_cast<size_t>(count) * item_bytes;
    }

    template <typename T>
    T number(const char* what) {
        skip(1, sizeof(T), what);
        return load_number<T>(here() - sizeof(T));
    }

    std::string_view bytes(uint64_t length, const char* what) {
        skip(length, 1, what);
        return {reinterpret_cast<const char*>(here() - length), static_cast<size_t>(length)};
    }

    std::string_view string(const char* what) { return bytes(number<uint64_t>(what), what); }

    // The name of a key or a tensor.
    std::string_view name(size_t max_bytes) {
        const auto length = number<uint64_t>("length of its name");
        if (length < 1 || length > max_bytes) {
            fail(concat("a name of ", length, " bytes, expected 1 to ", max_bytes));
        }
        const std::string_view name = bytes(length, "its name");
        const auto is_printable = [](char c) { return c >= 0x20 && c < 0x7f; };
        if (!std::all_of(name.begin(), name.end(), is_printable)) {
            fail(concat("name ", printable(name), ", expected printable ASCII"));
        }
        return name;
    }

    // How many items of at least min_item_bytes each follow; more than could fit are refused here.
    uint64_t count(const char* what, uint64_t max_count, size_t min_item_bytes) {
        const uint64_t count = number<uint64_t>(what);
        const uint64_t room = bytes_left() / min_item_bytes;
        if (count > std::min(max_count, room)) {
            fail(concat(what, " ", count, ", expected at most ", std::min(max_count, room),
                        room < max_count ? concat(" in the ", bytes_left(), " bytes left") : ""));
        }
        return count;
    }

  private:
    const MappedFile& file_;
    const size_t end_;
    size_t position_ = 0;
    std::string place_ = "header";
};

}  // namespace pocketvlm
