// From the vision encoder's patches to image tokens: pixel shuffle, then one projection without bias.
#pragma once

#include <cstdint>

#include "model/config.h"
#include "model/linear.h"

namespace pocketvlm {

struct Connector {
    Linear projection;  // [text hidden_size, d * scale^2]

    // Gathers scale x scale patches into one token (Idefics3Connector.pixel_shuffle): within a token,
    // channels run (row in block, column in block, d); and projects it.
    //   shuffled[by * grid/s + bx, (dy * s + dx) * d + i] = patches[(by * s + dy) * grid + bx * s + dx, i]
    // patch(p, room) writes patch p, [d]. tokens: [image_seq_len, projection_dim].
    void run(const Compute& compute, const VisionConfig& config, RowMaker patch, Activations& activations,
             float* tokens) const;
};

}  // namespace pocketvlm
