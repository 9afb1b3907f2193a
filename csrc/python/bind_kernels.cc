// _core.kernels: single kernels of every row of the kernel table, for the differential tests.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <limits>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "base/cpu_features.h"
#include "kernels/kernel_table.h"
#include "model/attention.h"
#include "model/linear.h"
#include "python/array.h"
#include "python/bind.h"

namespace pocketvlm {
namespace {

const KernelTable& row(const std::string& isa) { return kernels_for(isa, detect_cpu_features()); }

// y = x W^T + bias, added to `initial` if given. weights: the stored bytes of a tensor of type `type`, [n, k].
py::array_t<float> linear(const std::string& isa, const py::object& x, const py::object& weights,
                          const std::string& type, int64_t n, const std::optional<py::object>& bias,
                          const std::optional<py::object>& initial, int threads) {
    const py::array_t<float> rows = checked_array<float>(x, "x", {"m", "k"});
    const int64_t m = rows.shape(0), k = rows.shape(1);
    const QuantTraits* traits = find_traits(type);
    if (traits == nullptr) throw UnsupportedError(concat("type: ", type, ", expected one of ", known_quant_types()));
    if (k % traits->block_size != 0) throw InputError(concat("x: k = ", k, ", expected a multiple of ", traits->block_size));
    const auto nbytes = static_cast<py::ssize_t>(n * row_bytes(traits->type, k));
    const py::array_t<uint8_t> stored = checked_array<uint8_t>(weights, "weights", {nbytes});
    const GgufTensor tensor{"weights", traits->type, {k, n, 1, 1}, 2, stored.data(), static_cast<size_t>(nbytes)};

    ThreadPool pool(threads);
    const Compute compute{row(isa), pool};
    Linear product;
    product.weight = pack_weight(packed_type_of("kernels.linear", tensor), tensor, compute);
    if (bias) {
        const py::array_t<float> values = checked_array<float>(*bias, "bias", {static_cast<py::ssize_t>(n)});
        product.bias.assign(values.data(), values.data() + n);
    }
    py::array_t<float> y({m, n});
    if (initial) {
        const py::array_t<float> before =
            checked_array<float>(*initial, "initial", {static_cast<py::ssize_t>(m), static_cast<py::ssize_t>(n)});
        std::copy_n(before.data(), m * n, y.mutable_data());
    }
    Activations activations;
    activations.set(compute, {&product}, rows.data(), m);
    product.run(compute, activations, y.mutable_data(), initial.has_value());
    return y;
}

std::tuple<py::array_t<int8_t>, py::array_t<float>, py::array_t<int32_t>> quantize_row_i8(const std::string& isa,
                                                                                          const py::object& x) {
    const py::array_t<float> values = checked_array<float>(x, "x", {"k"});
    const int64_t k = values.shape(0), blocks = (k + kI8Block - 1) / kI8Block;
    py::array_t<int8_t> quantised(blocks * kI8Block);
    py::array_t<float> scales(blocks);
    py::array_t<int32_t> sums(blocks);
    row(isa).quantize_row_i8(values.data(), k, quantised.mutable_data(), scales.mutable_data(), sums.mutable_data());
    return {quantised, scales, sums};
}

// softmax(q k^T) v over the first visible[r] keys of row r; q is scaled already. Lays the keys out in blocks.
py::array_t<float> attention(const std::string& isa, const py::object& q, const py::object& k, const py::object& v,
                             const py::object& visible) {
    const py::array_t<float> queries = checked_array<float>(q, "q", {"rows", "d"});
    const int64_t rows = queries.shape(0), d = queries.shape(1), value_dim = padded_head_dim(d);
    const py::array_t<float> keys = checked_array<float>(k, "k", {"keys", static_cast<py::ssize_t>(d)});
    const int64_t num_keys = keys.shape(0);
    const py::array_t<float> values =
        checked_array<float>(v, "v", {static_cast<py::ssize_t>(num_keys), static_cast<py::ssize_t>(d)});
    const py::array_t<int32_t> seen = checked_array<int32_t>(visible, "visible", {static_cast<py::ssize_t>(rows)});

    AttentionTask task(rows, d);
    std::copy_n(queries.data(), rows * d, task.q(0));
    for (int64_t first = 0; first < num_keys; first += kKeyBlock) {
        std::vector<float> block(static_cast<size_t>(kKeyBlock * (d + value_dim)));
        float* block_values = block.data() + d * kKeyBlock;
        for (int64_t j = 0; j < kKeyBlock && first + j < num_keys; ++j) {
            for (int64_t i = 0; i < d; ++i) {
                block[static_cast<size_t>(i * kKeyBlock + j)] = keys.at(first + j, i);
                block_values[j * value_dim + i] = values.at(first + j, i);
            }
        }
        task.fold(row(isa), {block.data(), block_values}, first, [&](int64_t r) { return int64_t{seen.at(r)}; });
    }
    py::array_t<float> out({rows, d});
    for (int64_t r = 0; r < rows; ++r) task.write(r, out.mutable_data() + r * d);
    return out;
}

py::array_t<float> copy_of(const py::array_t<float>& x) {
    py::array_t<float> y(x.shape(0));
    std::copy_n(x.data(), x.shape(0), y.mutable_data());
    return y;
}

py::array_t<float> layer_norm(const std::string& isa, const py::object& x, const py::object& weight,
                              const py::object& bias, float epsilon) {
    const py::array_t<float> y = copy_of(checked_array<float>(x, "x", {"n"}));
    const py::array_t<float> w = checked_array<float>(weight, "weight", {y.shape(0)});
    const py::array_t<float> b = checked_array<float>(bias, "bias", {y.shape(0)});
    py::array_t<float> out = y;
    row(isa).layer_norm(y.data(), w.data(), b.data(), epsilon, y.shape(0), out.mutable_data());
    return out;
}

py::array_t<float> rms_norm(const std::string& isa, const py::object& x, const py::object& weight, float epsilon) {
    py::array_t<float> y = copy_of(checked_array<float>(x, "x", {"n"}));
    const py::array_t<float> w = checked_array<float>(weight, "weight", {y.shape(0)});
    row(isa).rms_norm(y.data(), w.data(), epsilon, y.shape(0), y.mutable_data());
    return y;
}

py::array_t<float> gelu_tanh(const std::string& isa, const py::object& x) {
    py::array_t<float> y = copy_of(checked_array<float>(x, "x", {"n"}));
    row(isa).gelu_tanh(y.mutable_data(), y.shape(0));
    return y;
}

py::array_t<float> silu_mul(const std::string& isa, const py::object& gate, const py::object& up) {
    py::array_t<float> y = copy_of(checked_array<float>(gate, "gate", {"n"}));
    const py::array_t<float> factor = checked_array<float>(up, "up", {y.shape(0)});
    row(isa).silu_mul(y.mutable_data(), factor.data(), y.shape(0));
    return y;
}

py::array_t<float> rope_interleaved(const std::string& isa, const py::object& x, const py::object& cosine,
                                    const py::object& sine, float scale) {
    py::array_t<float> y = copy_of(checked_array<float>(x, "x", {"n"}));
    const py::array_t<float> c = checked_array<float>(cosine, "cosine", {y.shape(0) / 2});
    const py::array_t<float> s = checked_array<float>(sine, "sine", {y.shape(0) / 2});
    row(isa).rope_interleaved(y.mutable_data(), c.data(), s.data(), y.shape(0), scale);
    return y;
}

py::array_t<uint16_t> half_from_float(const std::string& isa, const py::object& x) {
    const py::array_t<float> values = checked_array<float>(x, "x", {"n"});
    py::array_t<uint16_t> halves(values.shape(0));
    row(isa).half_from_float(values.data(), values.shape(0), halves.mutable_data());
    return halves;
}

py::array_t<float> float_from_half(const std::string& isa, const py::object& x) {
    const py::array_t<uint16_t> halves = checked_array<uint16_t>(x, "x", {"n"});
    py::array_t<float> values(halves.shape(0));
    row(isa).float_from_half(halves.data(), halves.shape(0), values.mutable_data());
    return values;
}

}  // namespace

void bind_kernels(py::module_& kernels) {
    kernels.def("linear", &linear, py::arg("isa"), py::arg("x"), py::arg("weights"), py::kw_only(), py::arg("type"),
                py::arg("n"), py::arg("bias") = py::none(), py::arg("initial") = py::none(), py::arg("threads") = 1);
    kernels.def("quantize_row_i8", &quantize_row_i8, py::arg("isa"), py::arg("x"));
    kernels.def("attention", &attention, py::arg("isa"), py::arg("q"), py::arg("k"), py::arg("v"), py::arg("visible"));
    kernels.def("layer_norm", &layer_norm, py::arg("isa"), py::arg("x"), py::arg("weight"), py::arg("bias"),
                py::arg("epsilon"));
    kernels.def("rms_norm", &rms_norm, py::arg("isa"), py::arg("x"), py::arg("weight"), py::arg("epsilon"));
    kernels.def("gelu_tanh", &gelu_tanh, py::arg("isa"), py::arg("x"));
    kernels.def("silu_mul", &silu_mul, py::arg("isa"), py::arg("gate"), py::arg("up"));
    kernels.def("rope_interleaved", &rope_interleaved, py::arg("isa"), py::arg("x"), py::arg("cosine"), py::arg("sine"),
                py::arg("scale"));
    kernels.def("half_from_float", &half_from_float, py::arg("isa"), py::arg("x"));
    kernels.def("float_from_half", &float_from_half, py::arg("isa"), py::arg("x"));
}

}  // namespace pocketvlm
