// A look inside a forward pass, for tests: each stage hands over its activations by name.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

namespace pocketvlm {

// data: [rows, columns], good during the call. An empty function means that nobody looks.
using Trace = std::function<void(const std::string& stage, const float* data, int64_t rows, int64_t columns)>;

}  // namespace pocketvlm
