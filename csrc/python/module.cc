// pocketvlm._core: the Python face of the C++ core. This file has the small things; each larger area binds
// itself.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <exception>
#include <map>
#include <string>
#include <vector>

#include "base/check.h"
#include "base/cpu_features.h"
#include "base/stop_flag.h"
#include "base/thread_pool.h"
#include "kernels/kernel_table.h"
#include "model/linear.h"
#include "python/bind.h"

namespace pocketvlm {
namespace {

namespace py = pybind11;

void raise(const char* name, const std::exception& error) {
    const py::object type = py::module_::import("pocketvlm.errors").attr(name);
    // A message may quote a path, which need not be UTF-8.
    const auto message = py::reinterpret_steal<py::object>(PyUnicode_DecodeFSDefault(error.what()));
    if (message) PyErr_SetObject(type.ptr(), message.ptr());
}

// Every C++ exception type has its namesake in pocketvlm.errors.
void translate(std::exception_ptr pending) {
    try {
        if (pending) std::rethrow_exception(pending);
    } catch (const FormatError& error) {
        raise("FormatError", error);
    } catch (const UnsupportedError& error) {
        raise("UnsupportedError", error);
    } catch (const OutOfBudgetError& error) {
        raise("OutOfBudgetError", error);
    } catch (const InputError& error) {
        raise("InputError", error);
    } catch (const Cancelled& error) {
        raise("Cancelled", error);
    } catch (const Error& error) {
        raise("Error", error);
    }
}

const char* name_of_vision_compute(const std::string& isa, const std::string& type,
                                   const std::string& asked) {
    const QuantTraits* traits = find_traits(type);
    if (traits == nullptr)
        throw UnsupportedError(concat("type: ", type, ", expected one of ", known_quant_types()));
    GgufTensor tensor{};
    tensor.type = traits->type;
    const KernelTable& kernels = kernels_for(isa, detect_cpu_features());
    ThreadPool pool(1);
    constexpr int64_t kManyRows = 1024;
    return name_of(activation_type({kernels, pool, arithmetic_named(asked)},
                                   packed_type_of("vision_compute", tensor), kManyRows));
}

std::vector<std::string> available_isas() {
    std::vector<std::string> names;
    for (const KernelTable* row : select_kernels(detect_cpu_features())) names.emplace_back(row->isa);
    return names;
}

// What was compiled by what: a measurement says nothing without it.
std::map<std::string, std::string> build_info() {
#if defined(__clang__)
    const std::string compiler = "Clang " __clang_version__;
#elif defined(__GNUC__)
    const std::string compiler = "GNU " __VERSION__;
#else
    const std::string compiler = "unknown";
#endif
    return {{"compiler", compiler}, {"commit", POCKETVLM_COMMIT}};
}

}  // namespace
}  // namespace pocketvlm

PYBIND11_MODULE(_core, module) {
    namespace py = pybind11;
    using namespace pocketvlm;
    module.doc() = "The compiled core of pocketvlm.";
    py::register_local_exception_translator(&translate);

    module.def(
        "vision_compute",
        [](const std::string& isa, const std::string& type, const std::string& asked) {
            return name_of_vision_compute(isa, type, asked);
        },
        py::arg("isa"), py::arg("type"), py::arg("asked") = "auto",
        "What a row multiplies many rows of activations and weights of a type in: f32, int8 or bf16.");
    module.def("isas", &available_isas, "Kernel table rows that this processor can run, best first.");
    module.def("cpu_features", [] { return feature_names(detect_cpu_features()); });
    module.def("build_info", &build_info,
               "The compiler and the commit of the sources that this was built from.");
    module.def("default_threads", &default_num_threads, "Threads that CPU affinity and CPU quota allow.");

    py::class_<StopFlag>(module, "StopFlag", "Asks long calls to stop; set from any thread.")
        .def(py::init<>())
        .def("set", &StopFlag::set)
        .def("is_set", &StopFlag::is_set);
    py::class_<ThreadPool, std::shared_ptr<ThreadPool>>(module, "ThreadPool")
        .def(py::init<int>(), py::arg("num_threads"))
        .def_property_readonly("num_threads", &ThreadPool::num_threads);

    py::module_ kernels = module.def_submodule("kernels", "Single kernels of every row, for tests.");
    bind_gguf(module);
    bind_generate(module);
    bind_model(module);
    bind_preprocess(module, kernels);
    bind_kernels(kernels);
    bind_roofs(module, kernels);
    bind_kernel_benchmarks(module);
}
