// Parses and proves GGUF headers. Every byte that is read here may have been chosen by an attacker: each read
// is checked against the bytes left, and each count before anything is allocated or looped over for it.
#include "io/gguf.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <utility>

#include "base/check.h"
#include "io/header_reader.h"

#if defined(__BYTE_ORDER__)
static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
              "tensors are used in place, as little-endian numbers");
#endif

namespace pocketvlm {
namespace {

constexpr uint64_t kMaxEntries = 65536;
constexpr uint64_t kMaxTensors = 65536;
constexpr size_t kMaxKeyBytes = 65535;
constexpr size_t kMaxTensorNameBytes = 64;
constexpr uint32_t kDefaultAlignment = 32;
constexpr uint32_t kMaxAlignment = 65536;
// key length, key, value type, value
constexpr size_t kMinEntryBytes = 8 + 1 + 4 + 1;
// name length, name, number of dimensions, one of them, type, offset
constexpr size_t kMinTensorInfoBytes = 8 + 1 + 4 + 8 + 4 + 8;

constexpr const char* kValueTypeNames[] = {"UINT8",  "INT8",    "UINT16", "INT16",  "UINT32",
                                           "INT32",  "FLOAT32", "BOOL",   "STRING", "ARRAY",
                                           "UINT64", "INT64",   "FLOAT64"};
constexpr size_t kNumValueTypes = std::size(kValueTypeNames);

std::string type_string(GgufValueType element_type, bool is_array) {
    return concat(is_array ? "ARRAY/" : "", name_of(element_type));
}

std::string dims_string(const int64_t* ne, size_t n_dims) {
    std::string list;
    for (size_t i = 0; i < n_dims; ++i) list += concat(i == 0 ? "" : ", ", ne[i]);
    return concat("[", list, "]");
}

void check_bools(HeaderReader& in, const uint8_t* values, uint64_t count) {
    for (uint64_t i = 0; i < count; ++i) {
        if (values[i] > 1) in.fail(concat("BOOL of value ", int{values[i]}, ", expected 0 or 1"));
    }
}

GgufValueType read_value_type(HeaderReader& in, const char* what) {
    const auto id = in.number<uint32_t>(what);
    if (id >= kNumValueTypes) in.fail(concat(what, " ", id, ", expected 0 to ", kNumValueTypes - 1));
    return static_cast<GgufValueType>(id);
}

GgufEntry read_entry(HeaderReader& in) {
    GgufEntry entry{};
    entry.key = in.name(kMaxKeyBytes);
    in.set_place("key", entry.key);
    entry.type = read_value_type(in, "value type");
    entry.element_type = entry.type;
    entry.count = 1;
    if (entry.type == GgufValueType::ARRAY) {
        entry.element_type = read_value_type(in, "element type");
        if (entry.element_type == GgufValueType::ARRAY)
            in.fail("an array of arrays, expected numbers or strings");
        entry.count = in.number<uint64_t>("array length");
    }
    entry.data = in.here();
    if (entry.element_type == GgufValueType::STRING) {
        // Ends at the latest when the bytes do: each string takes eight at least.
        for (uint64_t i = 0; i < entry.count; ++i) in.string("a string");
    } else {
        in.skip(entry.count, size_of(entry.element_type), name_of(entry.element_type));
    }
    if (entry.element_type == GgufValueType::BOOL) check_bools(in, entry.data, entry.count);
    return entry;
}

// Reads one tensor info; its data pointer stays empty. Returns the tensor and its offset in the data section.
std::pair<GgufTensor, uint64_t> read_tensor_info(HeaderReader& in) {
    constexpr uint64_t kMax = std::numeric_limits<int64_t>::max();
    GgufTensor tensor{};
    tensor.name = in.name(kMaxTensorNameBytes);
    in.set_place("tensor", tensor.name);

    const auto n_dims = in.number<uint32_t>("number of dimensions");
    if (n_dims < 1 || n_dims > tensor.ne.size()) in.fail(concat(n_dims, " dimensions, expected 1 to 4"));
    tensor.n_dims = static_cast<int>(n_dims);
    tensor.ne.fill(1);
    uint64_t num_elements = 1;
    for (uint32_t i = 0; i < n_dims; ++i) {
        const auto n = in.number<uint64_t>("dimensions");
        if (n == 0) in.fail(concat("dimension ", i, " is 0, expected at least 1"));
        if (n > kMax / num_elements) {
            in.fail(concat("dimension ", i, " is ", n, ", expected at most 2^63 - 1 elements in all"));
        }
        num_elements *= n;
        tensor.ne[i] = static_cast<int64_t>(n);
    }

    const auto type_id = in.number<uint32_t>("type");
    const QuantTraits* const type = find_traits(type_id);
    if (type == nullptr) {
        in.fail_unsupported(concat("type ", type_id, ", expected one of ", known_quant_types()));
    }
    tensor.type = type->type;
    if (tensor.ne[0] % type->block_size != 0) {
        in.fail(
            concat("rows of ", tensor.ne[0], ", ", type->name, " needs a multiple of ", type->block_size));
    }
    const uint64_t num_blocks = num_elements / static_cast<uint64_t>(type->block_size);
    if (num_blocks > std::numeric_limits<size_t>::max() / static_cast<uint64_t>(type->type_size)) {
        in.fail(concat(type->name, " ", shape_string(tensor), ", expected a size that fits into memory"));
    }
    tensor.nbytes = static_cast<size_t>(num_blocks) * static_cast<size_t>(type->type_size);
    return {tensor, in.number<uint64_t>("offset")};
}

// The indices of `items` in the order of their names. Sorted, not hashed: names are chosen by whoever wrote
// the file, and no choice of theirs makes this slow.
template <typename T>
std::vector<uint32_t> sorted_by_name(const std::vector<T>& items, std::string_view T::* name) {
    std::vector<uint32_t> order(items.size());
    std::iota(order.begin(), order.end(), uint32_t{0});
    std::sort(order.begin(), order.end(),
              [&](uint32_t a, uint32_t b) { return items[a].*name < items[b].*name; });
    return order;
}

template <typename T>
void check_unique(HeaderReader& in, const char* kind, const std::vector<T>& items, std::string_view T::* name,
                  const std::vector<uint32_t>& order) {
    for (size_t i = 1; i < order.size(); ++i) {
        if (items[order[i]].*name == items[order[i - 1]].*name) {
            in.set_place(kind, items[order[i]].*name);
            in.fail("appears twice, expected once");
        }
    }
}

template <typename T>
const T* find_by_name(const std::vector<T>& items, std::string_view T::* name,
                      const std::vector<uint32_t>& order, std::string_view wanted) noexcept {
    const auto it = std::lower_bound(order.begin(), order.end(), wanted,
                                     [&](uint32_t i, std::string_view key) { return items[i].*name < key; });
    return it != order.end() && items[*it].*name == wanted ? &items[*it] : nullptr;
}

template <typename T>
T decode_number(const GgufEntry& entry) noexcept {
    return load_number<T>(entry.data);
}

bool decode_bool(const GgufEntry& entry) noexcept { return *entry.data != 0; }

GgufStrings decode_strings(const GgufEntry& entry) noexcept { return {entry.data, entry.count}; }

std::string_view decode_string(const GgufEntry& entry) noexcept { return *decode_strings(entry).begin(); }

std::vector<float> decode_f32_array(const GgufEntry& entry) {
    std::vector<float> values(static_cast<size_t>(entry.count));
    if (!values.empty()) std::memcpy(values.data(), entry.data, values.size() * sizeof(float));
    return values;
}

template <typename T>
std::optional<T> decode_if(const GgufEntry* entry, T (*decode)(const GgufEntry&)) {
    if (entry == nullptr) return std::nullopt;
    return decode(*entry);
}

// Points each tensor at its bytes. The data section begins at the first multiple of the alignment behind the
// header; a file without tensors need not reach it.
void place_tensors(HeaderReader& in, const MappedFile& file, uint32_t alignment,
                   const std::vector<uint64_t>& offsets, std::vector<GgufTensor>& tensors) {
    const size_t data_start = (in.position() + alignment - 1) / alignment * alignment;
    const size_t data_bytes = file.size() - std::min(data_start, file.size());
    for (size_t i = 0; i < tensors.size(); ++i) {
        GgufTensor& tensor = tensors[i];
        in.set_place("tensor", tensor.name);
        if (offsets[i] % alignment != 0) {
            in.fail(concat("offset ", offsets[i], ", expected a multiple of ", alignment));
        }
        if (offsets[i] > data_bytes) {
            in.fail(concat("offset ", offsets[i], ", expected at most ", data_bytes,
                           ", the bytes of all tensors"));
        }
        const size_t offset = static_cast<size_t>(offsets[i]);
        if (tensor.nbytes > data_bytes - offset) {
            in.fail(concat(data_bytes - offset, " bytes, ", traits(tensor.type).name, " ",
                           shape_string(tensor), " needs ", tensor.nbytes));
        }
        tensor.data = file.data() + data_start + offset;
    }
}

void check_overlaps(HeaderReader& in, const std::vector<GgufTensor>& tensors) {
    std::vector<const GgufTensor*> by_address;
    for (const GgufTensor& tensor : tensors) by_address.push_back(&tensor);
    std::sort(by_address.begin(), by_address.end(),
              [](const GgufTensor* a, const GgufTensor* b) { return a->data < b->data; });
    for (size_t i = 1; i < by_address.size(); ++i) {
        const GgufTensor& before = *by_address[i - 1];
        if (by_address[i]->data < before.data + before.nbytes) {
            in.set_place("tensor", by_address[i]->name);
            in.fail(concat("overlaps tensor ", before.name, ", expected bytes of its own"));
        }
    }
}

}  // namespace

const char* name_of(GgufValueType type) noexcept { return kValueTypeNames[static_cast<uint32_t>(type)]; }

size_t size_of(GgufValueType type) noexcept {
    switch (type) {
        case GgufValueType::UINT8:
        case GgufValueType::INT8:
        case GgufValueType::BOOL:
            return 1;
        case GgufValueType::UINT16:
        case GgufValueType::INT16:
            return 2;
        case GgufValueType::UINT32:
        case GgufValueType::INT32:
        case GgufValueType::FLOAT32:
            return 4;
        case GgufValueType::UINT64:
        case GgufValueType::INT64:
        case GgufValueType::FLOAT64:
            return 8;
        case GgufValueType::STRING:
        case GgufValueType::ARRAY:
            break;
    }
    return 0;
}

std::string printable(std::string_view text) {
    constexpr size_t kMaxBytes = 80;
    constexpr char kHexDigits[] = "0123456789abcdef";
    std::string out;
    for (const char c : text.substr(0, kMaxBytes)) {
        const auto byte = static_cast<unsigned char>(c);
        if (byte >= 0x20 && byte < 0x7f && c != '\\') {
            out += c;
        } else {
            out += {'\\', 'x', kHexDigits[byte >> 4], kHexDigits[byte & 15]};
        }
    }
    if (text.size() > kMaxBytes) out += concat("... (", text.size(), " bytes)");
    return out;
}

std::string shape_string(const GgufTensor& tensor) {
    return dims_string(tensor.ne.data(), static_cast<size_t>(tensor.n_dims));
}

std::string_view GgufStrings::Iterator::operator*() const noexcept {
    const auto length = load_number<uint64_t>(next_);
    return {reinterpret_cast<const char*>(next_ + sizeof(length)), static_cast<size_t>(length)};
}

GgufStrings::Iterator& GgufStrings::Iterator::operator++() noexcept {
    next_ += sizeof(uint64_t) + load_number<uint64_t>(next_);
    --left_;
    return *this;
}

GgufFile::GgufFile(std::string path) : file_(std::move(path)) {
    HeaderReader in(file_);
    const std::string_view magic = in.bytes(4, "the magic");
    if (magic != "GGUF") in.fail(concat("magic \"", printable(magic), "\", expected \"GGUF\""));
    version_ = in.number<uint32_t>("version");
    if (version_ != 0 && (version_ & 0xffff) == 0) in.fail("big-endian numbers, expected little-endian");
    if (version_ != 2 && version_ != 3) in.fail(concat("version ", version_, ", expected 2 or 3"));
    const uint64_t num_tensors = in.count("tensor count", kMaxTensors, kMinTensorInfoBytes);
    const uint64_t num_entries = in.count("key count", kMaxEntries, kMinEntryBytes);

    for (uint64_t i = 0; i < num_entries; ++i) {
        in.set_place("key", i);
        entries_.push_back(read_entry(in));
    }
    entries_by_key_ = sorted_by_name(entries_, &GgufEntry::key);
    check_unique(in, "key", entries_, &GgufEntry::key, entries_by_key_);
    const uint32_t alignment = find_u32("general.alignment").value_or(kDefaultAlignment);
    if (alignment < 8 || alignment > kMaxAlignment || (alignment & (alignment - 1)) != 0) {
        in.set_place("key", "general.alignment");
        in.fail(concat(alignment, ", expected a power of two in 8..", kMaxAlignment));
    }

    std::vector<uint64_t> offsets;
    for (uint64_t i = 0; i < num_tensors; ++i) {
        in.set_place("tensor", i);
        const auto [tensor, offset] = read_tensor_info(in);
        tensors_.push_back(tensor);
        offsets.push_back(offset);
    }
    tensors_by_name_ = sorted_by_name(tensors_, &GgufTensor::name);
    check_unique(in, "tensor", tensors_, &GgufTensor::name, tensors_by_name_);

    place_tensors(in, file_, alignment, offsets, tensors_);
    check_overlaps(in, tensors_);
}

const GgufEntry* GgufFile::find_entry(std::string_view key) const noexcept {
    return find_by_name(entries_, &GgufEntry::key, entries_by_key_, key);
}

const GgufEntry* GgufFile::find_typed(std::string_view key, GgufValueType element_type, bool is_array) const {
    const GgufEntry* const entry = find_entry(key);
    if (entry == nullptr) return nullptr;
    const bool found_array = entry->type == GgufValueType::ARRAY;
    if (entry->element_type != element_type || found_array != is_array) {
        throw FormatError(concat(path(), ": key ", key, ": ", type_string(entry->element_type, found_array),
                                 ", expected ", type_string(element_type, is_array)));
    }
    return entry;
}

const GgufEntry& GgufFile::require_typed(std::string_view key, GgufValueType element_type,
                                         bool is_array) const {
    const GgufEntry* const entry = find_typed(key, element_type, is_array);
    if (entry == nullptr) {
        throw FormatError(
            concat(path(), ": key ", key, ": missing, expected ", type_string(element_type, is_array)));
    }
    return *entry;
}

std::optional<uint32_t> GgufFile::find_u32(std::string_view key) const {
    return decode_if(find_typed(key, GgufValueType::UINT32, false), decode_number<uint32_t>);
}

std::optional<float> GgufFile::find_f32(std::string_view key) const {
    return decode_if(find_typed(key, GgufValueType::FLOAT32, false), decode_number<float>);
}

std::optional<bool> GgufFile::find_bool(std::string_view key) const {
    return decode_if(find_typed(key, GgufValueType::BOOL, false), decode_bool);
}

std::optional<std::string_view> GgufFile::find_string(std::string_view key) const {
    return decode_if(find_typed(key, GgufValueType::STRING, false), decode_string);
}

std::optional<GgufStrings> GgufFile::find_strings(std::string_view key) const {
    return decode_if(find_typed(key, GgufValueType::STRING, true), decode_strings);
}

std::optional<std::vector<float>> GgufFile::find_f32_array(std::string_view key) const {
    return decode_if(find_typed(key, GgufValueType::FLOAT32, true), decode_f32_array);
}

uint32_t GgufFile::require_u32(std::string_view key) const {
    return decode_number<uint32_t>(require_typed(key, GgufValueType::UINT32, false));
}

float GgufFile::require_f32(std::string_view key) const {
    return decode_number<float>(require_typed(key, GgufValueType::FLOAT32, false));
}

bool GgufFile::require_bool(std::string_view key) const {
    return decode_bool(require_typed(key, GgufValueType::BOOL, false));
}

std::string_view GgufFile::require_string(std::string_view key) const {
    return decode_string(require_typed(key, GgufValueType::STRING, false));
}

GgufStrings GgufFile::require_strings(std::string_view key) const {
    return decode_strings(require_typed(key, GgufValueType::STRING, true));
}

std::vector<float> GgufFile::require_f32_array(std::string_view key) const {
    return decode_f32_array(require_typed(key, GgufValueType::FLOAT32, true));
}

const GgufTensor* GgufFile::find(std::string_view name) const noexcept {
    return find_by_name(tensors_, &GgufTensor::name, tensors_by_name_, name);
}

const GgufTensor& GgufFile::require(std::string_view name, const std::vector<int64_t>& ne) const {
    const GgufTensor* const tensor = find(name);
    const std::string expected = dims_string(ne.data(), ne.size());
    if (tensor == nullptr) {
        throw FormatError(concat(path(), ": tensor ", name, ": missing, expected ", expected));
    }
    for (size_t i = 0; i < std::max(ne.size(), tensor->ne.size()); ++i) {
        const int64_t found = i < tensor->ne.size() ? tensor->ne[i] : 1;
        if (found != (i < ne.size() ? ne[i] : 1)) {
            throw FormatError(
                concat(path(), ": tensor ", name, ": ", shape_string(*tensor), ", expected ", expected));
        }
    }
    return *tensor;
}

void GgufFile::give_back(const uint8_t* data, size_t nbytes) const noexcept {
    file_.give_back(static_cast<size_t>(data - file_.data()), nbytes);
}

}  // namespace pocketvlm
