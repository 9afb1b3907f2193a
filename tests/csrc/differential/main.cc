// Compares the image kernels of every row of the kernel table that this processor runs with the scalar ones:
// exact kernels, so equal byte for byte, over random sizes, taps and lengths. What they read and write lies
// between guard pages (guarded.h), as tight as their contracts say.
//
//     differential          fixed seeds, one after the other; prints one line per row and kernel
//     differential SEED     the cases of this seed alone
//
// Ends with 1 at the first difference, or the first touch of a guard page, after a line that names row,
// kernel and seed.
#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "base/cpu_features.h"
#include "guarded.h"
#include "kernels/kernel_table.h"
#include "model/resize_table.h"

namespace pocketvlm {
namespace {

constexpr int64_t kNumSeeds = 1000;

// ---- What runs, what ran, and how a run ends.

uint64_t current_seed;
char current_kernel[128] = "none";
std::map<std::string, int64_t> num_compared;  // by row and kernel

// Names the kernel that runs next.
void enter(const char* isa, const std::string& kernel) {
    std::snprintf(current_kernel, sizeof current_kernel, "%-12s %s", isa, kernel.c_str());
}

[[noreturn]] void fail(const std::string& what) {
    std::printf("%s: seed %llu: %s\n", current_kernel, static_cast<unsigned long long>(current_seed),
                what.c_str());
    std::fflush(stdout);
    std::_Exit(1);
}

// A handler may not print this way in general; this one runs where a kernel, and nothing else, was
// interrupted.
void on_guard_page(int) { fail("touched memory that it may not touch"); }

template <typename T>
void expect_equal(const T* found, const T* expected, int64_t n, const char* what) {
    if (std::memcmp(found, expected, static_cast<size_t>(n) * sizeof(T)) == 0) return;
    int64_t i = 0;
    while (std::memcmp(found + i, expected + i, sizeof(T)) == 0) ++i;
    fail(std::string(what) + ": differs first at " + std::to_string(i) + " of " + std::to_string(n));
}

// ---- Random cases. Distributions of <random> are not the same everywhere: numbers are drawn here.

class Random {
  public:
    explicit Random(uint64_t seed) : engine_(seed) {}

    // In [low, high].
    int64_t between(int64_t low, int64_t high) {
        return low + static_cast<int64_t>(engine_() % static_cast<uint64_t>(high - low + 1));
    }
    bool one_in(int64_t n) { return between(1, n) == 1; }
    // In [1, 512]: lengths of a few elements, of about a vector and of many are equally frequent.
    int64_t length() { return between(1, int64_t{1} << between(0, 9)); }
    Edge edge() { return one_in(2) ? Edge::front : Edge::back; }

  private:
    std::mt19937_64 engine_;
};

// Noise, noise of black and white, which makes filters overshoot as far as they can, or white alone.
void fill_pixels(Random& random, Guarded<uint8_t>& pixels) {
    const int64_t kind = random.between(0, 3);
    for (uint8_t& pixel : pixels) {
        const int64_t noise = random.between(0, 255);
        pixel = static_cast<uint8_t>(kind <= 1 ? noise : kind == 2 ? (noise < 128 ? 0 : 255) : 255);
    }
}

// What the weights of one output add up to at most, signs aside: with any pixels their sum fits an int32, and
// each of them fits the three signed bytes that some kernels split it into.
constexpr int64_t kMostWeight = 127 * 0x010101;

// Random weights of one output.
void fill_weights(Random& random, int32_t* weights, int64_t count) {
    int64_t left = kMostWeight;
    const int64_t thrift = random.between(0, 4);
    for (int64_t k = 0; k < count; ++k) {
        const int64_t weight = random.between(0, left >> thrift);
        left -= weight;
        weights[k] = static_cast<int32_t>(random.one_in(2) ? weight : -weight);
    }
    std::rotate(weights, weights + random.between(0, count - 1), weights + count);
}

ResizeFilter any_filter(Random& random) { return static_cast<ResizeFilter>(random.between(1, 3)); }

// Up to ten times as large, or as small; rarely far smaller.
int64_t resized(Random& random, int64_t size) {
    const int64_t most = random.one_in(10) ? 100 : 10;
    if (random.one_in(2)) return std::min<int64_t>(random.between(size, 10 * size), 1000);
    return std::max<int64_t>(size * 10 / random.between(10, 10 * most), 1);
}

// Taps in memory that ends where they end.
struct GuardedTaps {
    GuardedTaps(Random& random, const ResizeTaps& taps)
        : first(taps.size, random.edge()),
          count(taps.size, random.edge()),
          weights(int64_t{taps.size} * taps.stride, random.edge()),
          view{taps.source_size, taps.size, taps.stride, first.data(), count.data(), weights.data()} {
        std::copy_n(taps.first, first.size(), first.data());
        std::copy_n(taps.count, count.size(), count.data());
        std::copy_n(taps.weights, weights.size(), weights.data());
    }

