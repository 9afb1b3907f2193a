#include "python/image.h"

#include <optional>
#include <utility>

#include "base/check.h"
#include "python/array.h"

namespace pocketvlm {
namespace {

using Shape = std::vector<Dim>;

bool fits(const py::array& array, const Shape& shape) {
    if (array.ndim() != static_cast<py::ssize_t>(shape.size())) return false;
    for (py::ssize_t i = 0; i < array.ndim(); ++i) {
        if (shape[i].size != -1 && shape[i].size != array.shape(i)) return false;
    }
    return true;
}

std::string dims_text(const Shape& shape) {
    std::vector<std::string> names;
    for (const Dim& dim : shape) names.push_back(dim.name);
    return shape_text(names);
}

void check_rows(const py::array& array, const char* argument) {
    if (array.size() == 0) return;
    std::vector<std::string> strides, expected{"1 or more"};
    // The stride of a dimension of length 1 is never used, and may be anything.
    bool contiguous = array.shape(0) == 1 || array.strides(0) > 0;
    for (py::ssize_t i = 0; i < array.ndim(); ++i) strides.push_back(std::to_string(array.strides(i)));
    for (py::ssize_t i = 1; i < array.ndim(); ++i) {
        py::ssize_t stride = 1;
        for (py::ssize_t k = i + 1; k < array.ndim(); ++k) stride *= array.shape(k);
        expected.push_back(std::to_string(stride));
        contiguous = contiguous && (array.shape(i) == 1 || array.strides(i) == stride);
    }
    if (contiguous) return;
    throw InputError(concat(argument, ": found ", array_text(array), " with strides ", shape_text(strides),
                            ", expected contiguous rows: strides ", shape_text(expected)));
}

// Returns `value` as an array of one of these shapes with contiguous rows.
py::array checked_rows(const py::handle& value, const char* argument, const std::vector<Shape>& shapes,
                       const char* alternative = "") {
    const auto refusal = [&] {
        std::string expected;
        for (const Shape& shape : shapes) expected += (expected.empty() ? "" : " or ") + dims_text(shape);
        return concat(argument, ": found ", array_text(value), ", expected a numpy array uint8 ", expected,
                      alternative);
    };
    if (!py::isinstance<py::array>(value)) throw py::type_error(refusal());
    auto array = py::reinterpret_borrow<py::array>(value);
    if (!array.dtype().equal(py::dtype::of<uint8_t>())) throw py::type_error(refusal());
    for (const Shape& shape : shapes) {
        if (!fits(array, shape)) continue;
        check_rows(array, argument);
        return array;
    }
    throw InputError(refusal());
}

PixelPlane plane_of(const py::array& array) {
    return {static_cast<const uint8_t*>(array.data()), array.strides(0)};
}

YuvStandard to_standard(const std::string& name) {
    if (name == "bt601") return YuvStandard::bt601;
    if (name == "bt709") return YuvStandard::bt709;
    throw InputError(concat("matrix: found ", name, ", expected one of: bt601, bt709"));
}

}  // namespace

YuvFrame::YuvFrame(const py::object& y, const py::object& u, const py::object& v, const std::string& matrix,
                   bool full_range) {
    const py::array luma = checked_rows(y, "y", {{"H", "W"}});
    view_.size = {luma.shape(0), luma.shape(1)};
    view_.matrix = yuv_matrix(to_standard(matrix), full_range);
    view_.planes[0] = plane_of(luma);
    planes_.push_back(luma);

    const auto add_chroma = [&](const py::object& value, const char* name, Shape shape) {
        const py::array chroma = checked_rows(value, name, {std::move(shape)});
        view_.planes[planes_.size()] = plane_of(chroma);
        planes_.push_back(chroma);
    };
    const Dim rows = (luma.shape(0) + 1) / 2, columns = (luma.shape(1) + 1) / 2;
    if (v.is_none()) {
        view_.format = PixelFormat::nv12;
        add_chroma(u, "uv", {rows, columns, 2});
    } else {
        view_.format = PixelFormat::i420;
        add_chroma(u, "u", {rows, columns});
        add_chroma(v, "v", {rows, columns});
    }
}

ImageView view_image(const py::object& image, const char* argument) {
    if (py::isinstance<YuvFrame>(image)) return image.cast<const YuvFrame&>().view();
    const py::array array =
        checked_rows(image, argument, {{"H", "W", 3}, {"H", "W", 4}, {"H", "W"}}, ", or a YuvFrame");
    const PixelFormat format = array.ndim() == 2     ? PixelFormat::grey
                               : array.shape(2) == 4 ? PixelFormat::rgba
                                                     : PixelFormat::rgb;
    return {format, {array.shape(0), array.shape(1)}, {plane_of(array)}, {}};
}

}  // namespace pocketvlm
