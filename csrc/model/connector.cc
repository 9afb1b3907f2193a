#include "model/connector.h"

namespace pocketvlm {

void Connector::run(const Compute& compute, const VisionConfig& config, RowMaker patch,
                    Activations& activations, float* tokens) const {
    const int64_t scale = config.scale_factor, grid = config.grid(), d = config.hidden_size;
    activations.set(compute, {&projection}, config.image_seq_len(), [&](int64_t token, float* shuffled) {
        const int64_t by = token / (grid / scale), bx = token % (grid / scale);
        for (int64_t i = 0; i < scale * scale; ++i)
            patch((by * scale + i / scale) * grid + bx * scale + i % scale, shuffled + i * d);
        return shuffled;
    });
    projection.run(compute, activations, tokens);
}

}  // namespace pocketvlm
