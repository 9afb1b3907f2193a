// Products of quantised activations for many rows at a time. A part of a panel that stays in the first cache
// meets all rows of a group: what is the same for all of them is made once, weights as whole bytes, and their
// scales times each mantissa that an activation's scale can have. Its exponent comes with the dot product:
// the integers are added to the bits of 1.5 * 2^23 times that power of two, which then is taken off as a
// float. That leaves one multiplication for each dot product where the scales' product is one more. Each
// result is bit for bit that of x86_avx512_vnni.cc, which serves fewer rows: what is rounded there is rounded
// here, in the same order, and the rest is exact.
#include <immintrin.h>

#include "kernels/gemm/gemm.h"
#include "kernels/gemm/vector.inl"
#include "kernels/quantize_row/quantize_row.h"
#include "kernels/simd/f32_avx512.h"

namespace pocketvlm::avx512_vnni {
namespace {

constexpr int kWidth = F32x16::kWidth;
constexpr int kVectors = kGemmNr / kWidth;
constexpr int kRows = 3;
constexpr int64_t kGroupRows = 96;
constexpr int kPartBlocks = 8;
constexpr int kMantissas = 1 << kScaleMantissaBits;
constexpr int64_t kBlockBytes = kGemmNr * kI8Block;  // of weights, a byte each

// sum += dot of unsigned and signed bytes, four of k per 32-bit lane. Written as assembly because gcc 12
// surrounds the intrinsic with register copies that halve the speed of the loop.
void dot_four(__m512i& sum, __m512i unsigned_bytes, __m512i signed_bytes) noexcept {
    asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(unsigned_bytes), "v"(signed_bytes));
}

// Written as assembly because gcc 12 would load the same weights again for each row.
__m512i load_once(const std::byte* bytes) noexcept {
    __m512i value;
    asm("vmovdqu64 %1, %0" : "=v"(value) : "m"(*reinterpret_cast<const __m512i_u*>(bytes)));
    return value;
}

__m512i broadcast_four(const int8_t* values) noexcept {
    int32_t four;
    __builtin_memcpy(&four, values, sizeof four);
    return _mm512_set1_epi32(four);
}

// Up to kPartBlocks blocks of a panel.
struct PanelPart {
    int num_blocks;
    const std::byte* weights;                                    // [num_blocks, 8, kGemmNr, 4], unsigned
    int64_t block_stride;                                        // of weights, in bytes
    alignas(64) float scales[kPartBlocks][kMantissas][kGemmNr];  // of weights, times each mantissa
};

// What a row's blocks add to that.
struct RowPart {
    int32_t starts[kPartBlocks];     // the bits of magics less what the weights' offset adds to a dot product
    float magics[kPartBlocks];       // 1.5 * 2^23 times the power of two of the activations' scale
    int32_t mantissas[kPartBlocks];  // of the activations' scale, 0 .. kMantissas - 1
};

// out[r] = (add ? out[r] : 0) + row r's products with the part. values: [R, row_blocks, 32]. That gcc 12
// keeps all dots and sums in registers takes a function of their own and loops that are unrolled by name.
template <int R>
__attribute__((noinline)) void multiply_part(const PanelPart& part, const int8_t* values, int64_t row_blocks,
                                             const RowPart* rows, bool add, float (*out)[kGemmNr]) noexcept {
    __m512 sums[R][kVectors];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
        for (int n = 0; n < kVectors; ++n)
            sums[r][n] = add ? _mm512_load_ps(out[r] + n * kWidth) : _mm512_setzero_ps();
    }
    const std::byte* weights = part.weights;
    for (int b = 0; b < part.num_blocks; ++b, weights += part.block_stride) {
        __m512i dots[R][kVectors];
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) {
            const __m512i start = _mm512_set1_epi32(rows[r].starts[b]);
#pragma GCC unroll 8
            for (int n = 0; n < kVectors; ++n) dots[r][n] = start;
        }
#pragma GCC unroll 8
        for (int i = 0; i < kI8Block / 4; ++i) {
            __m512i weight[kVectors];
#pragma GCC unroll 8
            for (int n = 0; n < kVectors; ++n) weight[n] = load_once(weights + (i * kVectors + n) * 64);
#pragma GCC unroll 8
            for (int r = 0; r < R; ++r) {
                const __m512i value = broadcast_four(values + (r * row_blocks + b) * kI8Block + 4 * i);
#pragma GCC unroll 8
                for (int n = 0; n < kVectors; ++n) dot_four(dots[r][n], weight[n], value);
            }
        }
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) {
            const __m512 magic = _mm512_set1_ps(rows[r].magics[b]);
            const float* scale = part.scales[b][rows[r].mantissas[b]];
#pragma GCC unroll 8
            for (int n = 0; n < kVectors; ++n) {
                const __m512 dot = _mm512_sub_ps(_mm512_castsi512_ps(dots[r][n]), magic);
                sums[r][n] = _mm512_fmadd_ps(_mm512_load_ps(scale + n * kWidth), dot, sums[r][n]);
            }
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
        for (int n = 0; n < kVectors; ++n) _mm512_store_ps(out[r] + n * kWidth, sums[r][n]);
    }
}

