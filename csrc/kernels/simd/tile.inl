// The register tile that matrix products and attention share: R rows times N vectors of a vector type V of
// simd/.
#pragma once

#include <cstddef>
#include <cstdint>

namespace pocketvlm {
namespace {

// Fetches so many bytes into the second-level cache: the first one's few buffers for lines on their way are
// needed by the loads. Between loads, a few lines at a time: dozens of fetches in a row fill the same
// buffers.
template <int64_t kBytes>
void prefetch(const std::byte* bytes) noexcept {
    for (int64_t line = 0; line < kBytes; line += 64) __builtin_prefetch(bytes + line, 0, 2);
}

// acc[r][n] += sum_i a[r, i] * b[i, n-th vector], one fused multiply-add per i, in the order of i.
// a: [R, a_stride], b: [k, b_stride]. R * N accumulators, N vectors of b and one of a have to fit the
// register file.
// b may be in any float format that V loads.
// Prefetches b, kAhead bytes ahead, if that is not zero.
template <typename V, int R, int N, int64_t kAhead = 0, typename T>
void multiply_tile(const float* a, int64_t a_stride, const T* b, int64_t b_stride, int64_t k,
                   V (&acc)[R][N]) noexcept {
    for (int64_t i = 0; i < k; ++i) {
        if constexpr (kAhead > 0) {
            prefetch<N * V::kWidth* static_cast<int64_t>(sizeof(T))>(
                reinterpret_cast<const std::byte*>(b + i * b_stride) + kAhead);
        }
        V column[N];
        for (int n = 0; n < N; ++n) column[n] = V::load(b + i * b_stride + n * V::kWidth);
        for (int r = 0; r < R; ++r) {
            const V x = V::broadcast(a[r * a_stride + i]);
            for (int n = 0; n < N; ++n) acc[r][n] = multiply_add(x, column[n], acc[r][n]);
        }
    }
}

template <int R>
struct RowCount {
    static constexpr int value = R;
};

// Calls f(RowCount<rows>{}) for rows in 1..R, so that the count of a remainder is a compile-time constant
// too.
template <int R, typename F>
void with_row_count(int64_t rows, const F& f) noexcept {
    if constexpr (R > 1) {
        if (rows < R) return with_row_count<R - 1>(rows, f);
    }
    f(RowCount<R>{});
}

// Calls f(first row, RowCount<count>{}) for tiles of nearly equal size, R rows at most: eight rows are two
// tiles of four, where six and two would leave the second one waiting for its few sums.
template <int R, typename F>
void for_row_tiles(int64_t rows, const F& f) noexcept {
    int64_t row = 0;
    for (int64_t tiles = (rows + R - 1) / R; tiles > 0; --tiles) {
        const int64_t size = (rows - row + tiles - 1) / tiles;
        with_row_count<R>(size, [&](auto count) { f(row, count); });
        row += size;
    }
}

}  // namespace
}  // namespace pocketvlm
