// y = x W^T + b: weights packed for one row of the kernel table, activations quantised when the weights are.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <string>
#include <vector>

#include "base/aligned_buffer.h"
#include "base/thread_pool.h"
#include "io/gguf.h"
#include "kernels/kernel_table.h"

namespace pocketvlm {

// What every forward pass needs besides its weights.
struct Compute {
    const KernelTable& kernels;
    ThreadPool& pool;
};

// Calls task(first, count) for blocks of at most `block` of `rows` rows, in parallel.
void for_row_blocks(ThreadPool& pool, int64_t rows, int64_t block,
                    const std::function<void(int64_t first, int64_t count)>& task);

// Types on disk unpack exactly into few packed types; only these have kernels.
enum class PackedType { f32, f16, bf16, i8, i4 };

// Whether products with such weights read quantised activations.
constexpr bool takes_i8_activations(PackedType type) {
    return type == PackedType::i8 || type == PackedType::i4;
}

// Throws UnsupportedError, naming the file and the tensor, for a disk type that cannot run.
PackedType packed_type_of(const std::string& path, const GgufTensor& tensor);

// A weight matrix [n, k] in panels of nr rows of W, in the layout of kernels/gemm/gemm.h.
struct PackedWeight {
    PackedType type = PackedType::f32;
    int64_t n = 0;
    int64_t k = 0;
    AlignedBuffer<std::byte> panels;
};

// Bytes that a tensor of ne[0] = k and num_rows() = n takes once packed.
size_t packed_bytes(PackedType type, const GgufTensor& tensor, const KernelTable& kernels);

// Packs a tensor in parallel. `type` is its packed_type_of. `packed` hears of each piece of the tensor's
// stored bytes once it is no longer needed.
PackedWeight pack_weight(PackedType type, const GgufTensor& tensor, const Compute& compute,
                         const std::function<void(const uint8_t* bytes, size_t count)>& packed = {});

struct Linear;

// Rows of activations, as float32 and, once quantised, as int8. Holds its own memory, which grows and is
// kept.
class Activations {
  public:
    // x: [rows, k], k being that of the products that will use it; it has to stay. Quantises in parallel if
    // one of them has int8 weights.
    void set(const Compute& compute, std::initializer_list<const Linear*> users, const float* x,
             int64_t rows);

    const float* x() const noexcept { return x_; }
    int64_t rows() const noexcept { return rows_; }
    // Rows first .. first + count - 1, when one of the users has int8 weights.
    I8Rows i8(int64_t first, int64_t count) const noexcept;

  private:
    const float* x_ = nullptr;
    int64_t rows_ = 0;
    int64_t num_blocks_ = 0;
    AlignedBuffer<int8_t> values_;
    AlignedBuffer<float> scales_;
    AlignedBuffer<int32_t> sums_;
};

struct Linear {
    PackedWeight weight;
    std::vector<float> bias;  // [n], or empty

    // y [rows, n] = x W^T + b, or y += that; x.set() was called with this product among its users. Every
    // result is summed by one thread in one order, whatever the number of threads.
    void run(const Compute& compute, const Activations& x, float* y, bool accumulate = false) const;
};

}  // namespace pocketvlm