// Of `count` blocks, at most kPartBlocks; the others count as zeros.
RowPart row_part(const float* scales, const int32_t* sums, int64_t count, int offset) noexcept {
    static_assert(kPartBlocks == 8);
    constexpr int kFraction = 23;
    const auto present = static_cast<__mmask8>((1u << count) - 1u);
    const __m256i bits = _mm256_maskz_loadu_epi32(present, scales);
    const __m256i offsets =
        _mm256_mullo_epi32(_mm256_maskz_loadu_epi32(present, sums), _mm256_set1_epi32(offset));
    const __m256i exponents = _mm256_andnot_si256(_mm256_set1_epi32((1 << kFraction) - 1), bits);
    const __m256i magics =
        _mm256_add_epi32(exponents, _mm256_set1_epi32((23 << kFraction) + (1 << (kFraction - 1))));
    const __m256i mantissas = _mm256_and_si256(_mm256_srli_epi32(bits, kFraction - kScaleMantissaBits),
                                               _mm256_set1_epi32(kMantissas - 1));
    RowPart row;
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(row.starts), _mm256_sub_epi32(magics, offsets));
    _mm256_storeu_ps(row.magics, _mm256_castsi256_ps(magics));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(row.mantissas), mantissas);
    return row;
}

void set_scales(const Float16* weight_scales, float (*scales)[kGemmNr]) noexcept {
    for (int c = 0; c < kGemmNr; c += kWidth) {
        const F32x16 scale = F32x16::load(weight_scales + c);
        for (int m = 0; m < kMantissas; ++m) {
            const float mantissa = 1.0f + static_cast<float>(m) / kMantissas;
            (scale * F32x16::broadcast(mantissa)).store(scales[m] + c);
        }
    }
}

struct WeightsI8 {
    static constexpr int kOffset = kWeightOffset;
    static constexpr int64_t kStride = i8_panel_block_bytes(kGemmNr);

    void set(const std::byte* blocks, PanelPart& part) noexcept {
        part.weights = blocks + 2 * kGemmNr;
        part.block_stride = kStride;
    }
};

struct WeightsI4 {
    static constexpr int kOffset = kI4Offset;
    static constexpr int64_t kStride = i4_panel_block_bytes(kGemmNr);
    alignas(64) std::byte bytes[kPartBlocks][kBlockBytes];

    void set(const std::byte* blocks, PanelPart& part) noexcept {
        const __m512i low_half = _mm512_set1_epi8(0x0f);
        for (int b = 0; b < part.num_blocks; ++b) {
            const std::byte* pairs = blocks + b * kStride + 2 * kGemmNr;
            for (int64_t i = 0; i < kBlockBytes / 2; i += 64) {
                const __m512i both = _mm512_loadu_si512(pairs + i);
                _mm512_store_si512(bytes[b] + i, _mm512_and_si512(both, low_half));
                _mm512_store_si512(bytes[b] + kBlockBytes / 2 + i,
                                   _mm512_and_si512(_mm512_srli_epi16(both, 4), low_half));
            }
        }
        part.weights = bytes[0];
        part.block_stride = kBlockBytes;
    }
};

template <typename Weights>
void multiply_group(const I8Rows& x, int64_t top, int64_t rows, const std::byte* panel,
                    const GemmOutput& output) noexcept {
    alignas(64) float sums[kGroupRows][kGemmNr];
    Weights weights;
    PanelPart part;
    for (int64_t first = 0; first < x.num_blocks; first += kPartBlocks) {
        const int64_t left = x.num_blocks - first;
        part.num_blocks = static_cast<int>(left < kPartBlocks ? left : kPartBlocks);
        const std::byte* blocks = panel + first * Weights::kStride;
        for (int b = 0; b < part.num_blocks; ++b)
            set_scales(reinterpret_cast<const Float16*>(blocks + b * Weights::kStride), part.scales[b]);
        weights.set(blocks, part);
        for_row_tiles<kRows>(rows, [&](int64_t row, auto count) {
            const int64_t at = (top + row) * x.num_blocks + first;
            RowPart parts[count.value];
            for (int r = 0; r < count.value; ++r) {
                const int64_t block = at + r * x.num_blocks;
                parts[r] = row_part(x.scales + block, x.sums + block, part.num_blocks, Weights::kOffset);
            }
            multiply_part<count.value>(part, x.values + at * kI8Block, x.num_blocks, parts, first != 0,
                                       sums + row);
            if (left > kPartBlocks) return;
            for (int64_t r = row; r < row + count.value; ++r) {
                F32x16 vectors[kVectors];
                for (int n = 0; n < kVectors; ++n) vectors[n] = F32x16::load(sums[r] + n * kWidth);
                store_row(output, top + r, vectors);
            }
        });
    }
}

template <typename Weights>
void multiply(const I8Rows& x, const std::byte* panel, const GemmOutput& output) noexcept {
    for (int64_t row = 0; row < x.rows; row += kGroupRows) {
        const int64_t rows = x.rows - row < kGroupRows ? x.rows - row : kGroupRows;
        multiply_group<Weights>(x, row, rows, panel, output);
    }
}

}  // namespace

void gemm_i8_many(const I8Rows& x, const std::byte* panel, const GemmOutput& output) noexcept {
    multiply<WeightsI8>(x, panel, output);
}

void gemm_i4_many(const I8Rows& x, const std::byte* panel, const GemmOutput& output) noexcept {
    multiply<WeightsI4>(x, panel, output);
}

}  // namespace pocketvlm::avx512_vnni
