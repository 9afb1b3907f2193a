#include "model/linear.h"

#include <algorithm>
#include <cstring>

#include "base/check.h"

namespace pocketvlm {
namespace {

// Rows of activations per task of a matrix product: a multiple of every kernel's register tile.
constexpr int64_t kRowBlock = 96;

constexpr int64_t ceil_divide(int64_t a, int64_t b) { return (a + b - 1) / b; }

size_t f32_panel_bytes(int64_t k, int nr) { return static_cast<size_t>(k) * nr * sizeof(float); }
size_t i8_panel_bytes(int64_t k, int nr) {
    return static_cast<size_t>(ceil_divide(k, kI8Block) * i8_panel_block_bytes(nr));
}

int panel_columns(PackedType type, const KernelTable& kernels) {
    return type == PackedType::i8 ? kernels.gemm_i8.nr : kernels.gemm_f32.nr;
}

size_t panel_bytes(PackedType type, int64_t k, const KernelTable& kernels) {
    const int nr = panel_columns(type, kernels);
    return type == PackedType::i8 ? i8_panel_bytes(k, nr) : f32_panel_bytes(k, nr);
}

// Fills one panel [k, nr] from rows first .. of the tensor; columns without a row are zero.
void pack_f32_panel(const GgufTensor& tensor, int64_t first, int nr, float* panel) {
    const int64_t k = tensor.ne[0];
    const size_t stride = static_cast<size_t>(row_bytes(tensor.type, k));
    std::vector<float> row(static_cast<size_t>(k));
    for (int c = 0; c < nr; ++c) {
        if (first + c < tensor.num_rows()) {
            dequantize_row(tensor.type, tensor.data + static_cast<size_t>(first + c) * stride, row.data(), k);
        } else {
            std::fill(row.begin(), row.end(), 0.0f);
        }
        for (int64_t i = 0; i < k; ++i) panel[i * nr + c] = row[static_cast<size_t>(i)];
    }
}

// Fills one panel of [k / 32] blocks from rows first .. of a q8_0 tensor; columns without a row have scale
// zero.
void pack_i8_panel(const GgufTensor& tensor, int64_t first, const GemmI8Kernel& kernel, std::byte* panel) {
    const int nr = kernel.nr;
    const int64_t num_blocks = tensor.ne[0] / kI8Block;
    const auto* rows = reinterpret_cast<const block_q8_0*>(tensor.data);
    constexpr block_q8_0 kZero{};
    for (int64_t b = 0; b < num_blocks; ++b) {
        std::byte* scales = panel + b * i8_panel_block_bytes(nr);
        std::byte* weights = scales + 2 * nr;
        for (int c = 0; c < nr; ++c) {
            const block_q8_0& block =
                first + c < tensor.num_rows() ? rows[(first + c) * num_blocks + b] : kZero;
            std::memcpy(scales + 2 * c, &block.d, sizeof block.d);
            for (int i = 0; i < kI8Block; ++i) {
                weights[(i / 4) * 4 * nr + 4 * c + i % 4] =
                    static_cast<std::byte>(block.qs[i] + kernel.weight_offset);
            }
        }
    }
}

}  // namespace

void for_row_blocks(ThreadPool& pool, int64_t rows, int64_t block,
                    const std::function<void(int64_t first, int64_t count)>& task) {
    pool.parallel_for(ceil_divide(rows, block),
                      [&](int64_t i) { task(i * block, std::min(block, rows - i * block)); });
}

PackedType packed_type_of(const std::string& path, const GgufTensor& tensor) {
    switch (tensor.type) {
        case QuantType::F32:
        case QuantType::F16:
        case QuantType::BF16:
            return PackedType::f32;
        case QuantType::Q8_0:
            return PackedType::i8;
        default:
            throw UnsupportedError(concat(path, ": tensor ", tensor.name, ": type ", traits(tensor.type).name,
                                          " cannot run, expected f32, f16, bf16 or q8_0"));
    }
}

size_t packed_bytes(PackedType type, const GgufTensor& tensor, const KernelTable& kernels) {
    const int64_t num_panels = ceil_divide(tensor.num_rows(), panel_columns(type, kernels));
    return static_cast<size_t>(num_panels) * panel_bytes(type, tensor.ne[0], kernels);
}

PackedWeight pack_weight(PackedType type, const GgufTensor& tensor, const Compute& compute) {
    PackedWeight packed;
    packed.type = type;
    packed.n = tensor.num_rows();
    packed.k = tensor.ne[0];
    packed.panels = AlignedBuffer<std::byte>(packed_bytes(type, tensor, compute.kernels));
    const int nr = panel_columns(packed.type, compute.kernels);
    const size_t stride = panel_bytes(packed.type, packed.k, compute.kernels);
    compute.pool.parallel_for(ceil_divide(packed.n, nr), [&](int64_t p) {
        std::byte* panel = packed.panels.data() + static_cast<size_t>(p) * stride;
        if (packed.type == PackedType::i8) {
            pack_i8_panel(tensor, p * nr, compute.kernels.gemm_i8, panel);
        } else {
            pack_f32_panel(tensor, p * nr, nr, reinterpret_cast<float*>(panel));
        }
    });
    return packed;
}

void Activations::set(const Compute& compute, std::initializer_list<const Linear*> users, const float* x,
                      int64_t rows) {
    x_ = x;
    rows_ = rows;
    if (std::none_of(users.begin(), users.end(),
                     [](const Linear* user) { return user->weight.type == PackedType::i8; })) {
        return;
    }
    const int64_t k = (*users.begin())->weight.k;
    num_blocks_ = ceil_divide(k, kI8Block);
    values_.grow(static_cast<size_t>(rows * num_blocks_ * kI8Block));
    scales_.grow(static_cast<size_t>(rows * num_blocks_));
    sums_.grow(static_cast<size_t>(rows * num_blocks_));
    for_row_blocks(compute.pool, rows, 16, [&](int64_t first, int64_t count) {
        for (int64_t r = first; r < first + count; ++r) {
            compute.kernels.quantize_row_i8(x + r * k, k, values_.data() + r * num_blocks_ * kI8Block,
                                            scales_.data() + r * num_blocks_, sums_.data() + r * num_blocks_);
        }
    });
}

I8Rows Activations::i8(int64_t first, int64_t count) const noexcept {
    return {values_.data() + first * num_blocks_ * kI8Block, scales_.data() + first * num_blocks_,
            sums_.data() + first * num_blocks_, count, num_blocks_};
}

void Linear::run(const Compute& compute, const Activations& x, float* y, bool accumulate) const {
    const KernelTable& kernels = compute.kernels;
    const int nr = panel_columns(weight.type, kernels);
    const size_t stride = panel_bytes(weight.type, weight.k, kernels);
    const int64_t row_blocks = ceil_divide(x.rows(), kRowBlock);
    // Row blocks of one panel follow each other, so that the panel stays in the cache.
    compute.pool.parallel_for(ceil_divide(weight.n, nr) * row_blocks, [&](int64_t task) {
        const int64_t column = task / row_blocks * nr;
        const int64_t row = task % row_blocks * kRowBlock;
        const int64_t rows = std::min(kRowBlock, x.rows() - row);
        const std::byte* panel = weight.panels.data() + static_cast<size_t>(task / row_blocks) * stride;
        const GemmOutput output{y + row * weight.n + column, weight.n,
                                std::min<int64_t>(nr, weight.n - column),
                                bias.empty() ? nullptr : bias.data() + column, accumulate};
        if (weight.type == PackedType::i8) {
            kernels.gemm_i8.run(x.i8(row, rows), panel, output);
        } else {
            kernels.gemm_f32.run(x.x() + row * weight.k, weight.k, rows,
                                 reinterpret_cast<const float*>(panel), weight.k, output);
        }
    });
}

}  // namespace pocketvlm
