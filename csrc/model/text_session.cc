#include "model/text_session.h"

namespace pocketvlm {

void TextScratch::grow(const TextConfig& config, int64_t rows) {
    const auto grow = [rows](AlignedBuffer<float>& buffer, int64_t columns) {
        buffer.grow(static_cast<size_t>(rows * columns));
    };
    grow(x, config.hidden_size);
    grow(q, config.num_attention_heads * config.head_dim);
    for (AlignedBuffer<float>* buffer : {&k, &v}) grow(*buffer, config.num_key_value_heads * config.head_dim);
    for (AlignedBuffer<float>* buffer : {&cosine, &sine}) grow(*buffer, config.head_dim / 2);
}

size_t TextScratch::bytes() const noexcept {
    size_t bytes = activations.bytes() + attention.bytes() + attended.bytes() + hidden.bytes();
    for (const AlignedBuffer<float>* buffer : {&x, &q, &k, &v, &cosine, &sine}) bytes += buffer->bytes();
    return bytes;
}

}  // namespace pocketvlm
