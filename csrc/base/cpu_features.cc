#include "base/cpu_features.h"

#include <algorithm>
#include <cstdint>
#include <iterator>

#include "base/check.h"

#if defined(__x86_64__)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#endif

namespace pocketvlm {
namespace {

struct Feature {
    const char* name;
    bool CpuFeatures::* member;
};

constexpr Feature kFeatures[] = {
    {"avx2", &CpuFeatures::avx2},
    {"fma", &CpuFeatures::fma},
    {"f16c", &CpuFeatures::f16c},
    {"avx512f", &CpuFeatures::avx512f},
    {"avx512bw", &CpuFeatures::avx512bw},
    {"avx512dq", &CpuFeatures::avx512dq},
    {"avx512vl", &CpuFeatures::avx512vl},
    {"avx512_vnni", &CpuFeatures::avx512_vnni},
    {"avx512_bf16", &CpuFeatures::avx512_bf16},
    {"amx_tile", &CpuFeatures::amx_tile},
    {"amx_int8", &CpuFeatures::amx_int8},
    {"amx_bf16", &CpuFeatures::amx_bf16},
    {"neon", &CpuFeatures::neon},
};

#if defined(__x86_64__)
// Asks Linux, once, to let this process use AMX's tiles.
bool tiles_granted() noexcept {
#if defined(__linux__)
    constexpr long kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
    constexpr long kTileData = 18;               // XFEATURE_XTILEDATA
    static const bool granted = syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
    return granted;
#else
    return false;
#endif
}
#endif

}  // namespace

CpuFeatures detect_cpu_features() noexcept {
    CpuFeatures features;
#if defined(__x86_64__)
    const auto bit = [](uint32_t word, int index) { return ((word >> index) & 1u) != 0; };
    uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
    if (__get_cpuid(1, &eax, &ebx, &ecx, &edx) == 0) return features;
    const bool osxsave = bit(ecx, 27), avx = bit(ecx, 28), fma = bit(ecx, 12), f16c = bit(ecx, 29);
    if (!osxsave || !avx) return features;

    uint32_t saved_low = 0, saved_high = 0;
    asm volatile("xgetbv" : "=a"(saved_low), "=d"(saved_high) : "c"(0));
    constexpr uint32_t kYmm = 0x06, kZmm = 0xe6, kTiles = 0x60000;
    if ((saved_low & kYmm) != kYmm) return features;
    features.fma = fma;
    features.f16c = f16c;

    if (__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) == 0) return features;
    features.avx2 = bit(ebx, 5);
    if ((saved_low & kZmm) != kZmm) return features;
    features.avx512f = bit(ebx, 16);
    features.avx512dq = bit(ebx, 17);
    features.avx512bw = bit(ebx, 30);
    features.avx512vl = bit(ebx, 31);
    features.avx512_vnni = bit(ecx, 11);
    if ((saved_low & kTiles) == kTiles && bit(edx, 24) && tiles_granted()) {
        features.amx_tile = true;
        features.amx_bf16 = bit(edx, 22);
        features.amx_int8 = bit(edx, 25);
    }
    if (eax >= 1 && __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) != 0) features.avx512_bf16 = bit(eax, 5);
#elif defined(__aarch64__)
    features.neon = true;
#endif
    return features;
}

std::vector<std::string> feature_names(const CpuFeatures& features) {
    std::vector<std::string> names;
    for (const auto& [name, member] : kFeatures) {
        if (features.*member) names.emplace_back(name);
    }
    return names;
}

CpuFeatures features_named(const std::vector<std::string>& names) {
    CpuFeatures features;
    for (const std::string& wanted : names) {
        const auto* feature =
            std::find_if(std::begin(kFeatures), std::end(kFeatures),
                         [&](const Feature& candidate) { return wanted == candidate.name; });
        if (feature == std::end(kFeatures)) throw InputError(concat("feature: unknown: ", wanted));
        features.*feature->member = true;
    }
    return features;
}

}  // namespace pocketvlm
