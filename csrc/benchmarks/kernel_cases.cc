#include "benchmarks/kernel_cases.h"

#include <algorithm>
#include <memory>
#include <vector>

#include "base/arena.h"
#include "model/attention.h"
#include "model/bf16_attention.h"
#include "model/resize_table.h"

namespace pocketvlm {
namespace {

constexpr int64_t kRowBlock = 96;  // rows of activations per task of a product, as model/linear.cc has it
constexpr int64_t kRowBlockBf16 = 256;
constexpr int64_t kAffineStretch = 128;  // of k, made float32 at a time, as model/linear.cc has it
constexpr int64_t kShortRows = 16;       // of kernels that go over a row once
constexpr int64_t kQueryRows = 48;       // per task of an attention, as model/vision_encoder.cc has it
constexpr int64_t kQueryRowsBf16 = 128;

constexpr int64_t ceil_divide(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Bytes that are small positive numbers as float32, float16, bfloat16, int8 and pixels, and not all alike.
constexpr unsigned char varied_byte(size_t i) { return static_cast<unsigned char>(0x38 + i * i / 3 % 4); }

// `size` elements, as often as memory_bytes hold them, so that the next turn finds others.
template <typename T>
class Turns {
  public:
    Turns(int64_t size, int64_t memory_bytes)
        : stride_(ceil_divide(size * static_cast<int64_t>(sizeof(T)), 64) * 64),
          count_(std::max<int64_t>(1, memory_bytes / stride_)),
          bytes_(Arena().allocate(static_cast<size_t>(count_ * stride_))) {
        for (size_t i = 0; i < static_cast<size_t>(count_ * stride_); ++i)
            bytes_.get()[i] = std::byte{varied_byte(i)};
    }

    T* of(int64_t turn) const noexcept {
        return reinterpret_cast<T*>(bytes_.get() + turn % count_ * stride_);
    }
    void fill(T value) const noexcept {
        std::fill_n(of(0), static_cast<size_t>(count_ * stride_) / sizeof(T), value);
    }

  private:
    int64_t stride_;
    int64_t count_;
    std::shared_ptr<std::byte> bytes_;
};

// ---- Products: x [m, k], weights [n, k].

struct Product {
    KernelShape shape;
    int nr;
    Turns<std::byte> panels;
    Turns<float> x, y;
    int64_t panel_bytes;

    Product(const KernelShape& s, int columns, int64_t bytes, int64_t memory_bytes)
        : shape(s),
          nr(columns),
          panels(ceil_divide(s.n, columns) * bytes, memory_bytes),
          x(s.m * s.k, 0),
          y(s.m * s.n, 0),
          panel_bytes(bytes) {}

    // run(panel, first row, rows, output)
    template <typename Run>
    PreparedKernel prepared(const Run& run, int64_t block = kRowBlock) const {
        const int64_t row_blocks = ceil_divide(shape.m, block), num_panels = ceil_divide(shape.n, nr);
        const auto task = [product = *this, row_blocks, block, run](int64_t i, int64_t turn) {
            const KernelShape& s = product.shape;
            const int64_t row = i % row_blocks * block, column = i / row_blocks * product.nr;
            const GemmOutput output{product.y.of(0) + row * s.n + column, s.n,
                                    std::min<int64_t>(product.nr, s.n - column), nullptr, false};
            run(product.panels.of(turn) + i / row_blocks * product.panel_bytes, row,
                std::min(block, s.m - row), output);
        };
        const auto m = static_cast<double>(shape.m), n = static_cast<double>(shape.n);
        return {num_panels * row_blocks, task, static_cast<double>(num_panels * panel_bytes),
                2 * m * n * static_cast<double>(shape.k)};
    }
};

PreparedKernel float_product(GemmFloat* run, int nr, int64_t weight_bytes, const KernelShape& shape,
                             int64_t memory_bytes) {
    const Product product(shape, nr, shape.k * nr * weight_bytes, memory_bytes);
    return product.prepared([run, x = product.x, k = shape.k](const std::byte* panel, int64_t row,
                                                              int64_t rows, const GemmOutput& output) {
        run(x.of(0) + row * k, k, rows, panel, k, output);
    });
}

PreparedKernel block_product(GemmI8* run, int nr, int64_t block_bytes, const KernelShape& shape,
                             int64_t memory_bytes) {
    const int64_t blocks = ceil_divide(shape.k, kI8Block);
    const Product product(shape, nr, blocks * block_bytes, memory_bytes);
    const Turns<int8_t> values(shape.m * blocks * kI8Block, 0);
    const Turns<float> scales(shape.m * blocks, 0);
    const Turns<int32_t> sums(shape.m * blocks, 0);
    return product.prepared([=](const std::byte* panel, int64_t row, int64_t rows, const GemmOutput& output) {
        run({values.of(0) + row * blocks * kI8Block, scales.of(0) + row * blocks, sums.of(0) + row * blocks,
             rows, blocks},
            panel, output);
    });
}

PreparedKernel gemm_f32(const KernelTable& kernels, const KernelShape& shape, int64_t memory_bytes) {
    return float_product(kernels.gemm_f32, kernels.gemm_nr, 4, shape, memory_bytes);
}
PreparedKernel gemm_f16(const KernelTable& kernels, const KernelShape& shape, int64_t memory_bytes) {
    return float_product(kernels.gemm_f16, kernels.gemm_nr, 2, shape, memory_bytes);
}
PreparedKernel gemm_bf16(const KernelTable& kernels, const KernelShape& shape, int64_t memory_bytes) {
    return float_product(kernels.gemm_bf16, kernels.gemm_nr, 2, shape, memory_bytes);
}
PreparedKernel gemm_i8(const KernelTable& kernels, const KernelShape& shape, int64_t memory_bytes) {
    return block_product(kernels.gemm_i8, kernels.gemm_nr, i8_panel_block_bytes(kernels.gemm_nr), shape,
                         memory_bytes);
}
PreparedKernel gemm_i4(const KernelTable& kernels, const KernelShape& shape, int64_t memory_bytes) {
    return block_product(kernels.gemm_i4, kernels.gemm_nr, i4_panel_block_bytes(kernels.gemm_nr), shape,
                         memory_bytes);
}

PreparedKernel gemm_bf16_bf16(const KernelTable& kernels, const KernelShape& shape, int64_t memory_bytes) {
    const int64_t k = bf16_padded(shape.k), nr = kernels.gemm_nr;
    const Product product(shape, kernels.gemm_nr, k * nr * 2, memory_bytes);
    const Turns<BFloat16> x(shape.m * k, 0);
    return product.prepared(
        [=, run = kernels.bf16->gemm_bf16_bf16](const std::byte* panel, int64_t row, int64_t rows,
                                                const GemmOutput& output) {
            run(x.of(0) + row * k, k, rows, reinterpret_cast<const BFloat16*>(panel), k, {output});
        },
        kRowBlockBf16);
}

// A weight [n, k] in bfloat16, from panels that take `bytes` as they are stored.
PreparedKernel panel_to_bf16(PanelToBf16* run, int64_t bytes, const KernelTable& kernels,
                             const KernelShape& shape, int64_t memory_bytes) {
    const int64_t k = shape.k, size = bf16_padded(k) * kernels.gemm_nr;
    const int64_t num_panels = ceil_divide(shape.n, kernels.gemm_nr);
    const Turns<std::byte> panels(num_panels * bytes, memory_bytes);
    const Turns<BFloat16> result(num_panels * size, 0);
    const auto task = [=](int64_t i, int64_t turn) {
        run(panels.of(turn) + i * bytes, k, result.of(0) + i * size);
    };
    return {num_panels, task, static_cast<double>(num_panels * bytes),
            static_cast<double>(num_panels * size)};
}

template <PanelToBf16* Bf16Kernels::* kernel, int64_t weight_bytes>
PreparedKernel float_panel_to_bf16(const KernelTable& kernels, const KernelShape& shape,
                                   int64_t memory_bytes) {
    return panel_to_bf16(kernels.bf16->*kernel, shape.k * kernels.gemm_nr * weight_bytes, kernels, shape,
                         memory_bytes);
}

template <PanelToBf16* Bf16Kernels::* kernel, int64_t (*block_bytes)(int nr)>
PreparedKernel block_panel_to_bf16(const KernelTable& kernels, const KernelShape& shape,
                                   int64_t memory_bytes) {
    return panel_to_bf16(kernels.bf16->*kernel, ceil_divide(shape.k, kI8Block) * block_bytes(kernels.gemm_nr),
                         kernels, shape, memory_bytes);
}

// A weight [n, k] in float32, a stretch at a time to the same place.
PreparedKernel dequantize_affine(const KernelTable& kernels, const KernelShape& shape, int64_t memory_bytes) {
    const int nr = kernels.gemm_nr;
    const int64_t blocks = ceil_divide(shape.k, kAffineBlockRows), step = kAffineStretch / kAffineBlockRows;
    const int64_t block_bytes = affine_panel_block_bytes(nr), panel_bytes = blocks * block_bytes;
    const int64_t num_panels = ceil_divide(shape.n, nr), stretch = kAffineStretch * nr;
    const Turns<std::byte> panels(num_panels * panel_bytes, memory_bytes);
    const Turns<float> weights(num_panels * stretch, 0);
    const auto task = [=, run = kernels.dequantize_affine](int64_t i, int64_t turn) {
        const std::byte* const panel = panels.of(turn) + i * panel_bytes;
        for (int64_t block = 0; block < blocks; block += step) {
            run(panel + block * block_bytes, std::min(step, blocks - block), weights.of(0) + i * stretch);
        }
    };
    return {num_panels, task, static_cast<double>(num_panels * panel_bytes),
            2.0 * static_cast<double>(num_panels * blocks * kAffineBlockRows * nr)};
}

// ---- Rows [m, k]. `operations` counts each step of the contract's formula, functions as one.

template <typename Run>
PreparedKernel rows(const KernelShape& shape, double bytes, double operations, const Run& run) {
    const auto task = [m = shape.m, run](int64_t i, int64_t turn) {
        for (int64_t r = i * kShortRows; r < std::min(m, (i + 1) * kShortRows); ++r) run(r, turn);
    };
    const double values = static_cast<double>(shape.m) * static_cast<double>(shape.k);
    return {ceil_divide(shape.m, kShortRows), task, bytes * values, operations * values};
}

PreparedKernel quantize_row_i8(const KernelTable& kernels, const KernelShape& shape, int64_t memory_bytes) {
    const int64_t k = shape.k, blocks = ceil_divide(k, kI8Block);
    const Turns<float> x(shape.m * k, memory_bytes), scales(shape.m * blocks, 0);
    const Turns<int8_t> values(shape.m * blocks * kI8Block, 0);
    const Turns<int32_t> sums(shape.m * blocks, 0);
    return rows(shape, 4, 5, [=, run = kernels.quantize_row_i8](int64_t r, int64_t turn) {
        run(x.of(turn) + r * k, k, values.of(0) + r * blocks * kI8Block, scales.of(0) + r * blocks,
            sums.of(0) + r * blocks);
    });
}

template <typename T>
PreparedKernel row_to_bf16(RowToBf16<T>* run, const KernelShape& shape, int64_t memory_bytes) {
    const int64_t k = shape.k;
    const Turns<T> x(shape.m * k, memory_bytes);
    const Turns<BFloat16> y(shape.m * bf16_padded(k), 0);
    return rows(shape, sizeof(T), 0,
                [=](int64_t r, int64_t turn) { run(x.of(turn) + r * k, k, y.of(0) + r * bf16_padded(k)); });
}

template <auto kernel>
PreparedKernel row_to_bf16(const KernelTable& kernels, const KernelShape& shape, int64_t memory_bytes) {
    return row_to_bf16(kernels.bf16->*kernel, shape, memory_bytes);
}

PreparedKernel layer_norm(const KernelTable& kernels, const KernelShape& shape, int64_t memory_bytes) {
    const int64_t k = shape.k;
    const Turns<float> x(shape.m * k, memory_bytes), y(shape.m * k, 0), weight(k, 0), bias(k, 0);
    return rows(shape, 4, 7, [=, run = kernels.layer_norm](int64_t r, int64_t turn) {
        run(x.of(turn) + r * k, weight.of(0), bias.of(0), 1e-6f, k, y.of(0) + r * k);
    });
}

PreparedKernel rms_norm(const KernelTable& kernels, const KernelShape& shape, int64_t memory_bytes) {
    const int64_t k = shape.k;
    const Turns<float> x(shape.m * k, memory_bytes), y(shape.m * k, 0), weight(k, 0);
    return rows(shape, 4, 4, [=, run = kernels.rms_norm](int64_t r, int64_t turn) {
        run(x.of(turn) + r * k, weight.of(0), 1e-5f, k, y.of(0) + r * k);
    });
}

// Both work in place: they find values that they leave as they are, or repeated turns would end in zeros; and
// of which nothing underflows, which is slow.
PreparedKernel gelu_tanh(const KernelTable& kernels, const KernelShape& shape, int64_t memory_bytes) {
    const int64_t k = shape.k;
    const Turns<float> x(shape.m * k, memory_bytes);
    x.fill(6.0f);
    return rows(shape, 8, 9,
                [=, run = kernels.gelu_tanh](int64_t r, int64_t turn) { run(x.of(turn) + r * k, k); });
}

PreparedKernel silu_mul(const KernelTable& kernels, const KernelShape& shape, int64_t memory_bytes) {
    const int64_t k = shape.k;
    const Turns<float> gate(shape.m * k, memory_bytes / 2), up(shape.m * k, memory_bytes / 2);
    gate.fill(20.0f);
    up.fill(1.0f);
    return rows(shape, 12, 5, [=, run = kernels.silu_mul](int64_t r, int64_t turn) {
        run(gate.of(turn) + r * k, up.of(turn) + r * k, k);
    });
}

// m heads of size k.
PreparedKernel rope_interleaved(const KernelTable& kernels, const KernelShape& shape, int64_t memory_bytes) {
    const int64_t k = shape.k;
    const Turns<float> x(shape.m * k, memory_bytes), cosine(k / 2, 0), sine(k / 2, 0);
    cosine.fill(1.0f);
    sine.fill(0.0f);
    return rows(shape, 8, 4, [=, run = kernels.rope_interleaved](int64_t r, int64_t turn) {
        run(x.of(turn) + r * k, cosine.of(0), sine.of(0), k, 1.0f);
    });
}

PreparedKernel f32_to_f16(const KernelTable& kernels, const KernelShape& shape, int64_t memory_bytes) {
    const int64_t k = shape.k;
    const Turns<float> x(shape.m * k, memory_bytes);
    x.fill(1.0f);
    const Turns<Float16> y(shape.m * k, memory_bytes / 2);
    return rows(shape, 6, 1, [=, run = kernels.f32_to_f16](int64_t r, int64_t turn) {
        run(x.of(turn) + r * k, k, y.of(turn) + r * k);
    });
}

// ---- Attention: m query rows of each head of size k over n keys.

template <typename T>
PreparedKernel attention(const KernelTable& kernels, const KernelShape& shape, int64_t memory_bytes) {
    const int64_t d = shape.k, blocks = ceil_divide(shape.n, kKeyBlock);
    const int64_t block_size = kKeyBlock * (d + padded_head_dim(d));
    const Turns<T> keys_values(shape.heads * blocks * block_size, memory_bytes);
    const int64_t chunks = ceil_divide(shape.m, kQueryRows);
    const auto task = [=, &kernels](int64_t i, int64_t turn) {
        const int64_t num_rows = std::min(kQueryRows, shape.m - i % chunks * kQueryRows);
        AttentionTask attention(num_rows, d);
        std::fill_n(attention.q(0), num_rows * d, 0.125f);
        const T* head = keys_values.of(turn) + i / chunks * blocks * block_size;
        for (int64_t b = 0; b < blocks; ++b) {
            const T* block = head + b * block_size;
            attention.fold(kernels, KeyValueBlock<T>{block, block + kKeyBlock * d}, b * kKeyBlock,
                           [&](int64_t) { return shape.n; });
        }
    };
    const double rows = static_cast<double>(shape.m * shape.heads);
    return {shape.heads * chunks, task, static_cast<double>(shape.heads * blocks * block_size) * sizeof(T),
            4 * rows * static_cast<double>(shape.n * d)};
}

// Each head has its keys and values once, for all query rows.
PreparedKernel attend_block_bf16(const KernelTable& kernels, const KernelShape& shape, int64_t memory_bytes) {
    const int64_t d = shape.k, blocks = ceil_divide(shape.n, kKeyBlock);
    const Bf16BlockShape shape_of(d);
    const int64_t size = shape_of.size();
    const Turns<BFloat16> q(kQueryRowsBf16 * shape_of.key_dim, 0);
    const Turns<BFloat16> keys_values(shape.heads * blocks * size, memory_bytes);
    const int64_t chunks = ceil_divide(shape.m, kQueryRowsBf16);
    const auto task = [=, &kernels](int64_t i, int64_t turn) {
        const int64_t num_rows = std::min(kQueryRowsBf16, shape.m - i % chunks * kQueryRowsBf16);
        Bf16AttentionTask attention(*kernels.bf16, num_rows, d, {q.of(0), shape_of.key_dim, 0.125f});
        const BFloat16* head = keys_values.of(turn) + i / chunks * blocks * size;
        for (int64_t b = 0; b < blocks; ++b)
            attention.fold(head + b * size, b * kKeyBlock, [&](int64_t) { return shape.n; });
    };
    const double rows = static_cast<double>(shape.m * shape.heads);
    return {shape.heads * chunks, task, static_cast<double>(shape.heads * blocks * size) * sizeof(BFloat16),
            4 * rows * static_cast<double>(shape.n * d)};
}

// ---- Images.

// k source rows of n pixels to m.
PreparedKernel resize_columns_u8(const KernelTable& kernels, const KernelShape& shape, int64_t memory_bytes) {
    const int64_t n = shape.n, stride = n + 2 * kRowPadding;
    const auto table = resize_table(Axis::columns, shape.k, shape.m, ResizeFilter::lanczos, kernels);
    const Turns<uint8_t> source(shape.k * stride, memory_bytes), result(shape.m * stride, 0);
    const auto task = [=, m = shape.m, run = kernels.resize_columns_u8](int64_t i, int64_t turn) {
        const ResizeTable::Pair pair = table->pair(i);
        std::vector<const uint8_t*> in(static_cast<size_t>(pair.count));
        for (int32_t r = 0; r < pair.count; ++r)
            in[static_cast<size_t>(r)] = source.of(turn) + kRowPadding + (pair.first + r) * stride;
        uint8_t* first = result.of(0) + 2 * i * stride;
        uint8_t* const out[] = {first, first + (2 * i + 1 < m ? stride : 0)};
        run(in.data(), pair.weights, pair.count, n, out);
    };
    double taps = 0;
    for (int64_t i = 0; i < shape.m; ++i) taps += table->taps().count[i];
    return {ceil_divide(shape.m, 2), task, static_cast<double>(shape.k * n),
            2 * taps * static_cast<double>(n)};
}

// m rows of k pixels to n. With `gathered`, by the kernel that is taken where taps fit it.
template <bool gathered>
PreparedKernel resize_rows(const KernelTable& kernels, const KernelShape& shape, int64_t memory_bytes) {
    const int64_t in_stride = shape.k + 2 * kRowPadding, out_stride = shape.n + kRowPadding;
    const auto table = resize_table(Axis::rows, shape.k, shape.n, ResizeFilter::lanczos, kernels);
    const Turns<uint8_t> source(shape.m * in_stride, memory_bytes), result(shape.m * out_stride, 0);
    const auto task = [=, run = kernels.resize_row_u8](int64_t i, int64_t turn) {
        const uint8_t* in[kGatherRows];
        uint8_t* out[kGatherRows];
        for (int r = 0; r < kGatherRows; ++r) {
            const int64_t row = std::min(shape.m - 1, i * kGatherRows + r);
            in[r] = source.of(turn) + kRowPadding + row * in_stride;
            out[r] = result.of(0) + row * out_stride;
        }
        if (gathered && table->gather() != nullptr) {
            table->gather()->run(in, kGatherRows, table->packed(), out);
        } else {
            for (int r = 0; r < kGatherRows; ++r) run(in[r], table->taps(), out[r]);
        }
    };
    double taps = 0;
    for (int64_t i = 0; i < shape.n; ++i) taps += table->taps().count[i];
    return {ceil_divide(shape.m, kGatherRows), task, static_cast<double>(shape.k * shape.m),
            2 * taps * static_cast<double>(shape.m)};
}

// m rows of patches of k by k pixels, three channels, n pixels wide.
template <typename T>
PreparedKernel center_patches(CenterPatches<T>* run, const KernelShape& shape, int64_t memory_bytes) {
    const int64_t k = shape.k, n = shape.n, patches = n / k, patch = 3 * k * k;
    const Turns<uint8_t> source(3 * shape.m * k * n, memory_bytes);
    const Turns<T> result(shape.m * patches * patch, 0);
    const auto task = [=](int64_t i, int64_t turn) {
        std::vector<const uint8_t*> in(static_cast<size_t>(k));
        for (int64_t channel = 0; channel < 3; ++channel) {
            for (int64_t r = 0; r < k; ++r)
                in[static_cast<size_t>(r)] = source.of(turn) + ((i * 3 + channel) * k + r) * n;
            run(in.data(), 0, patches, k, patch, result.of(0) + i * patches * patch + channel * k * k);
        }
    };
    const auto values = static_cast<double>(3 * shape.m * k * n);
    return {shape.m, task, values, 2 * values};
}

PreparedKernel center_patches_bf16(const KernelTable& kernels, const KernelShape& shape,
                                   int64_t memory_bytes) {
    return center_patches(kernels.center_patches_bf16, shape, memory_bytes);
}
PreparedKernel center_patches_f32(const KernelTable& kernels, const KernelShape& shape,
                                  int64_t memory_bytes) {
    return center_patches(kernels.center_patches_f32, shape, memory_bytes);
}

// m rows of n pixels. pixel_bytes: of the source; run(source row, rows of the result).
template <typename Run>
PreparedKernel unpack(const KernelShape& shape, double pixel_bytes, int64_t row_bytes, int64_t memory_bytes,
                      const Run& run) {
    const int64_t stride = shape.n + kRowPadding;
    const Turns<uint8_t> source(shape.m * row_bytes, memory_bytes), result(3 * shape.m * stride, 0);
    const auto task = [=](int64_t i, int64_t turn) {
        uint8_t* r = result.of(0) + 3 * i * stride;
        run(source.of(turn) + i * row_bytes, PlaneRows{r, r + stride, r + 2 * stride});
    };
    return {shape.m, task, pixel_bytes * static_cast<double>(shape.m * shape.n), 0};
}

PreparedKernel unpack_rgb(const KernelTable& kernels, const KernelShape& shape, int64_t memory_bytes) {
    return unpack(shape, 3, 3 * shape.n, memory_bytes,
                  [run = kernels.unpack_rgb, n = shape.n](const uint8_t* source, const PlaneRows& out) {
                      run(source, n, out);
                  });
}
PreparedKernel unpack_rgba(const KernelTable& kernels, const KernelShape& shape, int64_t memory_bytes) {
    return unpack(shape, 4, 4 * shape.n, memory_bytes,
                  [run = kernels.unpack_rgba, n = shape.n](const uint8_t* source, const PlaneRows& out) {
                      run(source, n, out);
                  });
}
PreparedKernel unpack_yuv420(const KernelTable& kernels, const KernelShape& shape, int64_t memory_bytes) {
    return unpack(shape, 1.5, 2 * shape.n, memory_bytes,
                  [run = kernels.unpack_yuv420, n = shape.n](const uint8_t* source, const PlaneRows& out) {
                      constexpr YuvMatrix kBt601{16, 9539, 13075, -3209, -6660, 16525};
                      run(source, source + n, source + n + n / 2, 1, kBt601, n, out);
                  });
}

// ---- The shapes of SmolVLM-256M.

const std::vector<KernelShape> kProducts{
    {"decode: q, o", 1, 576, 576},         {"decode: gate, up", 1, 576, 1536},
    {"decode: down", 1, 1536, 576},        {"decode: head", 1, 576, 49280},
    {"prefill: gate, up", 512, 576, 1536}, {"vision: q, k, v, out", 1024, 768, 768},
    {"vision: fc1", 1024, 768, 3072},      {"vision: fc2", 1024, 3072, 768},
};
const std::vector<KernelShape> kManyRows{
    {"prefill: q, o", 512, 576, 576},  {"prefill: gate, up", 512, 576, 1536},
    {"prefill: down", 512, 1536, 576}, {"vision: q, k, v, out", 1024, 768, 768},
    {"vision: fc1", 1024, 768, 3072},  {"vision: fc2", 1024, 3072, 768},
};
const std::vector<KernelShape> kWeights{{"vision: fc1", 0, 768, 3072}};
const std::vector<KernelShape> kPatchRows{{"vision: patches of a tile", 32, 16, 512}};
const std::vector<KernelShape> kPhoto{{"preprocess: photo", 1152, 0, 1536}};

}  // namespace

const std::vector<KernelCase>& kernel_cases() {
    static const std::vector<KernelCase> cases{
        {"gemm_f32", "fp32", gemm_f32, kProducts},
        {"gemm_f16", "fp32", gemm_f16, kProducts},
        {"gemm_bf16", "fp32", gemm_bf16, kProducts},
        {"gemm_i8", "int8", gemm_i8, kProducts},
        {"gemm_i4", "int8", gemm_i4, kProducts},
        {"gemm_bf16_bf16", "bf16", gemm_bf16_bf16, kManyRows, true},
        {"dequantize_affine", "", dequantize_affine, kWeights},
        {"panel_f32_to_bf16", "", float_panel_to_bf16<&Bf16Kernels::panel_f32_to_bf16, 4>, kWeights, true},
        {"panel_f16_to_bf16", "", float_panel_to_bf16<&Bf16Kernels::panel_f16_to_bf16, 2>, kWeights, true},
        {"panel_bf16_to_bf16", "", float_panel_to_bf16<&Bf16Kernels::panel_bf16_to_bf16, 2>, kWeights, true},
        {"panel_i8_to_bf16", "", block_panel_to_bf16<&Bf16Kernels::panel_i8_to_bf16, i8_panel_block_bytes>,
         kWeights, true},
        {"panel_i4_to_bf16", "", block_panel_to_bf16<&Bf16Kernels::panel_i4_to_bf16, i4_panel_block_bytes>,
         kWeights, true},
        {"row_f32_to_bf16", "", row_to_bf16<&Bf16Kernels::row_f32_to_bf16>, {{"vision", 1024, 768, 0}}, true},
        {"row_f16_to_bf16",
         "",
         row_to_bf16<&Bf16Kernels::row_f16_to_bf16>,
         {{"prefill: keys", 8192, 128, 0}},
         true},
        {"quantize_row_i8", "fp32", quantize_row_i8, {{"decode", 1, 576, 0}, {"vision", 1024, 768, 0}}},
        {"attend_block_f32", "fp32", attention<float>, {{"vision", 1024, 64, 1024, 12}}},
        {"attend_block_f16",
         "fp32",
         attention<Float16>,
         {{"decode", 3, 64, 896, 3}, {"prefill", 384, 64, 896, 3}}},
        {"attend_block_bf16",
         "bf16",
         attend_block_bf16,
         {{"vision", 1024, 64, 1024, 12}, {"prefill", 384, 64, 896, 3}},
         true},
        {"layer_norm", "fp32", layer_norm, {{"vision", 1024, 768, 0}}},
        {"rms_norm", "fp32", rms_norm, {{"decode", 1, 576, 0}, {"prefill", 896, 576, 0}}},
        {"gelu_tanh", "fp32", gelu_tanh, {{"vision", 1024, 3072, 0}}},
        {"silu_mul", "fp32", silu_mul, {{"decode", 1, 1536, 0}, {"prefill", 896, 1536, 0}}},
        {"rope_interleaved", "fp32", rope_interleaved, {{"decode", 12, 64, 0}, {"prefill", 10752, 64, 0}}},
        {"f32_to_f16", "fp32", f32_to_f16, {{"decode", 3, 64, 0}, {"prefill", 2688, 64, 0}}},
        {"resize_row_u8", "", resize_rows<false>, {{"preprocess: wider", 1152, 1536, 2048}}},
        {"resize_gather", "", resize_rows<true>, {{"preprocess: wider", 1152, 1536, 2048}}},
        {"resize_columns_u8", "", resize_columns_u8, {{"preprocess: higher", 1536, 1152, 2048}}},
        {"center_patches_bf16", "", center_patches_bf16, kPatchRows},
        {"center_patches_f32", "", center_patches_f32, kPatchRows},
        {"unpack_rgb", "", unpack_rgb, kPhoto},
        {"unpack_rgba", "", unpack_rgba, kPhoto},
        {"unpack_yuv420", "", unpack_yuv420, kPhoto},
    };
    return cases;
}

}  // namespace pocketvlm
