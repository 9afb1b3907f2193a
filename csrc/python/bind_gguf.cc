// _core.GgufFile and _core.quant: the GGUF reader and the reference conversions, as the tests and `info` see
// them.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <pybind11/stl/filesystem.h>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "base/check.h"
#include "base/half.h"
#include "io/gguf.h"
#include "python/array.h"
#include "python/bind.h"
#include "quant/quant_type.h"

namespace pocketvlm {
namespace {

// Metadata is what somebody put into a file: bytes that are no UTF-8 become surrogates instead of an error.
py::object to_python(std::string_view text) {
    PyObject* const decoded =
        PyUnicode_DecodeUTF8(text.data(), static_cast<Py_ssize_t>(text.size()), "surrogateescape");
    if (decoded == nullptr) throw py::error_already_set();
    return py::reinterpret_steal<py::object>(decoded);
}

py::object number_to_python(GgufValueType type, const uint8_t* p) {
    switch (type) {
        case GgufValueType::UINT8:
            return py::int_(load_number<uint8_t>(p));
        case GgufValueType::INT8:
            return py::int_(load_number<int8_t>(p));
        case GgufValueType::UINT16:
            return py::int_(load_number<uint16_t>(p));
        case GgufValueType::INT16:
            return py::int_(load_number<int16_t>(p));
        case GgufValueType::UINT32:
            return py::int_(load_number<uint32_t>(p));
        case GgufValueType::INT32:
            return py::int_(load_number<int32_t>(p));
        case GgufValueType::UINT64:
            return py::int_(load_number<uint64_t>(p));
        case GgufValueType::INT64:
            return py::int_(load_number<int64_t>(p));
        case GgufValueType::FLOAT32:
            return py::float_(load_number<float>(p));
        case GgufValueType::FLOAT64:
            return py::float_(load_number<double>(p));
        case GgufValueType::BOOL:
            return py::bool_(load_number<uint8_t>(p) != 0);
        case GgufValueType::STRING:
        case GgufValueType::ARRAY:
            break;
    }
    throw Error(concat(name_of(type), " is no number"));
}

py::object to_python(const GgufEntry& entry) {
    py::list values;
    if (entry.element_type == GgufValueType::STRING) {
        for (const std::string_view text : GgufStrings(entry.data, entry.count))
            values.append(to_python(text));
    } else {
        const size_t item_bytes = size_of(entry.element_type);
        for (uint64_t i = 0; i < entry.count; ++i) {
            values.append(number_to_python(entry.element_type, entry.data + i * item_bytes));
        }
    }
    if (entry.type == GgufValueType::ARRAY) return values;
    return values[0];
}

py::dict metadata(const GgufFile& file) {
    py::dict dict;
    for (const GgufEntry& entry : file.entries()) dict[to_python(entry.key)] = to_python(entry);
    return dict;
}

py::dict value_types(const GgufFile& file) {
    py::dict dict;
    for (const GgufEntry& entry : file.entries()) {
        dict[to_python(entry.key)] =
            py::make_tuple(static_cast<uint32_t>(entry.element_type), entry.type == GgufValueType::ARRAY);
    }
    return dict;
}

py::dict tensors(const GgufFile& file) {
    py::dict dict;
    for (const GgufTensor& tensor : file.tensors()) {
        py::list ne;
        for (int i = 0; i < tensor.n_dims; ++i) ne.append(tensor.ne[static_cast<size_t>(i)]);
        dict[to_python(tensor.name)] = py::make_tuple(traits(tensor.type).name, ne, tensor.nbytes);
    }
    return dict;
}

py::object find_value(const GgufFile& file, const std::string& key) {
    const GgufEntry* const entry = file.find_entry(key);
    if (entry == nullptr) return py::none();
    return to_python(*entry);
}

const GgufTensor& tensor_of(const GgufFile& file, const std::string& name) {
    const GgufTensor* const tensor = file.find(name);
    if (tensor == nullptr) throw py::key_error(concat(file.path(), ": no tensor ", name));
    return *tensor;
}

py::array_t<uint8_t> tensor_data(const GgufFile& file, const std::string& name) {
    const GgufTensor& tensor = tensor_of(file, name);
    return py::array_t<uint8_t>(static_cast<py::ssize_t>(tensor.nbytes), tensor.data);
}

py::list require_strings(const GgufFile& file, const std::string& key) {
    py::list values;
    for (const std::string_view text : file.require_strings(key)) values.append(to_python(text));
    return values;
}

void require_tensor(const GgufFile& file, const std::string& name, const std::vector<int64_t>& ne) {
    file.require(name, ne);
}

void give_back(const GgufFile& file, const std::string& name) {
    const GgufTensor& tensor = tensor_of(file, name);
    file.give_back(tensor.data, tensor.nbytes);
}

py::array_t<float> dequantize(const std::string& type_name, const py::object& blocks) {
    const py::array_t<uint8_t> src = checked_array<uint8_t>(blocks, "blocks", {"nbytes"});
    const QuantTraits* const type = find_traits(type_name);
    if (type == nullptr)
        throw InputError(concat("type ", type_name, ", expected one of ", known_quant_types()));
    if (src.size() % type->type_size != 0) {
        throw InputError(concat("blocks: ", src.size(), " bytes, expected a multiple of ", type->type_size,
                                " for ", type_name));
    }
    // A copy of it, because a slice of a uint8 array may begin at any address and blocks may not.
    const std::vector<uint8_t> aligned(src.data(), src.data() + src.size());
    const int64_t k = src.size() / type->type_size * type->block_size;
    py::array_t<float> weights(static_cast<py::ssize_t>(k));
    dequantize_row(type->type, aligned.data(), weights.mutable_data(), k);
    return weights;
}

py::array_t<uint8_t> quantize_q8_0(const py::object& weights) {
    const py::array_t<float> src = checked_array<float>(weights, "weights", {"k"});
    if (src.size() % QK8_0 != 0) {
        throw InputError(concat("weights: ", src.size(), " values, expected a multiple of ", QK8_0));
    }
    std::vector<block_q8_0> blocks(static_cast<size_t>(src.size() / QK8_0));
    quantize_row_q8_0(src.data(), blocks.data(), src.size());
    return py::array_t<uint8_t>(static_cast<py::ssize_t>(blocks.size() * sizeof(block_q8_0)),
                                reinterpret_cast<const uint8_t*>(blocks.data()));
}

template <uint16_t (*convert)(float)>
py::array_t<uint16_t> convert_all(const py::object& values) {
    const py::array_t<float> src = checked_array<float>(values, "values", {"n"});
    py::array_t<uint16_t> halves(src.size());
    std::transform(src.data(), src.data() + src.size(), halves.mutable_data(), convert);
    return halves;
}

}  // namespace

void bind_gguf(py::module_& m) {
    py::class_<GgufFile>(m, "GgufFile")
        .def(py::init([](const std::filesystem::path& path) { return GgufFile(path.string()); }),
             py::arg("path"))
        .def_property_readonly("version", &GgufFile::version)
        .def_property_readonly("metadata", &metadata)
        .def_property_readonly("value_types", &value_types)
        .def_property_readonly("tensors", &tensors)
        .def("find", &find_value, py::arg("key"))
        .def("tensor_data", &tensor_data, py::arg("name"))
        // What csrc/model reads a file through, for the tests of its errors.
        .def("require_u32", &GgufFile::require_u32, py::arg("key"))
        .def("require_f32", &GgufFile::require_f32, py::arg("key"))
        .def("require_bool", &GgufFile::require_bool, py::arg("key"))
        .def("require_string", &GgufFile::require_string, py::arg("key"))
        .def("require_strings", &require_strings, py::arg("key"))
        .def("require_f32_array", &GgufFile::require_f32_array, py::arg("key"))
        .def("find_u32", &GgufFile::find_u32, py::arg("key"))
        .def("require_tensor", &require_tensor, py::arg("name"), py::arg("ne"))
        .def("give_back", &give_back, py::arg("name"));

    m.def("dequantize", &dequantize, py::arg("type_name"), py::arg("blocks"));

    py::module_ quant = m.def_submodule("quant", "Reference conversions between float32 and the disk types.");
    quant.def("fp32_to_fp16", &convert_all<fp32_to_fp16>, py::arg("values"));
    quant.def("fp32_to_bf16", &convert_all<fp32_to_bf16>, py::arg("values"));
    quant.def("quantize_q8_0", &quantize_q8_0, py::arg("weights"));
}

}  // namespace pocketvlm
