#include "kernels/dequantize/panel.inl"
#include "kernels/gemm/gemm.h"

namespace pocketvlm::scalar {

void dequantize_affine(const std::byte* panel, int64_t num_blocks, float* out) noexcept {
    dequantize_panel<kGemmNr>(panel, num_blocks, out);
}

}  // namespace pocketvlm::scalar
