// What the baseline of the architecture has, and so the scalar kernels, whose plain loops the compiler
// vectorises.
#include "kernels/roof/roof.h"

namespace pocketvlm::scalar {
namespace {

// Registers of sixteen bytes, which every architecture of ours has.
constexpr int kAccumulators = 12;
constexpr int kLanes = 4;
template <typename T>
struct Register {
    typedef T Type __attribute__((vector_size(kLanes * sizeof(T))));
};

template <typename T>
double run(int64_t rounds, int x, int y) noexcept {
    using Vector = typename Register<T>::Type;
    // The sum is multiplied, by one, so that a round's product depends on the round before: it cannot be
    // computed once for all.
    Vector one = Vector{} + T{1};
    asm volatile("" : "+m"(one));
    const Vector product = Vector{} + static_cast<T>(x) * static_cast<T>(y);
    Vector acc[kAccumulators];
    for (int j = 0; j < kAccumulators; ++j) acc[j] = Vector{} + static_cast<T>(j);
    for (int64_t round = 0; round < rounds; ++round) {
        for (Vector& sum : acc) sum = sum * one + product;
    }
    double total = 0;
    for (const Vector sum : acc) {
        for (int lane = 0; lane < kLanes; ++lane) total += static_cast<double>(sum[lane]);
    }
    return total;
}

}  // namespace

const RoofLoop kRoofF32{run<float>, kAccumulators, kLanes, 1};
const RoofLoop kRoofI8{run<int32_t>, kAccumulators, kLanes, 1};

uint64_t read_sum(const std::byte* data, int64_t bytes) noexcept {
    const auto* words = reinterpret_cast<const uint64_t*>(data);
    uint64_t sum = 0;
    for (int64_t i = 0; i < bytes / 8; ++i) sum += words[i];
    return sum;
}

}  // namespace pocketvlm::scalar
