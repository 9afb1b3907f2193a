// _core.kernels: single kernels of every row of the kernel table, for the differential tests.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "base/cpu_features.h"
#include "kernels/kernel_table.h"
#include "model/attention.h"
#include "model/bf16_attention.h"
#include "model/linear.h"
#include "python/array.h"
#include "python/bind.h"

namespace pocketvlm {
namespace {

const KernelTable& row(const std::string& isa) { return kernels_for(isa, detect_cpu_features()); }

// The rows that a processor with these features could run, best first.
std::vector<std::string> select(const std::vector<std::string>& features) {
    std::vector<std::string> names;
    for (const KernelTable* table : select_kernels(features_named(features))) names.emplace_back(table->isa);
    return names;
}

// Room for a kernel's results, off every vector boundary, between guard bytes that nobody may write.
template <typename T>
class Guarded {
  public:
    explicit Guarded(int64_t size)
        : bytes_(static_cast<size_t>(size) * sizeof(T) + 2 * kGuard, kPattern), size_(size) {}
    explicit Guarded(const py::array_t<T>& initial) : Guarded(initial.size()) {
        std::copy_n(initial.data(), size_, data());
    }

    T* data() { return reinterpret_cast<T*>(bytes_.data() + kGuard); }

    // The results as an array of that shape. Throws Error if a guard was written.
    py::array_t<T> to_python(const std::vector<py::ssize_t>& shape) {
        const auto untouched = [](uint8_t byte) { return byte == kPattern; };
        if (!std::all_of(bytes_.begin(), bytes_.begin() + kGuard, untouched) ||
            !std::all_of(bytes_.end() - kGuard, bytes_.end(), untouched)) {
            throw Error("the kernel wrote outside its result");
        }
        py::array_t<T> array(shape);
        std::copy_n(data(), size_, array.mutable_data());
        return array;
    }
    py::array_t<T> to_python() { return to_python({static_cast<py::ssize_t>(size_)}); }

