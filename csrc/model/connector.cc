#include "model/connector.h"

#include <algorithm>

namespace pocketvlm {

void pixel_shuffle(const float* patches, int64_t grid, int64_t d, int64_t scale, float* shuffled) {
    for (int64_t by = 0; by < grid / scale; ++by) {
        for (int64_t bx = 0; bx < grid / scale; ++bx) {
            for (int64_t dy = 0; dy < scale; ++dy) {
                // The `scale` patches of a block's row are neighbours: one run of scale * d values.
                const float* row = patches + ((by * scale + dy) * grid + bx * scale) * d;
                shuffled = std::copy_n(row, scale * d, shuffled);
            }
        }
    }
}

size_t Connector::scratch_floats(const VisionConfig& config) const {
    return static_cast<size_t>(config.num_patches() * config.hidden_size);
}

void Connector::run(const Compute& compute, const VisionConfig& config, const float* patches, float* scratch,
                    float* tokens) const {
    const int64_t scale = config.scale_factor;
    pixel_shuffle(patches, config.grid(), config.hidden_size, scale, scratch);
    Activations shuffled;
    shuffled.set(compute, {&projection}, scratch, config.image_seq_len());
    projection.run(compute, shuffled, tokens);
}

}  // namespace pocketvlm
