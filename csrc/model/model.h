// A whole model: two GGUF files, loaded and packed for one row of the kernel table, with its vision encoder
// and text decoder. Constant once loaded; caches, stop flags and what a caller sees on the way are passed in.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/stop_flag.h"
#include "base/thread_pool.h"
#include "io/gguf.h"
#include "kernels/kernel_table.h"
#include "model/text_decoder.h"
#include "model/vision_encoder.h"

namespace pocketvlm {

// Stages: "load" (tensors), "vision" (tiles), "prefill" (positions), "decode" (tokens of one answer). Called
// on the calling thread; it may throw.
using Progress = std::function<void(const char* stage, int64_t done, int64_t total)>;

struct Model {
    GgufFile text_file;
    GgufFile projector_file;
    const KernelTable* kernels;
    std::shared_ptr<ThreadPool> pool;
    Arithmetic vision_arithmetic;
    VisionEncoder vision;
    TextDecoder text;
    size_t weight_bytes = 0;     // resident: packed weights
    int64_t num_parameters = 0;  // of both files

    std::vector<const GgufFile*> files(bool vision_only) const;
    Compute compute() const { return {*kernels, *pool}; }
    Compute vision_compute() const { return {*kernels, *pool, vision_arithmetic}; }
    // The type that most weights of a file's layers have: "f32", "q8_0" ...
    std::string text_type() const;
    std::string vision_type() const;
};

struct LoadOptions {
    std::string isa;  // a row of the kernel table; empty: the best
    Arithmetic vision_arithmetic = Arithmetic::automatic;
    bool vision_only = false;  // leaves the text model where it is, for another engine: no layers, no head
};

// Reads, proves and packs a pair of GGUF files. Throws FormatError,
// UnsupportedError, InputError, Cancelled, and OutOfBudgetError, before anything is packed, when the control
// group's memory limit is below what the model needs at least.
std::unique_ptr<Model> load_model(const std::string& text_path, const std::string& projector_path,
                                  std::shared_ptr<ThreadPool> pool, const LoadOptions& options,
                                  const StopPoll& stop, const Progress& progress);

// Patches of num_tiles tiles -> features: [num_tiles, image_seq_len, hidden_size].
void encode_images(const Model& model, const StopPoll& stop, const PatchRows& patches, int64_t num_tiles,
                   float* features, const Progress& progress, const Trace& trace = {});

}  // namespace pocketvlm
