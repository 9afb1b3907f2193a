// What the process's Linux control groups (v1 and v2) grant: CPU time and memory. No limits elsewhere.
#pragma once

#include <cstdint>
#include <optional>

namespace pocketvlm {

// CPUs' worth of time per wall second, the tightest of all enclosing groups. nullopt: no quota.
std::optional<double> control_group_cpu_quota();

// Hard memory limit in bytes, the tightest of all enclosing groups. nullopt: no limit.
std::optional<uint64_t> control_group_memory_limit();

}  // namespace pocketvlm
