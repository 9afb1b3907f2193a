// The parts of the Python module, one function per bound area; module.cc calls them in turn.
#pragma once

#include <pybind11/pybind11.h>

namespace pocketvlm {

void bind_generate(pybind11::module_& module);
void bind_gguf(pybind11::module_& module);
void bind_kernel_benchmarks(pybind11::module_& module);
void bind_kernels(pybind11::module_& kernels);
void bind_model(pybind11::module_& module);
void bind_preprocess(pybind11::module_& module, pybind11::module_& kernels);
void bind_roofs(pybind11::module_& module, pybind11::module_& kernels);

}  // namespace pocketvlm
