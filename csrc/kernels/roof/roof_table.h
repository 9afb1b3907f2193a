// What can be measured of a processor at most, beside the dispatch page: no row of kernel_table is chosen by
// it.
#pragma once

#include <vector>

#include "base/cpu_features.h"
#include "kernels/roof/roof.h"

namespace pocketvlm {

struct Roof {
    const char* kind;         // fp32, bf16, int8: multiplications and additions; read: bytes of memory
    const char* instruction;  // the name of the row, too: no two are the same
    bool (*runs_on)(const CpuFeatures& features);
    RoofLoop loop;  // of arithmetic
    ReadSum* read;  // of memory; else null
};

// Every row compiled for this architecture, the fastest kind of instruction first.
const std::vector<Roof>& roof_table();

}  // namespace pocketvlm
