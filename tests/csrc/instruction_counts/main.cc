// Calls the kernels of the scalar and the AVX2 row once each, at fixed sizes and on fixed values, so that
// `valgrind --tool=callgrind` counts the instructions of run_kernel for each (count.py). Prints the compiler
// and then, in the order of the calls, a name for each. No AVX-512: valgrind 3.19 does not know it.
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>

#include "base/check.h"
#include "base/cpu_features.h"
#include "benchmarks/kernel_cases.h"

#if defined(__clang__)
#define COMPILER "Clang"
#define COMPILER_VERSION __clang_major__
#else
#define COMPILER "GNU"
#define COMPILER_VERSION __GNUC__
#endif

// callgrind finds it by this name.
extern "C" __attribute__((noinline)) void run_kernel(const pocketvlm::PreparedKernel& kernel) {
    for (int64_t task = 0; task < kernel.num_tasks; ++task) kernel.run(task, 0);
}

namespace pocketvlm {
namespace {

// A few vectors and a rest where a kernel has one; one row, as decoding has, and more than a register tile.
struct Call {
    const char* kernel;
    KernelShape shape;
};
const Call kCalls[] = {
    {"gemm_f32", {"", 1, 256, 48}},
    {"gemm_f32", {"", 13, 256, 48}},
    {"gemm_f16", {"", 1, 256, 48}},
    {"gemm_f16", {"", 13, 256, 48}},
    {"gemm_bf16", {"", 1, 256, 48}},
    {"gemm_bf16", {"", 13, 256, 48}},
    {"gemm_i8", {"", 1, 256, 48}},
    {"gemm_i8", {"", 13, 256, 48}},
    {"gemm_i4", {"", 1, 256, 48}},
    {"gemm_i4", {"", 13, 256, 48}},
    {"dequantize_affine", {"", 0, 256, 48}},
    {"quantize_row_i8", {"", 8, 250, 0}},
    {"attend_block_f32", {"", 13, 64, 200, 1}},
    {"attend_block_f16", {"", 13, 64, 200, 1}},
    {"layer_norm", {"", 8, 250, 0}},
    {"rms_norm", {"", 8, 250, 0}},
    {"gelu_tanh", {"", 8, 250, 0}},
    {"silu_mul", {"", 8, 250, 0}},
    {"rope_interleaved", {"", 8, 64, 0}},
    {"f32_to_f16", {"", 8, 64, 0}},
    {"resize_row_u8", {"", 4, 96, 128}},
    {"resize_gather", {"", 4, 96, 128}},
    {"resize_columns_u8", {"", 16, 12, 250}},
    {"center_patches_bf16", {"", 2, 16, 128}},
    {"center_patches_f32", {"", 2, 16, 128}},
    {"unpack_rgb", {"", 4, 0, 250}},
    {"unpack_rgba", {"", 4, 0, 250}},
    {"unpack_yuv420", {"", 4, 0, 250}},
};

const KernelCase& case_of(const char* kernel) {
    for (const KernelCase& one : kernel_cases()) {
        if (std::strcmp(one.kernel, kernel) == 0) return one;
    }
    throw Error(concat("no kernel ", kernel));
}

void run_row(const char* isa) {
    const KernelTable& kernels = kernels_for(isa, detect_cpu_features());
    for (const Call& call : kCalls) {
        const KernelCase& kernel = case_of(call.kernel);
        if (!kernel.is_in(kernels)) continue;
        const PreparedKernel prepared = kernel.prepare(kernels, call.shape, 0);
        run_kernel(prepared);
        std::printf("%s %s %d,%d,%d\n", isa, call.kernel, static_cast<int>(call.shape.m),
                    static_cast<int>(call.shape.k), static_cast<int>(call.shape.n));
    }
}

}  // namespace
}  // namespace pocketvlm

int main() {
    std::printf("%s %d\n", COMPILER, COMPILER_VERSION);
    pocketvlm::run_row("scalar");
    pocketvlm::run_row("avx2");
}
