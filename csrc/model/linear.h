// y = x W^T + b: weights packed for one row of the kernel table, activations quantised when the weights are.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <memory>
#include <string>
#include <vector>

#include "base/aligned_buffer.h"
#include "base/arena.h"
#include "base/thread_pool.h"
#include "io/gguf.h"
#include "kernels/kernel_table.h"

namespace pocketvlm {

// What products with weights in 8 or 4 bits are computed in: in int8, blocks of 32 activations having a scale
// each; in bfloat16, sums being float32; or, automatic, in what is faster on this row of the kernel table for
// that many rows of activations. Asked for bfloat16, products with weights in floats are computed in it too.
enum class Arithmetic { automatic, int8, bf16 };
// "auto", "int8" or "bf16". Throws InputError for another name.
Arithmetic arithmetic_named(const std::string& name);

// What every forward pass needs besides its weights.
struct Compute {
    const KernelTable& kernels;
    ThreadPool& pool;
    Arithmetic arithmetic = Arithmetic::automatic;
};

// Calls task(first, count) for blocks of at most `block` of `rows` rows, in parallel.
void for_row_blocks(ThreadPool& pool, int64_t rows, int64_t block,
                    FunctionRef<void(int64_t first, int64_t count)> task);

// Types on disk unpack exactly into few packed types; only these have kernels. bf16_pairs are weights as
// products in bfloat16 read them, rounded: others become so again and again, a few panels at a time. affine,
// for the types that fit none of the others, are 8 bits with scales and an offset, and become float32 so.
enum class PackedType { f32, f16, bf16, i8, i4, affine, bf16_pairs };

// What a product reads its activations as.
enum class ActivationType { f32, i8, bf16 };
const char* name_of(ActivationType type) noexcept;  // "f32", "int8" or "bf16"
ActivationType activation_type(const Compute& compute, PackedType weight, int64_t rows);
// Whether attention beside products with such weights is in bfloat16: where the products are, and where it is
// faster so and weights have 8 bits or fewer, beside whose rounding that of attention does not show.
bool attends_in_bf16(const Compute& compute, PackedType weight, int64_t rows);

// Throws UnsupportedError, naming the file and the tensor, for a disk type that cannot run.
PackedType packed_type_of(const std::string& path, const GgufTensor& tensor);
// The packed type of weights that only ever meet that many rows: bf16_pairs if the product is in bfloat16. So
// it is, left to itself, for weights of 16 bits among others of 8 or fewer, beside whose rounding that to
// bfloat16 does not show: rows of a length that blocks do not divide are stored so.
PackedType packed_for_rows(const Compute& compute, PackedType type, int64_t rows, bool among_blocks);

// A weight matrix [n, k] in panels of nr rows of W, in the layout of kernels/gemm/gemm.h.
struct PackedWeight {
    PackedType type = PackedType::f32;
    int64_t n = 0;
    int64_t k = 0;
    std::shared_ptr<const std::byte> panels;
};

// Bytes that a tensor of ne[0] = k and num_rows() = n takes once packed.
size_t packed_bytes(PackedType type, const GgufTensor& tensor, const KernelTable& kernels);

// Packs a tensor in parallel, into memory of `arena`. `type` is its packed_type_of, or bf16_pairs. `packed`
// hears of each piece of the tensor's stored bytes once it is no longer needed.
PackedWeight pack_weight(PackedType type, const GgufTensor& tensor, const Compute& compute, Arena& arena,
                         const std::function<void(const uint8_t* bytes, size_t count)>& packed = {});

struct Linear;
struct Product;
struct ResultBlock;

// Returns where the k values of row r are; `room` has place for them.
using RowMaker = FunctionRef<const float*(int64_t r, float* room)>;

// Rows of activations in the types that the products with them read. Holds its own memory, which grows and is
// kept.
class Activations {
  public:
    // Rows of k values, k being that of the products that will use them. Makes each row once, in parallel,
    // and turns it into what those products read while it is in the cache.
    void set(const Compute& compute, std::initializer_list<const Linear*> users, int64_t rows,
             RowMaker make_row);

    // The same in parts, in any order and by any thread: room for rows, then values column .. column + count
    // - 1 of row r. Where a part begins and, but for a row's last, where it ends, is a multiple of
    // kI8Block.
    void begin(const Compute& compute, std::initializer_list<const Linear*> users, int64_t rows);
    void store(const Compute& compute, int64_t r, int64_t column, const float* values,
               int64_t count) noexcept;

