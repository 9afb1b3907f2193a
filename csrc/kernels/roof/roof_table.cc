#include "kernels/roof/roof_table.h"

namespace pocketvlm {
namespace {

bool runs_anywhere(const CpuFeatures&) { return true; }

#if defined(__x86_64__)
bool runs_avx2(const CpuFeatures& cpu) { return cpu.avx2 && cpu.fma; }
bool runs_avx512(const CpuFeatures& cpu) {
    return runs_avx2(cpu) && cpu.avx512f && cpu.avx512bw && cpu.avx512dq && cpu.avx512vl;
}
bool runs_avx512_vnni(const CpuFeatures& cpu) { return runs_avx512(cpu) && cpu.avx512_vnni; }
bool runs_avx512_bf16(const CpuFeatures& cpu) { return runs_avx512(cpu) && cpu.avx512_bf16; }
bool runs_amx_int8(const CpuFeatures& cpu) { return cpu.amx_tile && cpu.amx_int8; }
bool runs_amx_bf16(const CpuFeatures& cpu) { return cpu.amx_tile && cpu.amx_bf16; }
#elif defined(__aarch64__)
bool runs_neon(const CpuFeatures& cpu) { return cpu.neon; }
#endif

}  // namespace

const std::vector<Roof>& roof_table() {
    static const std::vector<Roof> table{
#if defined(__x86_64__)
        {"int8", "tdpbusd", runs_amx_int8, amx::kRoofI8, nullptr},
        {"bf16", "tdpbf16ps", runs_amx_bf16, amx::kRoofBF16, nullptr},
        {"int8", "vpdpbusd zmm", runs_avx512_vnni, avx512_vnni::kRoofI8, nullptr},
        {"bf16", "vdpbf16ps zmm", runs_avx512_bf16, avx512_bf16::kRoofBF16, nullptr},
        {"fp32", "vfmadd231ps zmm", runs_avx512, avx512::kRoofF32, nullptr},
        {"int8", "vpmaddubsw ymm", runs_avx2, avx2::kRoofI8, nullptr},
        {"fp32", "vfmadd231ps ymm", runs_avx2, avx2::kRoofF32, nullptr},
        {"read", "vmovdqa64 zmm", runs_avx512, {}, avx512::read_sum},
        {"read", "vmovdqa ymm", runs_avx2, {}, avx2::read_sum},
#elif defined(__aarch64__)
        {"fp32", "fmla v.4s", runs_neon, neon::kRoofF32, nullptr},
#endif
        {"int8", "int32 in C++", runs_anywhere, scalar::kRoofI8, nullptr},
        {"fp32", "float in C++", runs_anywhere, scalar::kRoofF32, nullptr},
        {"read", "uint64 in C++", runs_anywhere, {}, scalar::read_sum},
    };
    return table;
}

}  // namespace pocketvlm
