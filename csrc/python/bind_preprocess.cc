// _core.preprocess, and the kernels under it for the tests.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <optional>
#include <string>
#include <utility>

#include "base/cpu_features.h"
#include "kernels/kernel_table.h"
#include "kernels/normalize/normalize.h"
#include "model/preprocess.h"
#include "python/array.h"
#include "python/bind.h"
#include "python/stop.h"

namespace pocketvlm {
namespace {

using HeightWidth = std::pair<int64_t, int64_t>;

ImageSize to_size(const HeightWidth& size) { return {size.first, size.second}; }

py::array_t<uint8_t> preprocess_image(const py::object& image, const HeightWidth& resized,
                                      const std::optional<HeightWidth>& split, int64_t tile_size,
                                      int resample, ThreadPool& pool, const StopFlag* stop) {
    const py::array_t<uint8_t> pixels = checked_array<uint8_t>(image, "image", {"H", "W", 3});
    const ImageView view{pixels.data(), {pixels.shape(0), pixels.shape(1)}};
    PreprocessPlan plan{to_size(resized), std::nullopt, tile_size, resize_filter_from_pil(resample)};
    if (split) plan.split = to_size(*split);
    check_image_size(view.size, "image");

    py::array_t<uint8_t> tiles(
        {py::ssize_t{count_tiles(plan)}, py::ssize_t{tile_size}, py::ssize_t{tile_size}, py::ssize_t{3}});
    uint8_t* out = tiles.mutable_data();
    {
        const py::gil_scoped_release release;
        preprocess(view, plan, kernels_for("", detect_cpu_features()), pool, make_stop_poll(stop), out);
    }
    return tiles;
}

py::array_t<uint8_t> resize(const py::object& image, const HeightWidth& size, int resample,
                            const std::string& isa) {
    const py::array_t<uint8_t> pixels = checked_array<uint8_t>(image, "image", {"H", "W", 3});
    const ImageView view{pixels.data(), {pixels.shape(0), pixels.shape(1)}};
    const ResizeFilter filter = resize_filter_from_pil(resample);
    check_image_size(to_size(size), "size");

    py::array_t<uint8_t> resized({py::ssize_t{size.first}, py::ssize_t{size.second}, py::ssize_t{3}});
    ThreadPool pool(1);
    resize_image(view, to_size(size), filter, kernels_for(isa, detect_cpu_features()), pool, StopPoll(),
                 resized.mutable_data());
    return resized;
}

py::array_t<float> normalize(const py::object& tile, int32_t patch_size, double rescale_factor,
                             const std::array<double, 3>& mean, const std::array<double, 3>& std,
                             const std::string& isa) {
    const py::array_t<uint8_t> pixels = checked_array<uint8_t>(tile, "tile", {"S", "S", 3});
    const ImageSize size{pixels.shape(0), pixels.shape(1)};
    check_image_size(size, "tile");
    if (size.height != size.width) {
        throw InputError(concat("tile: found ", size.height, "x", size.width, ", expected a square"));
    }
    if (patch_size < 1 || patch_size > size.height) {
        throw InputError(concat("patch_size: found ", patch_size, ", expected 1 to ", size.height));
    }
    const PatchGrid patches{static_cast<int32_t>(size.height), patch_size};
    const NormalizeTable table =
        make_normalize_table({rescale_factor, {mean[0], mean[1], mean[2]}, {std[0], std[1], std[2]}});

    const int64_t grid = patches.grid();
    py::array_t<float> rows({py::ssize_t{grid * grid}, py::ssize_t{patches.row_size()}});
    const KernelTable& kernels = kernels_for(isa, detect_cpu_features());
    for (int32_t i = 0; i < grid; ++i) {
        kernels.normalize_patches_f32(pixels.data(), patches, i, table,
                                      rows.mutable_data() + i * grid * patches.row_size());
    }
    return rows;
}

}  // namespace

void bind_preprocess(py::module_& m, py::module_& kernels) {
    m.def("preprocess", &preprocess_image, py::arg("image"), py::kw_only(), py::arg("resized"),
          py::arg("split"), py::arg("tile_size"), py::arg("resample"), py::arg("pool"),
          py::arg("stop") = nullptr);
    kernels.def("resize", &resize, py::arg("image"), py::arg("size"), py::arg("resample"),
                py::arg("isa") = "scalar");
    kernels.def("normalize", &normalize, py::arg("tile"), py::kw_only(), py::arg("patch_size"),
                py::arg("rescale_factor"), py::arg("image_mean"), py::arg("image_std"),
                py::arg("isa") = "scalar");
}

}  // namespace pocketvlm
