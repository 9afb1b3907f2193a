#include "base/cpu_features.h"

#include <cstdint>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace pocketvlm {

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
    constexpr uint32_t kYmm = 0x06, kZmm = 0xe6;
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
#endif
    return features;
}

std::vector<std::string> feature_names(const CpuFeatures& features) {
    std::vector<std::string> names;
    const auto add = [&](bool present, const char* name) {
        if (present) names.emplace_back(name);
    };
    add(features.avx2, "avx2");
    add(features.fma, "fma");
    add(features.f16c, "f16c");
    add(features.avx512f, "avx512f");
    add(features.avx512bw, "avx512bw");
    add(features.avx512dq, "avx512dq");
    add(features.avx512vl, "avx512vl");
    add(features.avx512_vnni, "avx512_vnni");
    return names;
}

}  // namespace pocketvlm
