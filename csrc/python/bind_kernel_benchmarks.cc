// The kernels of the table one by one, timed in C++, for `pocketvlm bench kernels`.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <string>
#include <tuple>
#include <vector>

#include "base/check.h"
#include "base/cpu_features.h"
#include "benchmarks/time_kernel.h"
#include "python/bind.h"

namespace pocketvlm {
namespace {

namespace py = pybind11;

// index, kernel, kind of its roof, where the model uses it, and m, k, n, heads
using Listed = std::tuple<size_t, std::string, std::string, std::string, std::vector<int64_t>>;

// Those of the kernels that a row has.
std::vector<Listed> list_cases(const std::string& isa) {
    const KernelTable& kernels = kernels_for(isa, detect_cpu_features());
    std::vector<Listed> listed;
    size_t index = 0;
    for (const KernelCase& kernel : kernel_cases()) {
        for (const KernelShape& shape : kernel.shapes) {
            ++index;
            if (!kernel.is_in(kernels)) continue;
            listed.emplace_back(index - 1, kernel.kernel, kernel.kind, shape.use,
                                std::vector<int64_t>{shape.m, shape.k, shape.n, shape.heads});
        }
    }
    return listed;
}

// index: into list_cases(). Returns seconds per call, bytes and operations of a call.
std::tuple<std::vector<double>, double, double> time_case(size_t index, const std::string& isa,
                                                          ThreadPool& pool, int repeat) {
    const KernelTable& kernels = kernels_for(isa, detect_cpu_features());
    size_t first = 0;
    for (const KernelCase& kernel : kernel_cases()) {
        if (index < first + kernel.shapes.size()) {
            if (!kernel.is_in(kernels)) throw UnsupportedError(concat(kernel.kernel, ": ", isa, " lacks it"));
            const py::gil_scoped_release release;
            const KernelTimes times =
                time_kernel(kernel, kernel.shapes[index - first], kernels, pool, repeat);
            return {times.seconds, times.bytes, times.operations};
        }
        first += kernel.shapes.size();
    }
    throw InputError(concat("index: found ", index, ", expected less than ", first));
}

}  // namespace

void bind_kernel_benchmarks(py::module_& module) {
    module.def("kernel_cases", &list_cases, py::arg("isa"));
    module.def("time_kernel", &time_case, py::arg("index"), py::kw_only(), py::arg("isa"), py::arg("pool"),
               py::arg("repeat"));
}

}  // namespace pocketvlm
