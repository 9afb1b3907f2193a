// _core.preprocess, and the kernels under it for the tests.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/cpu_features.h"
#include "kernels/kernel_table.h"
#include "model/preprocess.h"
#include "python/array.h"
#include "python/bind.h"
#include "python/image.h"
#include "python/stop.h"

namespace pocketvlm {
namespace {

using HeightWidth = std::pair<int64_t, int64_t>;

ImageSize to_size(const HeightWidth& size) { return {size.first, size.second}; }

PreprocessPlan to_plan(const HeightWidth& resized, const std::optional<HeightWidth>& split, int64_t tile_size,
                       int resample) {
    PreprocessPlan plan{to_size(resized), std::nullopt, tile_size, resize_filter_from_pil(resample)};
    if (split) plan.split = to_size(*split);
    return plan;
}

const KernelTable& row(const std::optional<std::string>& isa) {
    return kernels_for(isa.value_or(""), detect_cpu_features());
}

TileLayout to_layout(const std::string& name, std::optional<int64_t> patch_size, int64_t tile_size) {
    if (name == "tiles") return TileLayout::tiles;
    if (name != "patches_bf16" && name != "patches_f32") {
        throw InputError(
            concat("layout: found ", name, ", expected one of: tiles, patches_bf16, patches_f32"));
    }
    if (!patch_size) throw InputError(concat("patch_size: missing, layout ", name, " needs it"));
    if (*patch_size < 1 || *patch_size > tile_size) {
        throw InputError(concat("patch_size: found ", *patch_size, ", expected 1 to ", tile_size));
    }
    return name == "patches_bf16" ? TileLayout::patches_bf16 : TileLayout::patches_f32;
}

// The array to write to: `out`, if it is given and as it has to be, or a new one.
template <typename T>
py::array output_array(const py::object& out, const std::vector<py::ssize_t>& shape) {
    if (out.is_none()) return aligned_array<T>(shape);
    py::array_t<T> array = shape.size() == 4
                               ? checked_array<T>(out, "out", {shape[0], shape[1], shape[2], shape[3]})
                               : checked_array<T>(out, "out", {shape[0], shape[1], shape[2]});
    if (!array.writeable()) throw InputError("out: the array is read-only");
    return std::move(array);
}

py::array preprocess_image(const py::object& image, const HeightWidth& resized,
                           const std::optional<HeightWidth>& split, int64_t tile_size, int resample,
                           ThreadPool& pool, const StopFlag* stop, const std::optional<std::string>& isa,
                           const std::string& layout_name, std::optional<int64_t> patch_size,
                           const py::object& out) {
    const ImageView view = view_image(image, "image");
    const PreprocessPlan plan = to_plan(resized, split, tile_size, resample);
    check_image_size(view.size, "image");
    const py::ssize_t num_tiles = count_tiles(plan);
    const TileLayout layout = to_layout(layout_name, patch_size, tile_size);
    const KernelTable& kernels = row(isa);

    const py::ssize_t side = tile_size, patch = patch_size.value_or(1), grid = side / patch;
    const std::vector<py::ssize_t> planes{num_tiles, 3, side, side},
        patches{num_tiles, grid * grid, 3 * patch * patch};
    py::array array = layout == TileLayout::tiles          ? output_array<uint8_t>(out, planes)
                      : layout == TileLayout::patches_bf16 ? output_array<uint16_t>(out, patches)
                                                           : output_array<float>(out, patches);
    const TileOutput output{layout, patch, array.mutable_data()};
    {
        const py::gil_scoped_release release;
        preprocess(view, plan, kernels, pool, make_stop_poll(stop), output);
    }
    return array;
}

int64_t preprocess_scratch_bytes(const HeightWidth& image, const HeightWidth& resized,
                                 const std::optional<HeightWidth>& split, int64_t tile_size, int resample,
                                 int num_threads, const std::string& layout,
                                 std::optional<int64_t> patch_size) {
    const PreprocessPlan plan = to_plan(resized, split, tile_size, resample);
    count_tiles(plan);
    return scratch_bytes(to_size(image), plan, row(std::nullopt), num_threads,
                         to_layout(layout, patch_size, tile_size), patch_size.value_or(1));
}

py::array_t<uint8_t> resize(const py::object& image, const HeightWidth& size, int resample,
                            const std::string& isa) {
    const ImageView view = view_image(image, "image");
    const ResizeFilter filter = resize_filter_from_pil(resample);
    check_image_size(to_size(size), "size");
    py::array_t<uint8_t> resized({py::ssize_t{3}, py::ssize_t{size.first}, py::ssize_t{size.second}});
    resize_image(view, to_size(size), filter, row(isa), resized.mutable_data());
    return resized;
}

py::array_t<uint8_t> unpack(const std::string& isa, const py::object& image) {
    const ImageView view = view_image(image, "image");
    const KernelTable& kernels = row(isa);
    check_image_size(view.size, "image");
    const int64_t height = view.size.height, width = view.size.width, stride = width + kRowPadding;
    std::vector<uint8_t> planes(static_cast<size_t>(3 * stride));
    py::array_t<uint8_t> out({py::ssize_t{3}, py::ssize_t{height}, py::ssize_t{width}});
    for (int64_t y = 0; y < height; ++y) {
        read_row(view, y, kernels, {planes.data(), planes.data() + stride, planes.data() + 2 * stride});
        for (int64_t c = 0; c < 3; ++c) {
            std::copy_n(planes.data() + c * stride, width, out.mutable_data(c, y, 0));
        }
    }
    return out;
}

// One channel of a row of square patches, as both types.
template <typename T, typename Stored>
py::array_t<Stored> center_patches(CenterPatches<T>* kernel, const py::array_t<uint8_t>& pixels) {
    const py::ssize_t size = pixels.shape(0), count = pixels.shape(1) / size;
    std::vector<const uint8_t*> rows;
    for (py::ssize_t y = 0; y < size; ++y) rows.push_back(pixels.data(y, 0));
    py::array_t<Stored> out({count, size * size});
    kernel(rows.data(), 0, count, size, size * size, reinterpret_cast<T*>(out.mutable_data()));
    finish_patches();
    return out;
}

py::array center(const std::string& isa, const py::object& pixels, const std::string& type) {
    const py::array_t<uint8_t> rows = checked_array<uint8_t>(pixels, "pixels", {"p", "n"});
    const KernelTable& kernels = row(isa);
    if (rows.shape(0) == 0) throw InputError("pixels: no rows");
    if (type == "bf16") return center_patches<BFloat16, uint16_t>(kernels.center_patches_bf16, rows);
    return center_patches<float, float>(kernels.center_patches_f32, rows);
}

}  // namespace

void bind_preprocess(py::module_& m, py::module_& kernels) {
    py::class_<YuvFrame>(m, "YuvFrame", "A camera frame, NV12 (without v) or I420.")
        .def(py::init<const py::object&, const py::object&, const py::object&, const std::string&, bool>(),
             py::arg("y"), py::arg("u"), py::arg("v") = py::none(), py::kw_only(), py::arg("matrix"),
             py::arg("full_range"))
        .def_property_readonly("shape", [](const YuvFrame& frame) {
            return HeightWidth{frame.view().size.height, frame.view().size.width};
        });
    m.def("preprocess", &preprocess_image, py::arg("image"), py::kw_only(), py::arg("resized"),
          py::arg("split"), py::arg("tile_size"), py::arg("resample"), py::arg("pool"),
          py::arg("stop") = nullptr, py::arg("isa") = py::none(), py::arg("layout") = "tiles",
          py::arg("patch_size") = py::none(), py::arg("out") = py::none());
    m.def("preprocess_scratch_bytes", &preprocess_scratch_bytes, py::arg("image_size"), py::kw_only(),
          py::arg("resized"), py::arg("split"), py::arg("tile_size"), py::arg("resample"),
          py::arg("num_threads"), py::arg("layout") = "tiles", py::arg("patch_size") = py::none());
    kernels.def("resize", &resize, py::arg("image"), py::arg("size"), py::arg("resample"),
                py::arg("isa") = "scalar");
    kernels.def("unpack", &unpack, py::arg("isa"), py::arg("image"));
    kernels.def("center_patches", &center, py::arg("isa"), py::arg("pixels"), py::arg("type"));
}

}  // namespace pocketvlm
