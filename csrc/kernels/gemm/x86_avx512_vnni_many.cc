// Products of quantised activations for many rows at a time. A part of a panel that stays in the first cache
// meets all rows of a group: what is the same for all of them, weight scales in float32 and weights as whole
// bytes, is made once. Each result is bit for bit that of x86_avx512_vnni.cc, which serves fewer rows: the
// same operations in the same order.
#include <immintrin.h>

#include "kernels/gemm/gemm.h"
#include "kernels/gemm/vector.inl"
#include "kernels/simd/f32_avx512.h"

namespace pocketvlm::avx512_vnni {
namespace {

constexpr int kWidth = F32x16::kWidth;
constexpr int kVectors = kGemmNr / kWidth;
constexpr int kRows = 3;
constexpr int64_t kGroupRows = 96;
constexpr int kPartBlocks = 8;
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
    const std::byte* weights;  // [num_blocks, 8, kGemmNr, 4], unsigned
    int64_t block_stride;      // of weights, in bytes
    alignas(64) float scales[kPartBlocks][kGemmNr];
};

// sums[r] = (add ? sums[r] : 0) + row r's products with the part. starts: [R, kPartBlocks], what the weights'
// offset adds to a block's dot product, taken off. That gcc 12 keeps all dots and sums in registers takes a
// function of their own and loops that are unrolled by name.
template <int R>
__attribute__((noinline)) void multiply_part(const PanelPart& part, const int8_t* values, const float* scales,
                                             int64_t row_blocks, const int32_t* starts, bool add,
                                             float (*out)[kGemmNr]) noexcept {
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
            const __m512i start = _mm512_set1_epi32(starts[r * kPartBlocks + b]);
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
        for (int n = 0; n < kVectors; ++n) {
            const __m512 weight_scale = _mm512_load_ps(part.scales[b] + n * kWidth);
#pragma GCC unroll 8
            for (int r = 0; r < R; ++r) {
                const __m512 scale = _mm512_mul_ps(weight_scale, _mm512_set1_ps(scales[r * row_blocks + b]));
                sums[r][n] = _mm512_fmadd_ps(scale, _mm512_cvtepi32_ps(dots[r][n]), sums[r][n]);
            }
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
        for (int n = 0; n < kVectors; ++n) _mm512_store_ps(out[r] + n * kWidth, sums[r][n]);
    }
}

// starts of `count` blocks, at most kPartBlocks.
void start_row(const int32_t* sums, int64_t count, int offset, int32_t* starts) noexcept {
    static_assert(kPartBlocks == 8);
    const auto present = static_cast<__mmask8>((1u << count) - 1u);
    const __m256i some = _mm256_maskz_loadu_epi32(present, sums);
    _mm256_store_si256(reinterpret_cast<__m256i*>(starts),
                       _mm256_mullo_epi32(some, _mm256_set1_epi32(-offset)));
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
        for (int b = 0; b < part.num_blocks; ++b) {
            const auto* scales = reinterpret_cast<const Float16*>(blocks + b * Weights::kStride);
            for (int c = 0; c < kGemmNr; c += kWidth) F32x16::load(scales + c).store(part.scales[b] + c);
        }
        weights.set(blocks, part);
        for_row_tiles<kRows>(rows, [&](int64_t row, auto count) {
            const int64_t at = (top + row) * x.num_blocks + first;
            alignas(64) int32_t starts[count.value][kPartBlocks];
            for (int r = 0; r < count.value; ++r)
                start_row(x.sums + at + r * x.num_blocks, part.num_blocks, Weights::kOffset, starts[r]);
            multiply_part<count.value>(part, x.values + at * kI8Block, x.scales + at, x.num_blocks, starts[0],
                                       first != 0, sums + row);
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
