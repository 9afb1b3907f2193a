#include <immintrin.h>

#include <cstdint>

#include "kernels/roof/roof.h"
#include "kernels/simd/amx_tiles.h"

namespace pocketvlm::amx {
namespace {

constexpr int kAccumulators = 4;
constexpr int kTileWords = kTileRows * kTileColumns;
constexpr int kRowBytes = 64;

template <typename T>
void fill(T* tile, T value) noexcept {
    for (int i = 0; i < kTileWords; ++i) tile[i] = value;
}

// a, b: one 32-bit word of several factors each. Runs round(), which multiplies into tiles 0 to 3.
template <typename T, typename Round>
double run(int64_t rounds, uint32_t a, uint32_t b, const Round& round) noexcept {
    configure_tiles(kTileRows, kTileRows);
    alignas(64) T start[kAccumulators][kTileWords];
    for (int j = 0; j < kAccumulators; ++j) fill(start[j], static_cast<T>(j));
    alignas(64) uint32_t left[kTileWords], right[kTileWords];
    fill(left, a);
    fill(right, b);
    finish_stores();
    _tile_loadd(0, start[0], kRowBytes);
    _tile_loadd(1, start[1], kRowBytes);
    _tile_loadd(2, start[2], kRowBytes);
    _tile_loadd(3, start[3], kRowBytes);
    _tile_loadd(4, left, kRowBytes);
    _tile_loadd(5, left, kRowBytes);
    _tile_loadd(6, right, kRowBytes);
    _tile_loadd(7, right, kRowBytes);
    for (int64_t i = 0; i < rounds; ++i) round();
    _tile_stored(0, start[0], kRowBytes);
    _tile_stored(1, start[1], kRowBytes);
    _tile_stored(2, start[2], kRowBytes);
    _tile_stored(3, start[3], kRowBytes);
    _tile_release();
    double total = 0;
    for (const auto& tile : start) {
        for (const T lane : tile) total += static_cast<double>(lane);
    }
    return total;
}

uint32_t four_bytes(int value) noexcept { return (static_cast<uint32_t>(value) & 0xffu) * 0x01010101u; }

uint32_t two_bf16(int value) noexcept {
    const auto number = static_cast<float>(value);
    uint32_t bits;
    __builtin_memcpy(&bits, &number, sizeof bits);
    return bits | bits >> 16;
}

double run_i8(int64_t rounds, int x, int y) noexcept {
    return run<int32_t>(rounds, four_bytes(x), four_bytes(y), [] {
        _tile_dpbusd(0, 4, 6);
        _tile_dpbusd(1, 4, 7);
        _tile_dpbusd(2, 5, 6);
        _tile_dpbusd(3, 5, 7);
    });
}

double run_bf16(int64_t rounds, int x, int y) noexcept {
    return run<float>(rounds, two_bf16(x), two_bf16(y), [] {
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    });
}

}  // namespace

const RoofLoop kRoofI8{run_i8, kAccumulators, kTileWords, 64};
const RoofLoop kRoofBF16{run_bf16, kAccumulators, kTileWords, 32};

}  // namespace pocketvlm::amx
