// The shapes of AMX's tiles in products of bfloat16: up to 16 rows of 64 bytes each. Numbers of tiles are
// constants of the instructions, so that what a kernel keeps where is written out in it.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace pocketvlm {
namespace {

constexpr int kTileRows = 16;
constexpr int kTileColumns = 16;  // of float32, or of pairs of bfloat16
constexpr int kTilePairs = 16;    // along k: 32 of k

// Tiles 0 to 3 hold sums, 4 and 5 left factors, 6 and 7 right ones, which always have 16 rows. Of the others
// 0, 1 and 4 belong to the first row of tiles and have `first` rows, 2, 3 and 5 to the second and have
// `second`, of which none may be used when that is 0.
inline void configure_tiles(int first, int second) noexcept {
    struct alignas(64) {
        uint8_t palette = 1;
        uint8_t start_row = 0;
        uint8_t reserved[14] = {};
        uint16_t row_bytes[16] = {};
        uint8_t rows[16] = {};
    } config;
    static_assert(sizeof config == 64, "as ldtilecfg reads it");
    constexpr int kRowOfTile[] = {0, 0, 1, 1, 0, 1};
    for (int tile = 0; tile < 8; ++tile) {
        const int rows = tile >= 6 ? kTilePairs : kRowOfTile[tile] == 0 ? first : second;
        config.rows[tile] = static_cast<uint8_t>(rows);
        config.row_bytes[tile] = rows == 0 ? 0 : 64;
    }
    asm volatile("ldtilecfg %0" ::"m"(config));  // gcc 12's intrinsic does not say that it reads all of it
}

// Before tiles are loaded from what this function has stored: gcc 12's _tile_loadd does not say that it reads
// memory.
inline void finish_stores() noexcept { asm volatile("" ::: "memory"); }

}  // namespace
}  // namespace pocketvlm
