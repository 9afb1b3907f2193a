// What the processor and the operating system together allow. Choosing kernels from it is kernel_table's
// task.
#pragma once

#include <string>
#include <vector>

namespace pocketvlm {

struct CpuFeatures {
    bool avx2 = false;
    bool fma = false;
    bool f16c = false;
    bool avx512f = false;
    bool avx512bw = false;
    bool avx512dq = false;
    bool avx512vl = false;
    bool avx512_vnni = false;
    bool avx512_bf16 = false;
    bool amx_tile = false;
    bool amx_int8 = false;
    bool amx_bf16 = false;
    bool neon = false;
};

// x86-64: asks cpuid, and xgetbv for the registers that the operating system saves; Linux gives a process the
// tiles of AMX when it asks for them, which is done here: refused means not there. AArch64 always has NEON.
// All false on other architectures.
CpuFeatures detect_cpu_features() noexcept;

// The names of those that are there, as /proc/cpuinfo spells them (but for neon, which is asimd there).
std::vector<std::string> feature_names(const CpuFeatures& features);

// The features of these names, so that a choice can be tried for a processor that is not here. Throws
// InputError.
CpuFeatures features_named(const std::vector<std::string>& names);

}  // namespace pocketvlm
