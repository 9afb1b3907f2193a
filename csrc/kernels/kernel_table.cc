#include "kernels/kernel_table.h"

#include "base/check.h"

namespace pocketvlm {
namespace {

bool runs_anywhere(const CpuFeatures&) { return true; }

#if defined(__x86_64__)
bool runs_avx2(const CpuFeatures& cpu) { return cpu.avx2 && cpu.fma && cpu.f16c; }
bool runs_avx512(const CpuFeatures& cpu) {
    return runs_avx2(cpu) && cpu.avx512f && cpu.avx512bw && cpu.avx512dq && cpu.avx512vl;
}
bool runs_avx512_vnni(const CpuFeatures& cpu) { return runs_avx512(cpu) && cpu.avx512_vnni; }
bool runs_avx512_bf16(const CpuFeatures& cpu) { return runs_avx512_vnni(cpu) && cpu.avx512_bf16; }
bool runs_amx(const CpuFeatures& cpu) { return runs_avx512_bf16(cpu) && cpu.amx_tile && cpu.amx_bf16; }
#elif defined(__aarch64__)
bool runs_neon(const CpuFeatures& cpu) { return cpu.neon; }
#endif

constexpr Bf16Kernels kScalarBf16{
    scalar::gemm_bf16_bf16,
    scalar::row_to_bf16,
    scalar::row_to_bf16,
    scalar::panel_f32_to_bf16,
    scalar::panel_f16_to_bf16,
    scalar::panel_bf16_to_bf16,
    scalar::panel_i8_to_bf16,
    scalar::panel_i4_to_bf16,
    scalar::attend_block_bf16,
    0,
    0,
};

#if defined(__x86_64__)
constexpr Bf16Kernels kAvx512Bf16{
    avx512_bf16::gemm_bf16_bf16,
    avx512_bf16::row_to_bf16,
    avx512_bf16::row_to_bf16,
    avx512_bf16::panel_f32_to_bf16,
    avx512_bf16::panel_f16_to_bf16,
    avx512_bf16::panel_bf16_to_bf16,
    avx512_bf16::panel_i8_to_bf16,
    avx512_bf16::panel_i4_to_bf16,
    avx512_bf16::attend_block_bf16,
    0,
    64,
};
constexpr Bf16Kernels kAmxBf16{
    amx::gemm_bf16_bf16,
    avx512_bf16::row_to_bf16,
    avx512_bf16::row_to_bf16,
    avx512_bf16::panel_f32_to_bf16,
    avx512_bf16::panel_f16_to_bf16,
    avx512_bf16::panel_bf16_to_bf16,
    avx512_bf16::panel_i8_to_bf16,
    avx512_bf16::panel_i4_to_bf16,
    amx::attend_block_bf16,
    16,
    16,
};
#endif

}  // namespace

// A column that names another row's kernel borrows it.
const std::vector<KernelTable>& kernel_tables() {
    static const std::vector<KernelTable> tables{
#if defined(__x86_64__)
        {
            "amx",
            runs_amx,
            avx512_vnni::kGemmNr,
            avx512_vnni::kWeightOffset,
            avx512::gemm_f32,
            avx512::gemm_f16,
            avx512::gemm_bf16,
            avx512_vnni::gemm_i8,
            avx512_vnni::gemm_i4,
            avx512::dequantize_affine,
            &kAmxBf16,
            avx512::quantize_row_i8,
            avx512::attend_block_f32,
            avx512::attend_block_f16,
            avx512::layer_norm,
            avx512::rms_norm,
            avx512::gelu_tanh,
            avx512::silu_mul,
            avx512::rope_interleaved,
            avx512::f32_to_f16,
            avx2::resize_row_u8,
            {&avx512_vnni::kResizeGather, &avx2::kResizeGather},
            avx512_vnni::resize_columns_u8,
            avx512::center_patches_bf16,
            avx512::center_patches_f32,
            avx2::unpack_rgb,
            avx2::unpack_rgba,
            avx2::unpack_yuv420,
        },
        {
            "avx512_bf16",
            runs_avx512_bf16,
            avx512_vnni::kGemmNr,
            avx512_vnni::kWeightOffset,
            avx512::gemm_f32,
            avx512::gemm_f16,
            avx512::gemm_bf16,
            avx512_vnni::gemm_i8,
            avx512_vnni::gemm_i4,
            avx512::dequantize_affine,
            &kAvx512Bf16,
            avx512::quantize_row_i8,
            avx512::attend_block_f32,
            avx512::attend_block_f16,
            avx512::layer_norm,
            avx512::rms_norm,
            avx512::gelu_tanh,
            avx512::silu_mul,
            avx512::rope_interleaved,
            avx512::f32_to_f16,
            avx2::resize_row_u8,
            {&avx512_vnni::kResizeGather, &avx2::kResizeGather},
            avx512_vnni::resize_columns_u8,
            avx512::center_patches_bf16,
            avx512::center_patches_f32,
            avx2::unpack_rgb,
            avx2::unpack_rgba,
            avx2::unpack_yuv420,
        },
        {
            "avx512_vnni",
            runs_avx512_vnni,
            avx512_vnni::kGemmNr,
            avx512_vnni::kWeightOffset,
            avx512::gemm_f32,
            avx512::gemm_f16,
            avx512::gemm_bf16,
            avx512_vnni::gemm_i8,
            avx512_vnni::gemm_i4,
            avx512::dequantize_affine,
            nullptr,
            avx512::quantize_row_i8,
            avx512::attend_block_f32,
            avx512::attend_block_f16,
            avx512::layer_norm,
            avx512::rms_norm,
            avx512::gelu_tanh,
            avx512::silu_mul,
            avx512::rope_interleaved,
            avx512::f32_to_f16,
            avx2::resize_row_u8,
            {&avx512_vnni::kResizeGather, &avx2::kResizeGather},
            avx512_vnni::resize_columns_u8,
            avx512::center_patches_bf16,
            avx512::center_patches_f32,
            avx2::unpack_rgb,
            avx2::unpack_rgba,
            avx2::unpack_yuv420,
        },
        {
            "avx512",
            runs_avx512,
            avx512::kGemmNr,
            0,
            avx512::gemm_f32,
            avx512::gemm_f16,
            avx512::gemm_bf16,
            avx512::gemm_i8,
            avx512::gemm_i4,
            avx512::dequantize_affine,
            nullptr,
            avx512::quantize_row_i8,
            avx512::attend_block_f32,
            avx512::attend_block_f16,
            avx512::layer_norm,
            avx512::rms_norm,
            avx512::gelu_tanh,
            avx512::silu_mul,
            avx512::rope_interleaved,
            avx512::f32_to_f16,
            avx2::resize_row_u8,
            {&avx2::kResizeGather},
            avx2::resize_columns_u8,
            avx512::center_patches_bf16,
            avx512::center_patches_f32,
            avx2::unpack_rgb,
            avx2::unpack_rgba,
            avx2::unpack_yuv420,
        },
        {
            "avx2",
            runs_avx2,
            avx2::kGemmNr,
            0,
            avx2::gemm_f32,
            avx2::gemm_f16,
            avx2::gemm_bf16,
            avx2::gemm_i8,
            avx2::gemm_i4,
            avx2::dequantize_affine,
            nullptr,
            avx2::quantize_row_i8,
            avx2::attend_block_f32,
            avx2::attend_block_f16,
            avx2::layer_norm,
            avx2::rms_norm,
            avx2::gelu_tanh,
            avx2::silu_mul,
            avx2::rope_interleaved,
            avx2::f32_to_f16,
            avx2::resize_row_u8,
            {&avx2::kResizeGather},
            avx2::resize_columns_u8,
            avx2::center_patches_bf16,
            avx2::center_patches_f32,
            avx2::unpack_rgb,
            avx2::unpack_rgba,
            avx2::unpack_yuv420,
        },
#elif defined(__aarch64__)
        {
            "neon",
            runs_neon,
            scalar::kGemmNr,
            0,
            scalar::gemm_f32,
            scalar::gemm_f16,
            scalar::gemm_bf16,
            scalar::gemm_i8,
            scalar::gemm_i4,
            scalar::dequantize_affine,
            &kScalarBf16,
            scalar::quantize_row_i8,
            scalar::attend_block_f32,
            scalar::attend_block_f16,
            scalar::layer_norm,
            scalar::rms_norm,
            scalar::gelu_tanh,
            scalar::silu_mul,
            scalar::rope_interleaved,
            scalar::f32_to_f16,
            neon::resize_row_u8,
            {},
            neon::resize_columns_u8,
            neon::center_patches_bf16,
            neon::center_patches_f32,
            neon::unpack_rgb,
            scalar::unpack_rgba,
            scalar::unpack_yuv420,
        },
#endif
        {
            "scalar",
            runs_anywhere,
            scalar::kGemmNr,
            0,
            scalar::gemm_f32,
            scalar::gemm_f16,
            scalar::gemm_bf16,
            scalar::gemm_i8,
            scalar::gemm_i4,
            scalar::dequantize_affine,
            &kScalarBf16,
            scalar::quantize_row_i8,
            scalar::attend_block_f32,
            scalar::attend_block_f16,
            scalar::layer_norm,
            scalar::rms_norm,
            scalar::gelu_tanh,
            scalar::silu_mul,
            scalar::rope_interleaved,
            scalar::f32_to_f16,
            scalar::resize_row_u8,
            {},
            scalar::resize_columns_u8,
            scalar::center_patches_bf16,
            scalar::center_patches_f32,
            scalar::unpack_rgb,
            scalar::unpack_rgba,
            scalar::unpack_yuv420,
        },
    };
    return tables;
}

std::vector<const KernelTable*> select_kernels(const CpuFeatures& features) {
    std::vector<const KernelTable*> rows;
    for (const KernelTable& table : kernel_tables()) {
        if (table.runs_on(features)) rows.push_back(&table);
    }
    return rows;
}

const KernelTable& kernels_for(const std::string& isa, const CpuFeatures& features) {
    const std::vector<const KernelTable*> rows = select_kernels(features);
    if (isa.empty()) return *rows.front();
    std::string there;
    for (const KernelTable* row : rows) {
        if (isa == row->isa) return *row;
        there += (there.empty() ? "" : ", ") + std::string(row->isa);
    }
    throw UnsupportedError(concat("isa: ", isa, " is not available, expected one of: ", there));
}

}  // namespace pocketvlm