    // Room for rows of k values that are made in bfloat16, [rows, bf16_padded(k)], zero behind k: for
    // products that read them so.
    BFloat16* make_bf16(int64_t rows, int64_t k);

    int64_t rows() const noexcept { return rows_; }
    // Rows first, first + 1 ...: there if one of the users reads them so.
    const float* f32(int64_t first) const noexcept { return f32_.data() + first * k_; }
    const BFloat16* bf16(int64_t first) const noexcept { return bf16_.data() + first * bf16_padded(k_); }
    I8Rows i8(int64_t first, int64_t count) const noexcept;

    // Room for panels of weights in bfloat16, while they are multiplied.
    BFloat16* panels(int64_t size) {
        panels_.grow(static_cast<size_t>(size));
        return panels_.data();
    }

    // Room for results in float32, while they are made into something else.
    float* results(int64_t size) {
        results_.grow(static_cast<size_t>(size));
        return results_.data();
    }

    size_t bytes() const noexcept {
        return room_.bytes() + results_.bytes() + f32_.bytes() + bf16_.bytes() + values_.bytes() +
               scales_.bytes() + sums_.bytes() + panels_.bytes();
    }

  private:
    int64_t rows_ = 0;
    int64_t k_ = 0;
    int64_t num_blocks_ = 0;
    bool reads_f32_ = false, reads_i8_ = false, reads_bf16_ = false;
    AlignedBuffer<float> room_;  // a row for each task
    AlignedBuffer<float> results_;
    AlignedBuffer<float> f32_;      // [rows, k]
    AlignedBuffer<BFloat16> bf16_;  // [rows, bf16_padded(k)]
    AlignedBuffer<int8_t> values_;
    AlignedBuffer<float> scales_;
    AlignedBuffer<int32_t> sums_;
    AlignedBuffer<BFloat16> panels_;
};

struct Linear {
    PackedWeight weight;
    std::vector<float> bias;  // [n], or empty

    // y [rows, n] = x W^T + b, or y += that; x.set() was called with this product among its users. Every
    // result is summed by one thread in one order, whatever the number of threads.
    void run(const Compute& compute, Activations& x, float* y, bool accumulate = false) const;

    // y [rows, y_stride] = x W^T + b, or GELU of that, rounded to bfloat16: where that is what x is read as.
    void run_bf16(const Compute& compute, Activations& x, BFloat16* y, int64_t y_stride,
                  bool gelu_tanh = false) const;

  private:
    friend void run_side_by_side(const Compute&, Activations&, std::initializer_list<Product>);
    friend void run_in_blocks(const Compute&, Activations&, std::initializer_list<const Linear*>,
                              FunctionRef<void(const ResultBlock&)>);

    // In float32 and int8, work comes in tasks of one panel and some rows.
    int64_t num_tasks(const Compute& compute, int64_t rows) const;
    // y: of the first row and the panel's first column.
    GemmOutput panel_output(const Compute& compute, int64_t panel_index, float* y, int64_t y_stride,
                            bool accumulate) const;
    void multiply_panel(const Compute& compute, const Activations& x, int64_t panel_index, int64_t row,
                        int64_t rows, const GemmOutput& output) const;
    void run_task(const Compute& compute, const Activations& x, float* y, bool accumulate,
                  int64_t task) const;
    // output: of the first column and row.
    void multiply_bf16(const Compute& compute, Activations& x, const GemmBf16Output& output) const;
};

struct Product {
    const Linear* linear;
    float* y;
};

// Several products with the same activations, in one parallel region: a single row's are short.
void run_side_by_side(const Compute& compute, Activations& x, std::initializer_list<Product> products);

// Rows first_row .. and columns first_column .. of what products of one size give, while they are in the
// cache. first_column is a multiple of kI8Block.
constexpr int kMostProducts = 3;
struct ResultBlock {
    int64_t first_row, rows;
    int64_t first_column, columns;
    float* y[kMostProducts];  // a product's [rows, stride]; may be overwritten
    int64_t stride;
};

// Hands the results of up to kMostProducts products with the same activations on in blocks, which cover them
// once, from several threads: they are never in memory as a whole, but where products are in bfloat16.
void run_in_blocks(const Compute& compute, Activations& x, std::initializer_list<const Linear*> products,
                   FunctionRef<void(const ResultBlock&)> use);

}  // namespace pocketvlm