  private:
    static constexpr ptrdiff_t kGuard = 64 + sizeof(T);
    static constexpr uint8_t kPattern = 0xa5;
    std::vector<uint8_t> bytes_;
    int64_t size_;
};

// y = x W^T + bias, added to `initial` if given; or GELU of it, rounded to bfloat16, in bfloat16 arithmetic.
// weights: the stored bytes of a tensor of type `type`, [n, k].
py::array_t<float> linear(const std::string& isa, const py::object& x, const py::object& weights,
                          const std::string& type, int64_t n, const std::optional<py::object>& bias,
                          const std::optional<py::object>& initial, const std::string& arithmetic,
                          bool gelu_to_bf16, int threads) {
    const py::array_t<float> rows = checked_array<float>(x, "x", {"m", "k"});
    const int64_t m = rows.shape(0), k = rows.shape(1);
    const QuantTraits* traits = find_traits(type);
    if (traits == nullptr)
        throw UnsupportedError(concat("type: ", type, ", expected one of ", known_quant_types()));
    if (k % traits->block_size != 0)
        throw InputError(concat("x: k = ", k, ", expected a multiple of ", traits->block_size));
    const auto nbytes = static_cast<py::ssize_t>(n * row_bytes(traits->type, k));
    const py::array_t<uint8_t> stored = checked_array<uint8_t>(weights, "weights", {nbytes});
    const GgufTensor tensor{"weights", traits->type,  {k, n, 1, 1},
                            2,         stored.data(), static_cast<size_t>(nbytes)};

    ThreadPool pool(threads);
    const Compute compute{row(isa), pool, arithmetic_named(arithmetic)};
    Linear product;
    Arena arena;
    product.weight = pack_weight(packed_type_of("kernels.linear", tensor), tensor, compute, arena);
    if (bias) {
        const py::array_t<float> values = checked_array<float>(*bias, "bias", {static_cast<py::ssize_t>(n)});
        product.bias.assign(values.data(), values.data() + n);
    }
    Guarded<float> y(m * n);
    if (initial) {
        const py::array_t<float> before = checked_array<float>(
            *initial, "initial", {static_cast<py::ssize_t>(m), static_cast<py::ssize_t>(n)});
        y = Guarded<float>(before);
    }
    Activations activations;
    activations.set(compute, {&product}, m, [&](int64_t r, float*) { return rows.data() + r * k; });
    if (gelu_to_bf16) {
        Guarded<uint16_t> rounded(m * n);
        product.run_bf16(compute, activations, reinterpret_cast<BFloat16*>(rounded.data()), n, true);
        const py::array_t<uint16_t> bits = rounded.to_python();
        std::transform(bits.data(), bits.data() + m * n, y.data(), bf16_to_fp32);
        return y.to_python({static_cast<py::ssize_t>(m), static_cast<py::ssize_t>(n)});
    }
    product.run(compute, activations, y.data(), initial.has_value());
    return y.to_python({static_cast<py::ssize_t>(m), static_cast<py::ssize_t>(n)});
}

std::tuple<py::array_t<int8_t>, py::array_t<float>, py::array_t<int32_t>> quantize_row_i8(
    const std::string& isa, const py::object& x) {
    const py::array_t<float> values = checked_array<float>(x, "x", {"k"});
    const int64_t k = values.shape(0), blocks = (k + kI8Block - 1) / kI8Block;
    Guarded<int8_t> quantised(blocks * kI8Block);
    Guarded<float> scales(blocks);
    Guarded<int32_t> sums(blocks);
    row(isa).quantize_row_i8(values.data(), k, quantised.data(), scales.data(), sums.data());
    return {quantised.to_python(), scales.to_python(), sums.to_python()};
}

// softmax(q k^T) v over the first visible[r] keys of row r; q is scaled already. Lays keys and values, [keys,
// d] of T or its bits, out in blocks.
template <typename T, typename Bits>
py::array_t<float> attention(const std::string& isa, const py::object& q, const py::object& k,
                             const py::object& v, const py::object& visible) {
    const py::array_t<float> queries = checked_array<float>(q, "q", {"rows", "d"});
    const int64_t rows = queries.shape(0), d = queries.shape(1), value_dim = padded_head_dim(d);
    const py::array_t<Bits> keys = checked_array<Bits>(k, "k", {"keys", static_cast<py::ssize_t>(d)});
    const int64_t num_keys = keys.shape(0);
    const py::array_t<Bits> values =
        checked_array<Bits>(v, "v", {static_cast<py::ssize_t>(num_keys), static_cast<py::ssize_t>(d)});
    const py::array_t<int32_t> seen =
        checked_array<int32_t>(visible, "visible", {static_cast<py::ssize_t>(rows)});

    AttentionTask task(rows, d);
    std::copy_n(queries.data(), rows * d, task.q(0));
    for (int64_t first = 0; first < num_keys; first += kKeyBlock) {
        std::vector<Bits> block(static_cast<size_t>(kKeyBlock * (d + value_dim)));
        Bits* block_values = block.data() + d * kKeyBlock;
        for (int64_t j = 0; j < kKeyBlock && first + j < num_keys; ++j) {
            for (int64_t i = 0; i < d; ++i) {
                block[static_cast<size_t>(i * kKeyBlock + j)] = keys.at(first + j, i);
                block_values[j * value_dim + i] = values.at(first + j, i);
            }
        }
        const KeyValueBlock<T> laid_out{reinterpret_cast<const T*>(block.data()),
                                        reinterpret_cast<const T*>(block_values)};
        task.fold(row(isa), laid_out, first, [&](int64_t r) { return int64_t{seen.at(r)}; });
    }
    py::array_t<float> out({rows, d});
    for (int64_t r = 0; r < rows; ++r) task.write(r, out.mutable_data() + r * d);
    return out;
}

// softmax(q k^T scale) v in bfloat16, of rows in float32.
py::array_t<float> attention_bf16(const std::string& isa, const py::object& q, const py::object& k,
                                  const py::object& v, const py::object& visible, float scale) {
    const Bf16Kernels* kernels = row(isa).bf16;
    if (kernels == nullptr) throw UnsupportedError(concat("attention_bf16: ", isa, " lacks it"));
    const py::array_t<float> queries = checked_array<float>(q, "q", {"rows", "d"});
    const int64_t rows = queries.shape(0), d = queries.shape(1);
    const py::array_t<float> keys = checked_array<float>(k, "k", {"keys", queries.shape(1)});
    const int64_t num_keys = keys.shape(0);
    const py::array_t<float> values = checked_array<float>(v, "v", {keys.shape(0), queries.shape(1)});
    const py::array_t<int32_t> seen = checked_array<int32_t>(visible, "visible", {queries.shape(0)});

    // In bfloat16, rows as far apart as whole pairs of a head.
    const int64_t stride = Bf16BlockShape(d).key_dim;
    const auto in_bf16 = [&](const py::array_t<float>& array, int64_t padded_rows) {
        std::vector<BFloat16> out(static_cast<size_t>(padded_rows * stride));
        for (int64_t r = 0; r < array.shape(0); ++r)
            kernels->row_f32_to_bf16(array.data() + r * d, d, out.data() + r * stride);
        return out;
    };
    const std::vector<BFloat16> q_rows = in_bf16(queries, rows + kBf16QueryRows);
    const std::vector<BFloat16> k_rows = in_bf16(keys, num_keys), v_rows = in_bf16(values, num_keys);
    Bf16AttentionTask task(*kernels, rows, d, {q_rows.data(), stride, scale});
    AlignedBuffer<BFloat16> block(static_cast<size_t>(Bf16BlockShape(d).size()));
    for (int64_t first = 0; first < num_keys; first += kKeyBlock) {
        lay_out_bf16(k_rows.data() + first * stride, v_rows.data() + first * stride, stride,
                     std::min<int64_t>(kKeyBlock, num_keys - first), d, block.data());
        task.fold(block.data(), first, [&](int64_t r) { return int64_t{seen.at(r)}; });
    }
    py::array_t<float> out({rows, d});
    std::vector<BFloat16> row(static_cast<size_t>(d));
    for (int64_t r = 0; r < rows; ++r) {
        task.write(r, row.data());
        for (int64_t i = 0; i < d; ++i) out.mutable_at(r, i) = bf16_to_fp32(row[static_cast<size_t>(i)].bits);
    }
    return out;
}

// The elementwise kernels run in place where their contract allows it.
py::array_t<float> layer_norm(const std::string& isa, const py::object& x, const py::object& weight,
                              const py::object& bias, float epsilon) {
    Guarded<float> y(checked_array<float>(x, "x", {"n"}));
    const py::array_t<float> w = checked_array<float>(weight, "weight", {"n"});
    const py::array_t<float> b = checked_array<float>(bias, "bias", {w.size()});
    row(isa).layer_norm(y.data(), w.data(), b.data(), epsilon, w.size(), y.data());
    return y.to_python();
}

py::array_t<float> rms_norm(const std::string& isa, const py::object& x, const py::object& weight,
                            float epsilon) {
    Guarded<float> y(checked_array<float>(x, "x", {"n"}));
    const py::array_t<float> w = checked_array<float>(weight, "weight", {"n"});
    row(isa).rms_norm(y.data(), w.data(), epsilon, w.size(), y.data());
    return y.to_python();
}

py::array_t<float> gelu_tanh(const std::string& isa, const py::object& x) {
    const py::array_t<float> values = checked_array<float>(x, "x", {"n"});
    Guarded<float> y(values);
    row(isa).gelu_tanh(y.data(), values.size());
    return y.to_python();
}

py::array_t<float> silu_mul(const std::string& isa, const py::object& gate, const py::object& up) {
    const py::array_t<float> factor = checked_array<float>(up, "up", {"n"});
    Guarded<float> y(checked_array<float>(gate, "gate", {factor.size()}));
    row(isa).silu_mul(y.data(), factor.data(), factor.size());
    return y.to_python();
}

py::array_t<float> rope_interleaved(const std::string& isa, const py::object& x, const py::object& cosine,
                                    const py::object& sine, float scale) {
    const py::array_t<float> c = checked_array<float>(cosine, "cosine", {"n / 2"});
    const py::array_t<float> s = checked_array<float>(sine, "sine", {c.size()});
    Guarded<float> y(checked_array<float>(x, "x", {2 * c.size()}));
    row(isa).rope_interleaved(y.data(), c.data(), s.data(), 2 * c.size(), scale);
    return y.to_python();
}

py::array_t<uint16_t> f32_to_f16(const std::string& isa, const py::object& x) {
    const py::array_t<float> values = checked_array<float>(x, "x", {"n"});
    Guarded<uint16_t> y(values.size());
    row(isa).f32_to_f16(values.data(), values.size(), reinterpret_cast<Float16*>(y.data()));
    return y.to_python();
}

}  // namespace

void bind_kernels(py::module_& kernels) {
    kernels.def("select", &select, py::arg("features"));
    kernels.def("linear", &linear, py::arg("isa"), py::arg("x"), py::arg("weights"), py::kw_only(),
                py::arg("type"), py::arg("n"), py::arg("bias") = py::none(), py::arg("initial") = py::none(),
                py::arg("arithmetic") = "auto", py::arg("gelu_to_bf16") = false, py::arg("threads") = 1);
    kernels.def("quantize_row_i8", &quantize_row_i8, py::arg("isa"), py::arg("x"));
    kernels.def("attention_f32", &attention<float, float>, py::arg("isa"), py::arg("q"), py::arg("k"),
                py::arg("v"), py::arg("visible"));
    kernels.def("attention_f16", &attention<Float16, uint16_t>, py::arg("isa"), py::arg("q"), py::arg("k"),
                py::arg("v"), py::arg("visible"));
    kernels.def("attention_bf16", &attention_bf16, py::arg("isa"), py::arg("q"), py::arg("k"), py::arg("v"),
                py::arg("visible"), py::arg("scale"));
    kernels.def("layer_norm", &layer_norm, py::arg("isa"), py::arg("x"), py::arg("weight"), py::arg("bias"),
                py::arg("epsilon"));
    kernels.def("rms_norm", &rms_norm, py::arg("isa"), py::arg("x"), py::arg("weight"), py::arg("epsilon"));
    kernels.def("gelu_tanh", &gelu_tanh, py::arg("isa"), py::arg("x"));
    kernels.def("silu_mul", &silu_mul, py::arg("isa"), py::arg("gate"), py::arg("up"));
    kernels.def("rope_interleaved", &rope_interleaved, py::arg("isa"), py::arg("x"), py::arg("cosine"),
                py::arg("sine"), py::arg("scale"));
    kernels.def("f32_to_f16", &f32_to_f16, py::arg("isa"), py::arg("x"));
}

}  // namespace pocketvlm
