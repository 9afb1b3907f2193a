// What a core can do at most, as loops that do nothing else: contract. No model runs these; benchmarks hold
// kernels against them.
#pragma once

#include <cstddef>
#include <cstdint>

namespace pocketvlm {

// Multiplies and adds in registers. There are `accumulators` independent registers of `lanes` sums each,
// enough to hide the latency of the instruction; a round adds `depth` products to every lane of every
// register:
//   acc[j, lane] = j + rounds * depth * x * y,  j in [0, accumulators)
// Returns the sum of all lanes, which is exact: nobody can leave a round out unnoticed. 0 <= rounds <=
// kMaxRoofRounds, 0 <= x <= 127, -128 <= y <= 127, |x * y| <= 2 in floats and 200 in integers, so that no sum
// leaves the 24 or 31 bits that hold it.
using RoofRounds = double(int64_t rounds, int x, int y) noexcept;
inline constexpr int64_t kMaxRoofRounds = int64_t{1} << 17;

struct RoofLoop {
    RoofRounds* run;
    int accumulators;
    int lanes;
    int depth;
};

// Reads memory once, from front to back, as weights are read in decoding. Returns the sum modulo 2^64 of the
// 64-bit words. data: 64-byte aligned; bytes % 512 == 0. Prefetches past the end.
using ReadSum = uint64_t(const std::byte* data, int64_t bytes) noexcept;

// What is read ahead of its use: further than hardware looks, near enough to be still in the first cache.
inline constexpr int64_t kReadAhead = 8192;

namespace scalar {
extern const RoofLoop kRoofF32, kRoofI8;
ReadSum read_sum;
}  // namespace scalar

namespace avx2 {
extern const RoofLoop kRoofF32, kRoofI8;
ReadSum read_sum;
}  // namespace avx2

namespace avx512 {
extern const RoofLoop kRoofF32;
ReadSum read_sum;
}  // namespace avx512

namespace avx512_vnni {
extern const RoofLoop kRoofI8;
}

namespace avx512_bf16 {
extern const RoofLoop kRoofBF16;
}

namespace amx {
extern const RoofLoop kRoofI8, kRoofBF16;
}

namespace neon {
extern const RoofLoop kRoofF32;
}

}  // namespace pocketvlm
