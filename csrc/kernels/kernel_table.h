// The dispatch page: which kernels each instruction set (ISA) runs. A model chooses its row once, at load,
// packs its weights for it and keeps it; nothing here is global state. A kernel family's header names the
// function type of each kernel, with its contract, and declares the kernels of every instruction set by it.
#pragma once

#include <string>
#include <vector>

#include "base/cpu_features.h"
#include "kernels/attention/attention.h"
#include "kernels/dequantize/dequantize.h"
#include "kernels/elementwise/elementwise.h"
#include "kernels/gemm/gemm.h"
#include "kernels/normalize/normalize.h"
#include "kernels/quantize_row/quantize_row.h"
#include "kernels/resize/resize.h"
#include "kernels/to_bf16/to_bf16.h"
#include "kernels/unpack/unpack.h"

namespace pocketvlm {

// Products in bfloat16, of weights of any type.
struct Bf16Kernels {
    GemmBf16* gemm_bf16_bf16;
    RowToBf16<float>* row_f32_to_bf16;
    RowToBf16<Float16>* row_f16_to_bf16;
    PanelToBf16* panel_f32_to_bf16;
    PanelToBf16* panel_f16_to_bf16;
    PanelToBf16* panel_bf16_to_bf16;
    PanelToBf16* panel_i8_to_bf16;
    PanelToBf16* panel_i4_to_bf16;
    AttendBlockBf16* attend_block_bf16;
    int64_t min_rows;      // from so many rows on faster than int8 products; 0: never
    int64_t f32_min_rows;  // from so many rows on faster than products and attention in float32; 0: never
};

struct KernelTable {
    const char* isa;
    bool (*runs_on)(const CpuFeatures& features);

    int gemm_nr;           // columns of a panel
    int i8_weight_offset;  // added to int8 weights
    GemmFloat* gemm_f32;
    GemmFloat* gemm_f16;
    GemmFloat* gemm_bf16;
    GemmI8* gemm_i8;
    GemmI8* gemm_i4;
    DequantizeAffine* dequantize_affine;
    const Bf16Kernels* bf16;  // null: nothing here multiplies bfloat16 fast
    QuantizeRowI8* quantize_row_i8;
    AttendBlockF32* attend_block_f32;
    AttendBlockF16* attend_block_f16;
    LayerNorm* layer_norm;
    RmsNorm* rms_norm;
    GeluTanh* gelu_tanh;
    SiluMul* silu_mul;
    RopeInterleaved* rope_interleaved;
    F32ToF16* f32_to_f16;
    ResizeRowU8* resize_row_u8;
    std::vector<const ResizeGather*> resize_gather;  // the first that fits is taken; none: resize_row_u8
    ResizeColumnsU8* resize_columns_u8;
    CenterPatches<BFloat16>* center_patches_bf16;
    CenterPatches<float>* center_patches_f32;
    UnpackRgb* unpack_rgb;
    UnpackRgba* unpack_rgba;
    UnpackYuv420* unpack_yuv420;
};

// Every row compiled for this architecture, best first; the last is scalar.
const std::vector<KernelTable>& kernel_tables();

// The rows that a processor with these features can run, best first. Pure, so that any host can tell for any
// CPU.
std::vector<const KernelTable*> select_kernels(const CpuFeatures& features);

// The row of that name, or the best one for an empty name. Throws UnsupportedError, listing what is there,
// when the processor cannot run it or there is none of that name.
const KernelTable& kernels_for(const std::string& isa, const CpuFeatures& features);

}  // namespace pocketvlm
