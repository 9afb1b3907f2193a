// The loops that measure what this processor can do at most, for the benchmarks; single loops, under
// _core.kernels, for the tests.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstring>
#include <string>
#include <vector>

#include "base/aligned_buffer.h"
#include "base/check.h"
#include "base/cpu_features.h"
#include "benchmarks/roofs.h"
#include "kernels/roof/roof_table.h"
#include "python/array.h"
#include "python/bind.h"

namespace pocketvlm {
namespace {

std::vector<const Roof*> roofs_of(const CpuFeatures& features) {
    std::vector<const Roof*> roofs;
    for (const Roof& roof : roof_table()) {
        if (roof.runs_on(features)) roofs.push_back(&roof);
    }
    return roofs;
}

// The row of that name that this processor runs. Throws UnsupportedError with those there are.
const Roof& roof_named(const std::string& instruction) {
    std::string there;
    for (const Roof* roof : roofs_of(detect_cpu_features())) {
        if (instruction == roof->instruction) return *roof;
        there += (there.empty() ? "" : ", ") + std::string(roof->instruction);
    }
    throw UnsupportedError(
        concat("instruction: ", instruction, " is not available, expected one of: ", there));
}

double measure(const std::string& instruction, ThreadPool& pool, double seconds) {
    const Roof& roof = roof_named(instruction);
    const py::gil_scoped_release release;
    return measure_roof(roof, pool, seconds);
}

double run(const std::string& instruction, int64_t rounds, int x, int y) {
    const Roof& roof = roof_named(instruction);
    if (roof.loop.run == nullptr)
        throw InputError(concat("instruction: ", instruction, ": computes nothing"));
    if (rounds < 0 || rounds > kMaxRoofRounds)
        throw InputError(concat("rounds: found ", rounds, ", expected 0 to ", kMaxRoofRounds));
    return roof.loop.run(rounds, x, y);
}

uint64_t read_sum(const std::string& instruction, const py::object& words) {
    const Roof& roof = roof_named(instruction);
    if (roof.read == nullptr) throw InputError(concat("instruction: ", instruction, ": reads nothing"));
    const py::array_t<uint64_t> checked = checked_array<uint64_t>(words, "words", {"n"});
    if (checked.nbytes() % 512 != 0)
        throw InputError(concat("words: found ", checked.nbytes(), " bytes, expected a multiple of 512"));
    const AlignedBuffer<std::byte> aligned(static_cast<size_t>(checked.nbytes()));
    auto* data = const_cast<std::byte*>(aligned.data());
    std::memcpy(data, checked.data(), static_cast<size_t>(checked.nbytes()));
    return roof.read(data, checked.nbytes());
}

}  // namespace

void bind_roofs(py::module_& module, py::module_& kernels) {
    py::class_<Roof>(module, "Roof", "An instruction to measure, and what a round of its loop computes.")
        .def_readonly("kind", &Roof::kind)
        .def_readonly("instruction", &Roof::instruction)
        .def_property_readonly("accumulators", [](const Roof& roof) { return roof.loop.accumulators; })
        .def_property_readonly("lanes", [](const Roof& roof) { return roof.loop.lanes; })
        .def_property_readonly("depth", [](const Roof& roof) { return roof.loop.depth; });
    module.def(
        "roofs", [](const std::vector<std::string>& features) { return roofs_of(features_named(features)); },
        py::arg("features"), py::return_value_policy::reference,
        "What a processor with these features can be measured by.");
    module.def("measure_roof", &measure, py::arg("instruction"), py::arg("pool"), py::kw_only(),
               py::arg("seconds"), "Operations or bytes per second.");

    kernels.def("run_roof", &run, py::arg("instruction"), py::kw_only(), py::arg("rounds"), py::arg("x"),
                py::arg("y"));
    kernels.def("read_sum", &read_sum, py::arg("instruction"), py::arg("words"));
    kernels.attr("MAX_ROOF_ROUNDS") = kMaxRoofRounds;
}

}  // namespace pocketvlm