    Guarded<int32_t> first, count, weights;
    ResizeTaps view;
};

// Taps of no filter: windows that lie and grow as they like, within the contract.
GuardedTaps made_up_taps(Random& random, int32_t source_size) {
    const auto size = static_cast<int32_t>(random.length());
    const auto stride = static_cast<int32_t>(random.between(1, 100));
    const int64_t step = random.between(0, 8);
    std::vector<int32_t> first, count, weights(static_cast<size_t>(size) * static_cast<size_t>(stride));
    for (int32_t x = 0, start = 0; x < size; ++x) {
        const int32_t width = static_cast<int32_t>(random.between(1, std::min(stride, source_size - start)));
        first.push_back(start);
        count.push_back(width);
        fill_weights(random, weights.data() + int64_t{x} * stride, width);
        start = std::min(start + static_cast<int32_t>(random.between(0, step)), source_size - 1);
    }
    return GuardedTaps(random, {source_size, size, stride, first.data(), count.data(), weights.data()});
}

GuardedTaps any_taps(Random& random, const KernelTable& scalar_row) {
    const int64_t source_size = random.length();
    if (random.one_in(4)) return made_up_taps(random, static_cast<int32_t>(source_size));
    const ResizeTable table(Axis::rows, source_size, resized(random, source_size), any_filter(random),
                            scalar_row);
    return GuardedTaps(random, table.taps());
}

// ---- The kernels.

using Rows = std::vector<const KernelTable*>;

constexpr Padding kOwnRow{kRowPadding, kRowPadding};  // may be read around
constexpr Padding kOwnResult{0, kRowPadding};         // may be written behind

void compare_resize_gather(Random& random, const KernelTable& row, size_t which, const GuardedTaps& taps,
                           const std::deque<Guarded<uint8_t>>& sources,
                           const std::vector<std::vector<uint8_t>>& expected) {
    const ResizeGather& gather = *row.resize_gather[which];
    enter(row.isa, "resize_gather " + std::to_string(which));
    int64_t& compared = num_compared[current_kernel];  // there, and 0, where the taps fit in no case
    const int64_t bytes = gather.packed_bytes(taps.view);
    if (bytes == 0) return;
    Guarded<std::byte> packed((bytes + 63) / 64 * 64, random.edge());
    gather.pack(taps.view, packed.data());

    // The last row fills the batch, and fewer sources take turns.
    const int64_t num_rows = random.between(1, 3 * kGatherRows);
    std::deque<Guarded<uint8_t>> results;
    std::vector<const uint8_t*> src;
    std::vector<uint8_t*> dst;
    for (int64_t r = 0; r < num_rows; ++r) {
        results.emplace_back(taps.view.size, random.edge(), kOwnResult);
        src.push_back(sources[static_cast<size_t>(r) % sources.size()].data());
        dst.push_back(results.back().data());
    }
    for (; src.size() % kGatherRows != 0; dst.push_back(dst.back())) src.push_back(src.back());
    gather.run(src.data(), static_cast<int64_t>(src.size()), packed.data(), dst.data());
    for (size_t r = 0; r < results.size(); ++r) {
        expect_equal(dst[r], expected[r % sources.size()].data(), taps.view.size, "pixels of a row");
    }
    ++compared;
}

void compare_resize_rows(Random& random, const Rows& rows) {
    const GuardedTaps taps = any_taps(random, *rows.back());
    std::deque<Guarded<uint8_t>> sources;
    std::vector<std::vector<uint8_t>> expected;
    for (int r = 0; r < 5; ++r) {
        sources.emplace_back(taps.view.source_size, random.edge(), kOwnRow);
        fill_pixels(random, sources.back());
        expected.emplace_back(static_cast<size_t>(taps.view.size));
        enter("scalar", "resize_row_u8");
        scalar::resize_row_u8(sources.back().data(), taps.view, expected.back().data());
    }
    for (const KernelTable* row : rows) {
        enter(row->isa, "resize_row_u8");
        Guarded<uint8_t> result(taps.view.size, random.edge(), kOwnResult);
        row->resize_row_u8(sources[0].data(), taps.view, result.data());
        expect_equal(result.data(), expected[0].data(), result.size(), "pixels");
        ++num_compared[current_kernel];
        for (size_t i = 0; i < row->resize_gather.size(); ++i) {
            compare_resize_gather(random, *row, i, taps, sources, expected);
        }
    }
}

// Weights of two outputs, [2, count].
std::vector<int32_t> any_pair_weights(Random& random, const KernelTable& scalar_row) {
    if (random.one_in(4)) {
        const int64_t count = random.one_in(8) ? random.between(250, 300) : random.between(1, 40);
        std::vector<int32_t> weights(static_cast<size_t>(2 * count));
        for (int64_t o = 0; o < 2; ++o) fill_weights(random, weights.data() + o * count, count);
        return weights;
    }
    const int64_t source_size = random.length(), size = resized(random, source_size);
    const ResizeTable table(Axis::columns, source_size, size, any_filter(random), scalar_row);
    const ResizeTable::Pair pair = table.pair(random.between(0, (size - 1) / 2));
    return {pair.weights, pair.weights + 2 * int64_t{pair.count}};
}

void compare_resize_columns(Random& random, const Rows& rows) {
    const std::vector<int32_t> chosen = any_pair_weights(random, *rows.back());
    const auto count = static_cast<int32_t>(chosen.size() / 2);
    const int64_t n = random.length();
    Guarded<int32_t> weights(2 * count, random.edge());
    std::copy(chosen.begin(), chosen.end(), weights.data());

    // Windows of hundreds of rows repeat these.
    std::deque<Guarded<uint8_t>> different;
    for (int32_t k = 0; k < std::min(count, 8); ++k) {
        different.emplace_back(n, random.edge(), kOwnRow);
        fill_pixels(random, different.back());
    }
    Guarded<const uint8_t*> sources(count, random.edge());
    for (int32_t k = 0; k < count; ++k) sources.data()[k] = different[static_cast<size_t>(k) % 8].data();

    std::vector<uint8_t> expected[2] = {std::vector<uint8_t>(n), std::vector<uint8_t>(n)};
    uint8_t* const expected_rows[2] = {expected[0].data(), expected[1].data()};
    enter("scalar", "resize_columns_u8");
    scalar::resize_columns_u8(sources.data(), weights.data(), count, n, expected_rows);

    // Where both outputs are one, as at the end of an image of odd height.
    const bool is_one = std::equal(chosen.begin(), chosen.begin() + count, chosen.begin() + count);
    for (const KernelTable* row : rows) {
        enter(row->isa, "resize_columns_u8");
        Guarded<uint8_t> a(n, random.edge(), kOwnResult), b(n, random.edge(), kOwnResult);
        uint8_t* const dst[2] = {a.data(), is_one ? a.data() : b.data()};
        row->resize_columns_u8(sources.data(), weights.data(), count, n, dst);
        for (int o = 0; o < 2; ++o) {
            expect_equal(dst[o], expected[o].data(), n, o == 0 ? "first row" : "second row");
        }
        ++num_compared[current_kernel];
    }
}

template <typename T>
void compare_center_patches(Random& random, const Rows& rows, const char* name, CenterPatches<T>& reference,
                            CenterPatches<T>* KernelTable::* kernel) {
    const int64_t patch_size = random.one_in(2) ? random.between(1, 40) : random.one_in(2) ? 16 : 14;
    const int64_t num_patches = random.between(1, 9), first = random.between(0, 40);
    const int64_t area = patch_size * patch_size;
    const int64_t patch_stride = random.one_in(2) ? 3 * area : area + random.between(0, 9);

    std::deque<Guarded<uint8_t>> pixels;
    Guarded<const uint8_t*> sources(patch_size, random.edge());
    for (const uint8_t*& source : sources) {
        pixels.emplace_back(first + num_patches * patch_size, random.edge());
        fill_pixels(random, pixels.back());
        source = pixels.back().data();
    }

    // What lies between the patches stays as it was, too.
    const int64_t size = (num_patches - 1) * patch_stride + area;
    Guarded<T> expected(size, random.edge());
    enter("scalar", name);
    reference(sources.data(), first, num_patches, patch_size, patch_stride, expected.data());
    for (const KernelTable* row : rows) {
        enter(row->isa, name);
        Guarded<T> found(size, random.edge());
        (row->*kernel)(sources.data(), first, num_patches, patch_size, patch_stride, found.data());
        expect_equal(found.data(), expected.data(), size, "values");
        ++num_compared[current_kernel];
    }
}

void compare_unpack_rgb(Random& random, const Rows& rows) {
    const int64_t n = random.length();
    Guarded<uint8_t> source(3 * n, random.edge());  // the caller's: nothing is read around it
    fill_pixels(random, source);
    std::vector<uint8_t> r(n), g(n), b(n);
    enter("scalar", "unpack_rgb");
    scalar::unpack_rgb(source.data(), n, {r.data(), g.data(), b.data()});
    for (const KernelTable* row : rows) {
        enter(row->isa, "unpack_rgb");
        Guarded<uint8_t> found_r(n, random.edge(), kOwnResult);
        Guarded<uint8_t> found_g(n, random.edge(), kOwnResult);
        Guarded<uint8_t> found_b(n, random.edge(), kOwnResult);
        row->unpack_rgb(source.data(), n, {found_r.data(), found_g.data(), found_b.data()});
        expect_equal(found_r.data(), r.data(), n, "red");
        expect_equal(found_g.data(), g.data(), n, "green");
        expect_equal(found_b.data(), b.data(), n, "blue");
        ++num_compared[current_kernel];
    }
}

void compare_all(const Rows& rows, uint64_t seed) {
    current_seed = seed;
    Random random(seed);
    compare_unpack_rgb(random, rows);
    compare_resize_rows(random, rows);
    compare_resize_columns(random, rows);
    compare_center_patches<BFloat16>(random, rows, "center_patches_bf16", scalar::center_patches_bf16,
                                     &KernelTable::center_patches_bf16);
    compare_center_patches<float>(random, rows, "center_patches_f32", scalar::center_patches_f32,
                                  &KernelTable::center_patches_f32);
}

int run(int argc, char** argv) {
    std::signal(SIGSEGV, on_guard_page);
    std::signal(SIGBUS, on_guard_page);
    const Rows rows = select_kernels(detect_cpu_features());
    if (argc == 2) {
        compare_all(rows, std::strtoull(argv[1], nullptr, 10));
    } else {
        for (uint64_t seed = 0; seed < kNumSeeds; ++seed) compare_all(rows, seed);
    }
    for (const auto& [kernel, count] : num_compared) {
        std::printf("%-34s %5lld cases equal\n", kernel.c_str(), static_cast<long long>(count));
        if (count == 0 && argc != 2) {
            std::printf("%s: no case reached it\n", kernel.c_str());
            return 1;
        }
    }
    return 0;
}

}  // namespace
}  // namespace pocketvlm

int main(int argc, char** argv) { return pocketvlm::run(argc, argv); }
