// The GGUF reader: opens a file, proves its header and its tensor table against the file's bytes, and hands
// out typed metadata and views of the tensors' blocks. It does not know models: which keys and tensors must
// be there, and which types can run, is for csrc/model to say.
//
// Read: GGUF versions 2 and 3, little-endian. Narrower than the format allows, each refusal a named error:
// keys and tensor names are printable ASCII, arrays do not nest, an alignment is a power of two in 8..65536,
// there are at most 65536 keys and as many tensors, and all that precedes the tensor data fits into 32 MiB.
// These limits, and counts that are checked against the bytes left before anything is allocated for them,
// keep the cost of refusing a file under a second and under 100 MB whatever its bytes.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <iterator>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "io/mapped_file.h"
#include "quant/quant_type.h"

namespace pocketvlm {

// The values are those of the format.
enum class GgufValueType : uint32_t {
    UINT8 = 0,
    INT8 = 1,
    UINT16 = 2,
    INT16 = 3,
    UINT32 = 4,
    INT32 = 5,
    FLOAT32 = 6,
    BOOL = 7,
    STRING = 8,
    ARRAY = 9,
    UINT64 = 10,
    INT64 = 11,
    FLOAT64 = 12,
};

const char* name_of(GgufValueType type) noexcept;  // "UINT32"
size_t size_of(GgufValueType type) noexcept;       // bytes of one number; 0 for STRING and ARRAY

// One metadata pair. Values stay encoded in the map until a getter decodes them, so a vocabulary costs
// nothing.
struct GgufEntry {
    std::string_view key;
    GgufValueType type;          // ARRAY for arrays
    GgufValueType element_type;  // of an array; equal to type otherwise
    uint64_t count;              // number of elements; 1 unless an array
    const uint8_t* data;  // the first element, at any alignment; a string is a u64 length and its bytes
};

// Reads one number at p, at any alignment.
template <typename T>
T load_number(const uint8_t* p) noexcept {
    T value;
    std::memcpy(&value, p, sizeof(value));
    return value;
}

// The strings of a value, decoded one by one as the loop asks for them:
//     for (std::string_view token : file.require_strings("tokenizer.ggml.tokens"))
class GgufStrings {
  public:
    class Iterator {
      public:
        using iterator_category = std::input_iterator_tag;
        using value_type = std::string_view;
        using difference_type = ptrdiff_t;
        using pointer = const std::string_view*;
        using reference = std::string_view;

        Iterator(const uint8_t* next, uint64_t left) noexcept : next_(next), left_(left) {}
        std::string_view operator*() const noexcept;
        Iterator& operator++() noexcept;
        bool operator==(const Iterator& other) const noexcept { return left_ == other.left_; }
        bool operator!=(const Iterator& other) const noexcept { return left_ != other.left_; }

      private:
        const uint8_t* next_;
        uint64_t left_;
    };

    GgufStrings(const uint8_t* data, uint64_t count) noexcept : data_(data), count_(count) {}
    uint64_t size() const noexcept { return count_; }
    Iterator begin() const noexcept { return {data_, count_}; }
    Iterator end() const noexcept { return {nullptr, 0}; }

  private:
    const uint8_t* data_;
    uint64_t count_;
};

// A tensor proven to lie inside the file, in a known type, with no other tensor over it.
struct GgufTensor {
    std::string_view name;
    QuantType type;
    std::array<int64_t, 4> ne;  // innermost first: ne[0] is the row length; 1 behind n_dims
    int n_dims;                 // 1..4
    const uint8_t* data;        // blocks, row by row; aligned to 8 bytes at least
    size_t nbytes;

    int64_t num_rows() const noexcept { return ne[1] * ne[2] * ne[3]; }
};

// Views (keys, strings, tensors) are good for as long as the GgufFile lives, also after it is moved.
class GgufFile {
  public:
    // Throws FormatError (missing or malformed), UnsupportedError (a tensor type not known here).
    explicit GgufFile(std::string path);

    const std::string& path() const noexcept { return file_.path(); }
    uint32_t version() const noexcept { return version_; }
    const std::vector<GgufEntry>& entries() const noexcept { return entries_; }   // in file order
    const std::vector<GgufTensor>& tensors() const noexcept { return tensors_; }  // in file order

    // Metadata. find_*: nullopt when the key is missing; require_*: FormatError then. All: FormatError when
    // the value is of another type; numbers are never converted.
    const GgufEntry* find_entry(std::string_view key) const noexcept;
    std::optional<uint32_t> find_u32(std::string_view key) const;
    std::optional<float> find_f32(std::string_view key) const;
    std::optional<bool> find_bool(std::string_view key) const;
    std::optional<std::string_view> find_string(std::string_view key) const;
    std::optional<GgufStrings> find_strings(std::string_view key) const;           // ARRAY/STRING
    std::optional<std::vector<float>> find_f32_array(std::string_view key) const;  // ARRAY/FLOAT32
    uint32_t require_u32(std::string_view key) const;
    float require_f32(std::string_view key) const;
    bool require_bool(std::string_view key) const;
    std::string_view require_string(std::string_view key) const;
    GgufStrings require_strings(std::string_view key) const;
    std::vector<float> require_f32_array(std::string_view key) const;

    // Tensors. require: FormatError when it is missing or its dimensions differ (trailing ones do not count).
    const GgufTensor* find(std::string_view name) const noexcept;
    const GgufTensor& require(std::string_view name, const std::vector<int64_t>& ne) const;

    // Lets the system take back mapped pages, of a tensor or a part of one, once they have been packed; they
    // stay readable.
    void give_back(const uint8_t* data, size_t nbytes) const noexcept;

  private:
    // A missing key is nullptr or a FormatError; a value of another type is a FormatError.
    const GgufEntry* find_typed(std::string_view key, GgufValueType element_type, bool is_array) const;
    const GgufEntry& require_typed(std::string_view key, GgufValueType element_type, bool is_array) const;

    MappedFile file_;
    uint32_t version_ = 0;
    std::vector<GgufEntry> entries_;
    std::vector<GgufTensor> tensors_;
    std::vector<uint32_t> entries_by_key_;   // indices into entries_, sorted by key
    std::vector<uint32_t> tensors_by_name_;  // indices into tensors_, sorted by name
};

// For messages: "[576, 192]".
std::string shape_string(const GgufTensor& tensor);

// For messages: text from a file with bytes outside printable ASCII, and backslashes, written as \xNN; what
// is longer than 80 bytes is cut, with "..." and the whole length behind it.
std::string printable(std::string_view text);

}  // namespace pocketvlm
