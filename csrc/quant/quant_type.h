// The tensor types that may stand in a GGUF file: a traits row each, and reference conversions from and to
// float32.
//
// These are disk types. Which of them the engine can run, and how it packs them in memory, is decided by the
// layers above; the conversions here are the definition that packing and kernels are tested against.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "quant/blocks.h"

namespace pocketvlm {

// The values are GGML's type ids, as tensor infos store them.
enum class QuantType : uint32_t {
    F32 = 0,
    F16 = 1,
    Q4_0 = 2,
    Q4_1 = 3,
    Q5_0 = 6,
    Q5_1 = 7,
    Q8_0 = 8,
    Q4_K = 12,
    Q5_K = 13,
    Q6_K = 14,
    IQ4_NL = 20,
    BF16 = 30,
};

struct QuantTraits {
    QuantType type;
    const char* name;    // "q8_0"
    int64_t block_size;  // weights per block; the length of a row is a multiple of it
    int64_t type_size;   // bytes per block
};

const QuantTraits& traits(QuantType type) noexcept;
const QuantTraits* find_traits(uint32_t ggml_type_id) noexcept;  // nullptr: not known here
const QuantTraits* find_traits(std::string_view name) noexcept;  // nullptr: not known here

// "f32 (0), f16 (1), ...": the types known here with their ids, for messages.
std::string known_quant_types();

// Bytes of k weights. k is a multiple of the block size.
int64_t row_bytes(QuantType type, int64_t k) noexcept;

// dst[i] = the value of weight i, for i < k. src is aligned for its block (4 bytes for f32, else 2) and does
// not overlap dst; k is a multiple of the block size. Bit-equal to the `gguf` Python package, except that NaN
// payloads are not promised.
void dequantize_row(QuantType type, const void* src, float* dst, int64_t k) noexcept;

// Per block: d = max|src| / 127, qs[i] = round(src[i] / d), halves away from zero; qs comes from the float32
// d, of which the block keeps the nearest float16. k is a multiple of 32, src is finite. Bit-equal to the
// `gguf` package.
void quantize_row_q8_0(const float* src, block_q8_0* dst, int64_t k) noexcept;

}  // namespace pocketvlm
