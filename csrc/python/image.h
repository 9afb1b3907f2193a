// Images that cross from Python: where their bytes lie, read as they are or refused. Nothing is copied.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <string>
#include <vector>

#include "model/image_view.h"

namespace pocketvlm {

// A camera frame, 4:2:0. Keeps its arrays alive.
class YuvFrame {
  public:
    // u: with `v`, U and V of I420, uint8 [ceil(H / 2), ceil(W / 2)] each; without (None), the pairs of NV12,
    // with 2 as the last dimension. matrix: "bt601" or "bt709". Throws TypeError and InputError as
    // `view_image` does.
    YuvFrame(const pybind11::object& y, const pybind11::object& u, const pybind11::object& v,
             const std::string& matrix, bool full_range);

    const ImageView& view() const noexcept { return view_; }

  private:
    std::vector<pybind11::object> planes_;
    ImageView view_;
};

// Returns a view that is good while `image` lives: of a YuvFrame, or of an array uint8 [H, W, 3], [H, W, 4]
// or [H, W] whose rows are contiguous and follow each other at any positive distance, as in a crop. Throws
// TypeError for what is no array or holds another type, InputError for another shape or layout:
//   image: found uint8 [4, 5, 3] with strides [15, -3, 1], expected contiguous rows: strides [1 or more, 3,
//   1]
ImageView view_image(const pybind11::object& image, const char* argument);

}  // namespace pocketvlm
