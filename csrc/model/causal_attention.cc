#include "model/causal_attention.h"

#include <algorithm>
#include <limits>

#include "model/attention.h"
#include "model/bf16_attention.h"

namespace pocketvlm {
namespace {

constexpr int64_t kQueryPositions = 32;  // per task
constexpr int64_t kConvertedRows = 16;   // per task

struct Heads {
    explicit Heads(const TextConfig& config)
        : all(config.num_attention_heads),
          kv(config.num_key_value_heads),
          group(all / kv),
          dim(config.head_dim) {}

    // The query rows of one key head: position by position, the heads that share it.
    int64_t place(int64_t kv_head, int64_t r) const { return r / group * all + kv_head * group + r % group; }

    int64_t all, kv, group, dim;
};

// A task for each key head and some positions, which go through all of the keys.
template <typename T>
void attend_by_positions(const Heads& heads, const Compute& compute, const KvCache& cache, int64_t layer,
                         int64_t rows, float* q) {
    const int64_t d = heads.dim, start = cache.length();
    const int64_t chunks = (rows + kQueryPositions - 1) / kQueryPositions;
    compute.pool.parallel_for(heads.kv * chunks, [&](int64_t task) {
        const int64_t kv_head = task / chunks, first = task % chunks * kQueryPositions;
        const int64_t positions = std::min(kQueryPositions, rows - first);
        const auto place = [&](int64_t r) { return q + (first * heads.all + heads.place(kv_head, r)) * d; };

        AttentionTask attention(positions * heads.group, d);
        for (int64_t r = 0; r < positions * heads.group; ++r) std::copy_n(place(r), d, attention.q(r));
        for (int64_t key = 0; key < start + first + positions; key += kKeyBlock) {
            attention.fold(compute.kernels, cache.block<T>(layer, kv_head, key / kKeyBlock), key,
                           [&](int64_t r) { return start + first + r / heads.group + 1; });
        }
        for (int64_t r = 0; r < positions * heads.group; ++r) attention.write(r, place(r));
    });
}

void attend_block(const KernelTable& kernels, const AttentionBlock<Float16>& block) {
    kernels.attend_block_f16(block);
}
void attend_block(const KernelTable& kernels, const AttentionBlock<float>& block) {
    kernels.attend_block_f32(block);
}

// A task for each key head and block of keys, for few positions.
template <typename T>
void attend_by_blocks(const Heads& heads, const Compute& compute, const KvCache& cache, int64_t layer,
                      int64_t rows, CausalAttentionScratch& scratch, float* q) {
    const int64_t d = heads.dim, value_dim = padded_head_dim(d), start = cache.length();
    const int64_t blocks = (start + rows + kKeyBlock - 1) / kKeyBlock;
    const int64_t head_rows = rows * heads.group, all_rows = heads.kv * head_rows;
    scratch.q.grow(static_cast<size_t>(all_rows * d));
    scratch.scores.grow(static_cast<size_t>(blocks * all_rows * kKeyBlock));
    scratch.acc.grow(static_cast<size_t>((blocks * all_rows + 1) * value_dim));
    for (AlignedBuffer<float>* buffer : {&scratch.max, &scratch.sum})
        buffer->grow(static_cast<size_t>(blocks * all_rows));
    scratch.visible.grow(static_cast<size_t>(blocks * all_rows));

    for (int64_t i = 0; i < all_rows; ++i)
        std::copy_n(q + heads.place(i / head_rows, i % head_rows) * d, d, scratch.q.data() + i * d);

    // Heads of a block follow each other in memory.
    compute.pool.parallel_for(blocks * heads.kv, [&](int64_t task) {
        const int64_t b = task / heads.kv, kv_head = task % heads.kv, row = task * head_rows;
        float* max = scratch.max.data() + row;
        float* sum = scratch.sum.data() + row;
        float* acc = scratch.acc.data() + row * value_dim;
        int32_t* visible = scratch.visible.data() + row;
        std::fill_n(max, head_rows, -std::numeric_limits<float>::infinity());
        std::fill_n(sum, head_rows, 0.0f);
        std::fill_n(acc, head_rows * value_dim, 0.0f);
        for (int64_t r = 0; r < head_rows; ++r)
            visible[r] = visible_in_block(start + r / heads.group + 1, b * kKeyBlock);
        const KeyValueBlock<T> block = cache.block<T>(layer, kv_head, b);
        attend_block(compute.kernels,
                     AttentionBlock<T>{scratch.q.data() + kv_head * head_rows * d, d, block.k, block.v,
                                       visible, head_rows, d, value_dim,
                                       scratch.scores.data() + row * kKeyBlock, max, sum, acc});
    });

    for (int64_t i = 0; i < all_rows; ++i) {
        AttendedRow all;
        all.acc = scratch.acc.data() + blocks * all_rows * value_dim;
        std::fill_n(all.acc, value_dim, 0.0f);
        for (int64_t b = 0; b < blocks; ++b) {
            const int64_t row = b * all_rows + i;
            all.add({scratch.max.data()[row], scratch.sum.data()[row], scratch.acc.data() + row * value_dim},
                    value_dim);
        }
        all.write(d, q + heads.place(i / head_rows, i % head_rows) * d);
    }
}

template <typename T>
void attend(const Heads& heads, const Compute& compute, const KvCache& cache, int64_t layer, int64_t rows,
            CausalAttentionScratch& scratch, float* q) {
    if (rows > kQueryPositions) {
        attend_by_positions<T>(heads, compute, cache, layer, rows, q);
    } else {
        attend_by_blocks<T>(heads, compute, cache, layer, rows, scratch, q);
    }
}

}  // namespace

size_t CausalAttentionScratch::bytes() const noexcept {
    return q.bytes() + scores.bytes() + acc.bytes() + max.bytes() + sum.bytes() + visible.bytes() +
           q_bf16.bytes() + key_blocks.bytes();
}

void causal_attention(const TextConfig& config, const Compute& compute, const KvCache& cache, int64_t layer,
                      int64_t rows, CausalAttentionScratch& scratch, float* q) {
    const Heads heads(config);
    if (cache.type() == KvType::f16) {
        attend<Float16>(heads, compute, cache, layer, rows, scratch, q);
    } else {
        attend<float>(heads, compute, cache, layer, rows, scratch, q);
    }
}

// The blocks of the cache are turned into bfloat16 once a layer.
template <typename T>
void causal_attention_bf16(const TextConfig& config, const Compute& compute, const KvCache& cache,
                           int64_t layer, int64_t rows, CausalAttentionScratch& scratch, const float* q,
                           T* out, int64_t stride) {
    const Bf16Kernels& kernels = *compute.kernels.bf16;
    const Heads heads(config);
    const int64_t d = heads.dim, group = heads.group, start = cache.length();
    const int64_t num_blocks = (start + rows + kKeyBlock - 1) / kKeyBlock;
    const int64_t block_size = Bf16BlockShape(d).size();
    scratch.key_blocks.grow(static_cast<size_t>(heads.kv * num_blocks * block_size));
    compute.pool.parallel_for(heads.kv * num_blocks, [&](int64_t task) {
        const int64_t kv_head = task / num_blocks, b = task % num_blocks;
        BFloat16* block_bf16 = scratch.key_blocks.data() + task * block_size;
        if (cache.type() == KvType::f16) {
            const auto block = cache.block<Float16>(layer, kv_head, b);
            lay_out_bf16(kernels, block.k, block.v, d, block_bf16);
        } else {
            const auto block = cache.block<float>(layer, kv_head, b);
            lay_out_bf16(kernels, block.k, block.v, d, block_bf16);
        }
    });

    const int64_t key_dim = Bf16BlockShape(d).key_dim;
    scratch.q_bf16.grow(static_cast<size_t>((heads.kv * rows * group + kBf16QueryRows) * key_dim));
    for_row_blocks(compute.pool, rows, kConvertedRows, [&](int64_t first, int64_t count) {
        for (int64_t r = first; r < first + count; ++r) {
            for (int64_t h = 0; h < heads.all; ++h) {
                kernels.row_f32_to_bf16(
                    q + (r * heads.all + h) * d, d,
                    scratch.q_bf16.data() + ((h / group * rows + r) * group + h % group) * key_dim);
            }
        }
    });

    const int64_t chunks = (rows + kQueryPositions - 1) / kQueryPositions;
    compute.pool.parallel_for(heads.kv * chunks, [&](int64_t task) {
        // The last positions see most keys: they come first, so that threads end together.
        const int64_t kv_head = task % heads.kv, first = (chunks - 1 - task / heads.kv) * kQueryPositions;
        const int64_t positions = std::min(kQueryPositions, rows - first);
        const BFloat16* queries = scratch.q_bf16.data() + (kv_head * rows + first) * group * key_dim;
        Bf16AttentionTask attention(kernels, positions * group, d, {queries, key_dim, 1.0f});
        for (int64_t key = 0; key < start + first + positions; key += kKeyBlock) {
            attention.fold(scratch.key_blocks.data() + (kv_head * num_blocks + key / kKeyBlock) * block_size,
                           key, [&](int64_t r) { return start + first + r / group + 1; });
        }
        for (int64_t r = 0; r < positions * group; ++r)
            attention.write(r, out + (first + r / group) * stride + (kv_head * group + r % group) * d);
    });
}

template void causal_attention_bf16(const TextConfig&, const Compute&, const KvCache&, int64_t, int64_t,
                                    CausalAttentionScratch&, const float*, float*, int64_t);
template void causal_attention_bf16(const TextConfig&, const Compute&, const KvCache&, int64_t, int64_t,
                                    CausalAttentionScratch&, const float*, BFloat16*, int64_t);

}  // namespace pocketvlm
