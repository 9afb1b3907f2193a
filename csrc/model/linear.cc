#include "model/linear.h"

#include <algorithm>
#include <cstring>
#include <type_traits>

#include "base/check.h"
#include "quant/affine_block.h"

namespace pocketvlm {
namespace {

// Rows of activations per task of a matrix product: a multiple of every kernel's register tile.
constexpr int64_t kRowBlock = 96;

// In bfloat16: bytes of the activations that stay in a second-level cache while panel after panel meets them,
// and of the panels that are bfloat16 at a time while they are stored as something else.
constexpr int64_t kRowBlockBytes = int64_t{1} << 19;
constexpr int64_t kPanelsBytes = int64_t{1} << 20;
constexpr int64_t kRowTile = 32;

// Weights of no type with products become float32 for so much of k at a time.
constexpr int64_t kAffineStretch = 128;
constexpr int kMostColumns = 64;  // of a panel

// Rows that one task makes at least, where there are enough.
constexpr int64_t kRowsMade = 16;

// Stored bytes that are packed between two reports: what a tensor holds twice while it is packed.
constexpr size_t kSliceBytes = size_t{4} << 20;

constexpr int64_t ceil_divide(int64_t a, int64_t b) { return (a + b - 1) / b; }

const float* bias_or_null(const std::vector<float>& bias) { return bias.empty() ? nullptr : bias.data(); }

size_t panel_bytes(PackedType type, int64_t k, const KernelTable& kernels) {
    const int nr = kernels.gemm_nr;
    switch (type) {
        case PackedType::f32:
            return static_cast<size_t>(k * nr) * sizeof(float);
        case PackedType::f16:
        case PackedType::bf16:
            return static_cast<size_t>(k * nr) * sizeof(uint16_t);
        case PackedType::i8:
            return static_cast<size_t>(ceil_divide(k, kI8Block) * i8_panel_block_bytes(nr));
        case PackedType::i4:
            return static_cast<size_t>(ceil_divide(k, kI8Block) * i4_panel_block_bytes(nr));
        case PackedType::affine:
            return static_cast<size_t>(ceil_divide(k, kAffineBlockRows) * affine_panel_block_bytes(nr));
        case PackedType::bf16_pairs:
            return static_cast<size_t>(bf16_padded(k) * nr) * sizeof(BFloat16);
    }
    return 0;
}

// Fills one panel [k, nr] of floats, as they are stored, from rows first .. of the tensor; columns without a
// row are zero.
template <typename T>
void pack_float_panel(const GgufTensor& tensor, int64_t first, int nr, std::byte* bytes) {
    auto* panel = reinterpret_cast<T*>(bytes);
    const int64_t k = tensor.ne[0];
    const auto* rows = reinterpret_cast<const T*>(tensor.data);
    for (int c = 0; c < nr; ++c) {
        const bool is_row = first + c < tensor.num_rows();
        for (int64_t i = 0; i < k; ++i) panel[i * nr + c] = is_row ? rows[(first + c) * k + i] : T{};
    }
}

// Fills one panel of blocks from rows first .. of the tensor; columns without a row have scale zero. `packed`
// turns a stored block into one of the packed type, `byte` its bytes into packed ones. Both keep four
// neighbouring bytes of a block together.
template <typename Stored, typename PackedOf, typename ByteOf>
void pack_block_panel(const GgufTensor& tensor, int64_t first, int nr, std::byte* panel,
                      const PackedOf& packed, const ByteOf& byte) {
    using Block = std::decay_t<std::invoke_result_t<PackedOf, const Stored&>>;
    constexpr int kBytes = static_cast<int>(sizeof(Block::qs));
    const int64_t num_blocks = tensor.ne[0] / kI8Block;
    const auto* rows = reinterpret_cast<const Stored*>(tensor.data);
    for (int64_t b = 0; b < num_blocks; ++b) {
        std::byte* scales = panel + b * nr * static_cast<int64_t>(sizeof(Block));
        std::byte* weights = scales + 2 * nr;
        for (int c = 0; c < nr; ++c) {
            const Block block =
                first + c < tensor.num_rows() ? packed(rows[(first + c) * num_blocks + b]) : Block{};
            std::memcpy(scales + 2 * c, &block.d, sizeof block.d);
            for (int i = 0; i < kBytes; ++i) weights[(i / 4) * 4 * nr + 4 * c + i % 4] = byte(block.qs[i]);
        }
    }
}

void pack_affine_panel(const GgufTensor& tensor, int64_t first, int nr, std::byte* panel) {
    static_assert(kAffineBlock == kAffineBlockRows);
    const auto stored_row = static_cast<size_t>(row_bytes(tensor.type, tensor.ne[0]));
    for (int64_t b = 0; b < tensor.ne[0] / kAffineBlock; ++b, panel += affine_panel_block_bytes(nr)) {
        auto* numbers = reinterpret_cast<float*>(panel);
        auto* values = reinterpret_cast<int8_t*>(numbers + 3 * nr);
        for (int c = 0; c < nr; ++c) {
            const bool is_row = first + c < tensor.num_rows();
            const AffineBlock block =
                is_row
                    ? affine_block(tensor.type, tensor.data + static_cast<size_t>(first + c) * stored_row, b)
                    : AffineBlock{};
            numbers[c] = block.scales[0];
            numbers[nr + c] = block.scales[1];
            numbers[2 * nr + c] = block.offset;
            for (int i = 0; i < kAffineBlock; ++i) values[i * nr + c] = block.values[i];
        }
    }
}

void pack_i8_panel(const GgufTensor& tensor, int64_t first, const KernelTable& kernels, std::byte* panel) {
    const auto byte = [&](int8_t weight) {
        return static_cast<std::byte>(weight + kernels.i8_weight_offset);
    };
    const auto as_it_is = [](const block_q8_0& block) { return block; };
    const auto as_q8 = [](const auto& block) { return as_q8_0(block); };
    if (tensor.type == QuantType::Q5_0)
        return pack_block_panel<block_q5_0>(tensor, first, kernels.gemm_nr, panel, as_q8, byte);
    if (tensor.type == QuantType::IQ4_NL)
        return pack_block_panel<block_iq4_nl>(tensor, first, kernels.gemm_nr, panel, as_q8, byte);
    pack_block_panel<block_q8_0>(tensor, first, kernels.gemm_nr, panel, as_it_is, byte);
}

void pack_panel(PackedType type, const GgufTensor& tensor, int64_t first, const KernelTable& kernels,
                std::byte* panel) {
    const int nr = kernels.gemm_nr;
    switch (type) {
        case PackedType::f32:
            return pack_float_panel<float>(tensor, first, nr, panel);
        case PackedType::f16:
        case PackedType::bf16:
            return pack_float_panel<uint16_t>(tensor, first, nr, panel);
        case PackedType::i8:
            return pack_i8_panel(tensor, first, kernels, panel);
        case PackedType::i4:
            return pack_block_panel<block_q4_0>(
                tensor, first, nr, panel, [](const block_q4_0& block) { return block; },
                [](uint8_t pair) { return static_cast<std::byte>(pair); });
        case PackedType::affine:
            return pack_affine_panel(tensor, first, nr, panel);
        case PackedType::bf16_pairs:
            return;  // made from one of the others
    }
}

// Calls use(first, count, weights) for stretches of k, whose weights are float32 [count, nr] meanwhile.
template <typename Use>
void for_affine_stretches(const KernelTable& kernels, const std::byte* panel, int64_t k, const Use& use) {
    alignas(kCacheLine) float weights[kAffineStretch * kMostColumns];
    for (int64_t first = 0; first < k; first += kAffineStretch) {
        const int64_t count = std::min(kAffineStretch, k - first), blocks = count / kAffineBlockRows;
        kernels.dequantize_affine(panel, blocks, weights);
        use(first, count, reinterpret_cast<const std::byte*>(weights));
        panel += blocks * affine_panel_block_bytes(kernels.gemm_nr);
    }
}

void multiply_affine(const KernelTable& kernels, const float* x, int64_t rows, const std::byte* panel,
                     int64_t k, const GemmOutput& output) {
    GemmOutput part = output;
    for_affine_stretches(kernels, panel, k, [&](int64_t first, int64_t count, const std::byte* weights) {
        kernels.gemm_f32(x + first, k, rows, weights, count, part);
        part.bias = nullptr;
        part.accumulate = true;
    });
}

// Whether bfloat16 is, for so many rows.
bool faster_than_f32(const Compute& compute, int64_t rows) {
    const Bf16Kernels* bf16 = compute.kernels.bf16;
    return bf16 != nullptr && bf16->f32_min_rows > 0 && rows >= bf16->f32_min_rows;
}

// Panels of weights, of whatever type but bf16_pairs, as products in bfloat16 read them.
void panel_to_bf16(PackedType type, const KernelTable& kernels, const std::byte* panel, int64_t k,
                   BFloat16* out) {
    const Bf16Kernels& bf16 = *kernels.bf16;
    switch (type) {
        case PackedType::f32:
            return bf16.panel_f32_to_bf16(panel, k, out);
        case PackedType::f16:
            return bf16.panel_f16_to_bf16(panel, k, out);
        case PackedType::bf16:
            return bf16.panel_bf16_to_bf16(panel, k, out);
        case PackedType::i8:
            return bf16.panel_i8_to_bf16(panel, k, out);
        case PackedType::i4:
            return bf16.panel_i4_to_bf16(panel, k, out);
        case PackedType::affine:
            for_affine_stretches(kernels, panel, k,
                                 [&](int64_t first, int64_t count, const std::byte* weights) {
                                     bf16.panel_f32_to_bf16(weights, count, out + first * kernels.gemm_nr);
                                 });
            return;
        case PackedType::bf16_pairs:
            return;  // are there
    }
}

}  // namespace

void for_row_blocks(ThreadPool& pool, int64_t rows, int64_t block,
                    FunctionRef<void(int64_t first, int64_t count)> task) {
    pool.parallel_for(ceil_divide(rows, block),
                      [&](int64_t i) { task(i * block, std::min(block, rows - i * block)); });
}

Arithmetic arithmetic_named(const std::string& name) {
    if (name == "auto") return Arithmetic::automatic;
    if (name == "int8") return Arithmetic::int8;
    if (name == "bf16") return Arithmetic::bf16;
    throw InputError(concat("vision_compute: ", name, ", expected auto, int8 or bf16"));
}

const char* name_of(ActivationType type) noexcept {
    switch (type) {
        case ActivationType::f32:
            return "f32";
        case ActivationType::i8:
            return "int8";
        case ActivationType::bf16:
            return "bf16";
    }
    return "";
}

PackedType packed_type_of(const std::string& path, const GgufTensor& tensor) {
    switch (tensor.type) {
        case QuantType::F32:
            return PackedType::f32;
        case QuantType::F16:
            return PackedType::f16;
        case QuantType::BF16:
            return PackedType::bf16;
        case QuantType::Q8_0:
        case QuantType::Q5_0:
        case QuantType::IQ4_NL:
            return PackedType::i8;
        case QuantType::Q4_0:
            return PackedType::i4;
        case QuantType::Q4_1:
        case QuantType::Q5_1:
        case QuantType::Q4_K:
        case QuantType::Q5_K:
        case QuantType::Q6_K:
            return PackedType::affine;
    }
    throw UnsupportedError(
        concat(path, ": tensor ", tensor.name, ": type ", traits(tensor.type).name, " cannot run"));
}

PackedType packed_for_rows(const Compute& compute, PackedType type, int64_t rows, bool among_blocks) {
    const bool halves = type == PackedType::f16 || type == PackedType::bf16;
    const bool left_over = halves && among_blocks && compute.arithmetic == Arithmetic::automatic &&
                           faster_than_f32(compute, rows);
    if (left_over || activation_type(compute, type, rows) == ActivationType::bf16)
        return PackedType::bf16_pairs;
    return type;
}

size_t packed_bytes(PackedType type, const GgufTensor& tensor, const KernelTable& kernels) {
    const int64_t num_panels = ceil_divide(tensor.num_rows(), kernels.gemm_nr);
    return static_cast<size_t>(num_panels) * panel_bytes(type, tensor.ne[0], kernels);
}

PackedWeight pack_weight(PackedType type, const GgufTensor& tensor, const Compute& compute, Arena& arena,
                         const std::function<void(const uint8_t* bytes, size_t count)>& packed) {
    PackedWeight weight;
    weight.type = type;
    weight.n = tensor.num_rows();
    weight.k = tensor.ne[0];
    const std::shared_ptr<std::byte> memory = arena.allocate(packed_bytes(type, tensor, compute.kernels));
    weight.panels = memory;
    const int64_t nr = compute.kernels.gemm_nr;
    const size_t stride = panel_bytes(type, weight.k, compute.kernels);
    const PackedType unpacked = type == PackedType::bf16_pairs ? packed_type_of("", tensor) : type;
    const size_t unpacked_stride = panel_bytes(unpacked, weight.k, compute.kernels);
    const auto stored_row = static_cast<size_t>(row_bytes(tensor.type, weight.k));
    const int64_t num_panels = ceil_divide(weight.n, nr);
    const int64_t slice =
        std::max<int64_t>(1, static_cast<int64_t>(kSliceBytes / (stored_row * static_cast<size_t>(nr))));
    AlignedBuffer<std::byte> room;  // for panels on their way to bf16_pairs
    if (unpacked != type) room.grow(static_cast<size_t>(std::min(slice, num_panels)) * unpacked_stride);
    for (int64_t first = 0; first < num_panels; first += slice) {
        const int64_t panels = std::min(slice, num_panels - first);
        compute.pool.parallel_for(panels, [&](int64_t p) {
            std::byte* panel = memory.get() + static_cast<size_t>(first + p) * stride;
            std::byte* first_packed =
                unpacked == type ? panel : room.data() + static_cast<size_t>(p) * unpacked_stride;
            pack_panel(unpacked, tensor, (first + p) * nr, compute.kernels, first_packed);
            if (unpacked == type) return;
            panel_to_bf16(unpacked, compute.kernels, first_packed, weight.k,
                          reinterpret_cast<BFloat16*>(panel));
        });
        const int64_t row = first * nr, rows = std::min(panels * nr, weight.n - row);
        if (packed)
            packed(tensor.data + static_cast<size_t>(row) * stored_row,
                   static_cast<size_t>(rows) * stored_row);
    }
    return weight;
}

ActivationType activation_type(const Compute& compute, PackedType weight, int64_t rows) {
    const bool quantised = weight == PackedType::i8 || weight == PackedType::i4;
    const Bf16Kernels* bf16 = compute.kernels.bf16;
    const bool faster = (quantised || weight == PackedType::affine) && bf16 != nullptr &&
                        bf16->min_rows > 0 && rows >= bf16->min_rows;
    if (weight == PackedType::bf16_pairs) return ActivationType::bf16;
    switch (compute.arithmetic) {
        case Arithmetic::bf16:
            return ActivationType::bf16;
        case Arithmetic::automatic:
            if (faster) return ActivationType::bf16;
            break;
        case Arithmetic::int8:
            break;
    }
    return quantised ? ActivationType::i8 : ActivationType::f32;
}

bool attends_in_bf16(const Compute& compute, PackedType weight, int64_t rows) {
    if (activation_type(compute, weight, rows) == ActivationType::bf16) return true;
    const bool rounded = weight == PackedType::i8 || weight == PackedType::i4 || weight == PackedType::affine;
    return rounded && faster_than_f32(compute, rows);
}

void Activations::begin(const Compute& compute, std::initializer_list<const Linear*> users, int64_t rows) {
    const auto read_as = [&](ActivationType type) {
        return std::any_of(users.begin(), users.end(), [&](const Linear* user) {
            return activation_type(compute, user->weight.type, rows) == type;
        });
    };
    reads_f32_ = read_as(ActivationType::f32);
    reads_i8_ = read_as(ActivationType::i8);
    reads_bf16_ = read_as(ActivationType::bf16);
    rows_ = rows;
    k_ = (*users.begin())->weight.k;
    num_blocks_ = ceil_divide(k_, kI8Block);
    const auto grow = [rows](auto& buffer, int64_t row) { buffer.grow(static_cast<size_t>(rows * row)); };
    if (reads_f32_) grow(f32_, k_);
    if (reads_bf16_) grow(bf16_, bf16_padded(k_));
    if (reads_i8_) {
        grow(values_, num_blocks_ * kI8Block);
        grow(scales_, num_blocks_);
        grow(sums_, num_blocks_);
    }
}

void Activations::store(const Compute& compute, int64_t r, int64_t column, const float* values,
                        int64_t count) noexcept {
    if (reads_f32_ && values != this->f32(r) + column)
        std::copy_n(values, count, f32_.data() + r * k_ + column);
    if (reads_bf16_)
        compute.kernels.bf16->row_f32_to_bf16(values, count, bf16_.data() + r * bf16_padded(k_) + column);
    if (!reads_i8_) return;
    const int64_t block = r * num_blocks_ + column / kI8Block;
    compute.kernels.quantize_row_i8(values, count, values_.data() + block * kI8Block, scales_.data() + block,
                                    sums_.data() + block);
}

void Activations::set(const Compute& compute, std::initializer_list<const Linear*> users, int64_t rows,
                      RowMaker make_row) {
    begin(compute, users, rows);
    const int64_t tasks = std::min(ceil_divide(rows, kRowsMade), int64_t{4} * compute.pool.num_threads());
    room_.grow(static_cast<size_t>(tasks * k_));
    const int64_t share = ceil_divide(rows, tasks);
    for_row_blocks(compute.pool, rows, share, [&](int64_t first, int64_t count) {
        float* room = room_.data() + first / share * k_;
        for (int64_t r = first; r < first + count; ++r) {
            const float* row = make_row(r, reads_f32_ ? f32_.data() + r * k_ : room);
            store(compute, r, 0, row, k_);
        }
    });
}

BFloat16* Activations::make_bf16(int64_t rows, int64_t k) {
    const int64_t padded = bf16_padded(k);
    rows_ = rows;
    k_ = k;
    bf16_.grow(static_cast<size_t>(rows * padded));
    for (int64_t r = 0; r < rows && padded > k; ++r)
        std::fill_n(bf16_.data() + r * padded + k, padded - k, BFloat16{0});
    return bf16_.data();
}

I8Rows Activations::i8(int64_t first, int64_t count) const noexcept {
    return {values_.data() + first * num_blocks_ * kI8Block, scales_.data() + first * num_blocks_,
            sums_.data() + first * num_blocks_, count, num_blocks_};
}

int64_t Linear::num_tasks(const Compute& compute, int64_t rows) const {
    return ceil_divide(weight.n, compute.kernels.gemm_nr) * ceil_divide(rows, kRowBlock);
}

void Linear::multiply_panel(const Compute& compute, const Activations& x, int64_t panel_index, int64_t row,
                            int64_t rows, const GemmOutput& output) const {
    const KernelTable& kernels = compute.kernels;
    const std::byte* panel =
        weight.panels.get() + static_cast<size_t>(panel_index) * panel_bytes(weight.type, weight.k, kernels);
    const auto run_float = [&](GemmFloat* kernel) {
        kernel(x.f32(row), weight.k, rows, panel, weight.k, output);
    };
    switch (weight.type) {
        case PackedType::f32:
            return run_float(kernels.gemm_f32);
        case PackedType::f16:
            return run_float(kernels.gemm_f16);
        case PackedType::bf16:
            return run_float(kernels.gemm_bf16);
        case PackedType::i8:
            return kernels.gemm_i8(x.i8(row, rows), panel, output);
        case PackedType::i4:
            return kernels.gemm_i4(x.i8(row, rows), panel, output);
        case PackedType::affine:
            return multiply_affine(kernels, x.f32(row), rows, panel, weight.k, output);
        case PackedType::bf16_pairs:
            return;  // in multiply_bf16
    }
}

GemmOutput Linear::panel_output(const Compute& compute, int64_t panel_index, float* y, int64_t y_stride,
                                bool accumulate) const {
    const int64_t column = panel_index * compute.kernels.gemm_nr;
    return {y, y_stride, std::min<int64_t>(compute.kernels.gemm_nr, weight.n - column),
            bias.empty() ? nullptr : bias.data() + column, accumulate};
}

// Row blocks of one panel follow each other, so that the panel stays in the cache.
void Linear::run_task(const Compute& compute, const Activations& x, float* y, bool accumulate,
                      int64_t task) const {
    const int64_t row_blocks = ceil_divide(x.rows(), kRowBlock), panel_index = task / row_blocks;
    const int64_t row = task % row_blocks * kRowBlock;
    float* first = y + row * weight.n + panel_index * compute.kernels.gemm_nr;
    multiply_panel(compute, x, panel_index, row, std::min(kRowBlock, x.rows() - row),
                   panel_output(compute, panel_index, first, weight.n, accumulate));
}

void Linear::run(const Compute& compute, Activations& x, float* y, bool accumulate) const {
    if (activation_type(compute, weight.type, x.rows()) == ActivationType::bf16) {
        return multiply_bf16(compute, x, {{y, weight.n, weight.n, bias_or_null(bias), accumulate}});
    }
    compute.pool.parallel_for(num_tasks(compute, x.rows()),
                              [&](int64_t task) { run_task(compute, x, y, accumulate, task); });
}

void run_side_by_side(const Compute& compute, Activations& x, std::initializer_list<Product> products) {
    int64_t all_tasks = 0;
    for (const auto& [linear, y] : products) {
        if (activation_type(compute, linear->weight.type, x.rows()) == ActivationType::bf16) {
            for (const auto& [each, to] : products) each->run(compute, x, to);
            return;
        }
        all_tasks += linear->num_tasks(compute, x.rows());
    }
    compute.pool.parallel_for(all_tasks, [&](int64_t task) {
        for (const auto& [linear, y] : products) {
            const int64_t tasks = linear->num_tasks(compute, x.rows());
            if (task < tasks) return linear->run_task(compute, x, y, false, task);
            task -= tasks;
        }
    });
}

void run_in_blocks(const Compute& compute, Activations& x, std::initializer_list<const Linear*> products,
                   FunctionRef<void(const ResultBlock&)> use) {
    const int64_t rows = x.rows(), n = (*products.begin())->weight.n;
    const bool in_bf16 = std::any_of(products.begin(), products.end(), [&](const Linear* product) {
        return activation_type(compute, product->weight.type, rows) == ActivationType::bf16;
    });
    if (in_bf16) {
        float* results = x.results(static_cast<int64_t>(products.size()) * rows * n);
        for (size_t p = 0; p < products.size(); ++p)
            products.begin()[p]->run(compute, x, results + static_cast<int64_t>(p) * rows * n);
        for_row_blocks(compute.pool, rows, kRowsMade, [&](int64_t first, int64_t count) {
            ResultBlock block{first, count, 0, n, {}, n};
            for (size_t p = 0; p < products.size(); ++p)
                block.y[p] = results + (static_cast<int64_t>(p) * rows + first) * n;
            use(block);
        });
        return;
    }
    const int64_t nr = compute.kernels.gemm_nr, panels = std::max<int64_t>(1, kI8Block / nr);
    const int64_t width = panels * nr, row_blocks = ceil_divide(rows, kRowBlock);
    compute.pool.parallel_for(ceil_divide(n, width) * row_blocks, [&](int64_t task) {
        alignas(kCacheLine) float results[kMostProducts][kRowBlock * kMostColumns];
        const int64_t row = task % row_blocks * kRowBlock, column = task / row_blocks * width;
        ResultBlock block{row,  std::min(kRowBlock, rows - row), column, std::min(width, n - column), {},
                          width};
        for (size_t p = 0; p < products.size(); ++p) {
            const Linear& product = *products.begin()[p];
            block.y[p] = results[p];
            for (int64_t i = 0; i < block.columns; i += nr) {
                const int64_t panel = (column + i) / nr;
                product.multiply_panel(compute, x, panel, row, block.rows,
                                       product.panel_output(compute, panel, results[p] + i, width, false));
            }
        }
        use(block);
    });
}

void Linear::run_bf16(const Compute& compute, Activations& x, BFloat16* y, int64_t y_stride,
                      bool gelu_tanh) const {
    multiply_bf16(compute, x, {{nullptr, y_stride, weight.n, bias_or_null(bias), false}, y, gelu_tanh});
}

void Linear::multiply_bf16(const Compute& compute, Activations& x, const GemmBf16Output& output) const {
    const KernelTable& kernels = compute.kernels;
    const bool in_place = weight.type == PackedType::bf16_pairs;
    const int64_t nr = kernels.gemm_nr, k = bf16_padded(weight.k), num_panels = ceil_divide(weight.n, nr);
    const size_t stride = panel_bytes(weight.type, weight.k, kernels);
    const int64_t fitting_rows = kRowBlockBytes / (k * static_cast<int64_t>(sizeof(BFloat16)));
    const int64_t row_block = std::max(kRowTile, fitting_rows / kRowTile * kRowTile);
    const int64_t row_blocks = ceil_divide(x.rows(), row_block);
    const int64_t fitting = kPanelsBytes / (nr * k * static_cast<int64_t>(sizeof(BFloat16)));
    const int64_t at_a_time = std::max<int64_t>(fitting, compute.pool.num_threads());
    BFloat16* room = in_place ? nullptr : x.panels(std::min(at_a_time, num_panels) * nr * k);
    for (int64_t first = 0; first < num_panels; first += at_a_time) {
        const int64_t count = std::min(at_a_time, num_panels - first);
        const std::byte* stored = weight.panels.get() + static_cast<size_t>(first) * stride;
        const BFloat16* panels = in_place ? reinterpret_cast<const BFloat16*>(stored) : room;
        if (!in_place) {
            compute.pool.parallel_for(count, [&](int64_t p) {
                panel_to_bf16(weight.type, kernels, stored + static_cast<size_t>(p) * stride, weight.k,
                              room + p * nr * k);
            });
        }
        compute.pool.parallel_for(count * row_blocks, [&](int64_t task) {
            const int64_t panel = task % count, column = (first + panel) * nr;
            const int64_t row = task / count * row_block;
            const int64_t offset = row * output.f32.y_stride + column;
            GemmBf16Output part = output;
            part.f32.columns = std::min<int64_t>(nr, weight.n - column);
            if (output.f32.bias != nullptr) part.f32.bias += column;
            if (output.y_bf16 != nullptr) {
                part.y_bf16 += offset;
            } else {
                part.f32.y += offset;
            }
            kernels.bf16->gemm_bf16_bf16(x.bf16(row), k, std::min(row_block, x.rows() - row),
                                         panels + panel * nr * k, k, part);
        });
    }
}

}  // namespace pocketvlm
