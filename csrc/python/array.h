// Arrays that cross from Python: taken as they are or refused. Nothing is cast, copied or guessed.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <initializer_list>
#include <memory>
#include <string>
#include <vector>

#include "base/aligned_buffer.h"
#include "base/check.h"

namespace pocketvlm {

namespace py = pybind11;

// One dimension of an expected shape: a letter that stands for any length, or the length itself.
struct Dim {
    Dim(const char* letter) : name(letter) {}                                // NOLINT(runtime/explicit)
    Dim(py::ssize_t length) : name(std::to_string(length)), size(length) {}  // NOLINT(runtime/explicit)

    std::string name;
    py::ssize_t size = -1;  // -1: any
};

// Lengths or names of dimensions as they are printed: "[H, W, 3]".
inline std::string shape_text(const std::vector<std::string>& names) {
    std::string text = "[";
    for (const std::string& name : names) text += (text.size() > 1 ? ", " : "") + name;
    return text + "]";
}

// What `value` is, as errors tell it: "uint8 [4, 4, 3]"; of what is no array, its type.
inline std::string array_text(const py::handle& value) {
    if (!py::isinstance<py::array>(value)) return Py_TYPE(value.ptr())->tp_name;
    const auto array = py::reinterpret_borrow<py::array>(value);
    std::vector<std::string> lengths;
    for (py::ssize_t i = 0; i < array.ndim(); ++i) lengths.push_back(std::to_string(array.shape(i)));
    return std::string(py::str(array.dtype())) + " " + shape_text(lengths);
}

// Returns `value` as an array of T that is C-contiguous, aligned, in native byte order and of the expected
// shape. Throws TypeError for what is no array or holds another type, InputError for another shape or layout:
//   image: found float64 [4, 4, 3], expected a C-contiguous numpy array uint8 [H, W, 3]
template <typename T>
py::array_t<T> checked_array(const py::handle& value, const char* argument,
                             std::initializer_list<Dim> shape) {
    const py::dtype dtype = py::dtype::of<T>();
    std::vector<std::string> names;
    for (const Dim& dim : shape) names.push_back(dim.name);
    const std::string expected =
        ", expected a C-contiguous numpy array " + std::string(py::str(dtype)) + " " + shape_text(names);

    const std::string found = std::string(argument) + ": found " + array_text(value);
    if (!py::isinstance<py::array>(value)) throw py::type_error(found + expected);
    const auto array = py::reinterpret_borrow<py::array>(value);
    bool fits = array.ndim() == static_cast<py::ssize_t>(shape.size());
    for (py::ssize_t i = 0; i < array.ndim(); ++i) {
        fits = fits && (shape.begin()[i].size == -1 || shape.begin()[i].size == array.shape(i));
    }
    if (!array.dtype().equal(dtype)) throw py::type_error(found + expected);
    if (!fits) throw InputError(found + expected);

    constexpr int kLayout = py::array::c_style | py::detail::npy_api::NPY_ARRAY_ALIGNED_;
    if ((array.flags() & kLayout) != kLayout) {
        throw InputError(found + " with gaps, reversed or transposed axes or unaligned items" + expected);
    }
    return py::reinterpret_borrow<py::array_t<T>>(value);
}

// A new array whose rows start as kernels like to write them: on a cache line.
template <typename T>
py::array_t<T> aligned_array(const std::vector<py::ssize_t>& shape) {
    size_t size = 1;
    for (const py::ssize_t length : shape) size *= static_cast<size_t>(length);
    auto buffer = std::make_unique<AlignedBuffer<T>>(size);
    T* data = buffer->data();
    const py::capsule owner(buffer.release(),
                            [](void* pointer) { delete static_cast<AlignedBuffer<T>*>(pointer); });
    return py::array_t<T>(shape, data, owner);
}

}  // namespace pocketvlm
