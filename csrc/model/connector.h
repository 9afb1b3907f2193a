// From the vision encoder's patches to image tokens: pixel shuffle, then one projection without bias.
#pragma once

#include <cstdint>

#include "model/config.h"
#include "model/linear.h"

namespace pocketvlm {

// Gathers scale x scale patches into one token (Idefics3Connector.pixel_shuffle): within a token, channels
// run (row in block, column in block, d).
//   shuffled[(by * grid/s + bx), (dy * s + dx) * d + i] = patches[((by * s + dy) * grid + bx * s + dx), i]
void pixel_shuffle(const float* patches,  // [grid * grid, d]
                   int64_t grid, int64_t d, int64_t scale,
                   float* shuffled);  // [(grid / scale)^2, d * scale^2]

struct Connector {
    Linear projection;  // [text hidden_size, d * scale^2]

    size_t scratch_floats(const VisionConfig& config) const;
    // patches: [num_patches, hidden_size] -> tokens: [image_seq_len, projection_dim]. scratch:
    // scratch_floats().
    void run(const Compute& compute, const VisionConfig& config, const float* patches, float* scratch,
             float* tokens) const;
};

}  // namespace pocketvlm
