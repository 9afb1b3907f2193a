#include "base/control_group.h"

#include <algorithm>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

namespace pocketvlm {
namespace {

// v1 reports "no limit" as a page-rounded INT64_MAX; anything from here up means none.
constexpr uint64_t kNoMemoryLimit = uint64_t{1} << 60;

std::optional<std::string> read_line(const std::string& path) {
    std::ifstream file(path);
    std::string line;
    if (!std::getline(file, line)) return std::nullopt;
    return line;
}

std::optional<double> read_number(const std::string& path) {
    const auto line = read_line(path);
    if (!line) return std::nullopt;
    std::istringstream stream(*line);
    double value = 0;
    if (!(stream >> value)) return std::nullopt;  // "max"
    return value;
}

// The process's own group of a v1 controller, or of v2 when `controller` is empty, and all groups above it,
// as folders. /proc/self/cgroup has lines "id:controllers:path".
std::vector<std::string> group_folders(const std::string& controller) {
    const std::string root = controller.empty() ? "/sys/fs/cgroup" : "/sys/fs/cgroup/" + controller;
    std::vector<std::string> folders{root};
    std::ifstream file("/proc/self/cgroup");
    for (std::string line; std::getline(file, line);) {
        const size_t first = line.find(':');
        const size_t second = line.find(':', first + 1);
        if (first == std::string::npos || second == std::string::npos) continue;
        const std::string names = "," + line.substr(first + 1, second - first - 1) + ",";
        const bool matches =
            controller.empty() ? names == ",," : names.find("," + controller + ",") != std::string::npos;
        if (!matches) continue;
        std::string path = line.substr(second + 1);
        while (!path.empty() && path != "/") {
            folders.push_back(root + path);
            path.erase(path.rfind('/'));
        }
    }
    return folders;
}

template <typename T>
void take_minimum(std::optional<T>& least, T value) {
    least = least ? std::min(*least, value) : value;
}

}  // namespace

std::optional<double> control_group_cpu_quota() {
    std::optional<double> quota;
    for (const std::string& folder : group_folders("")) {
        const auto line = read_line(folder + "/cpu.max");  // "QUOTA PERIOD" or "max PERIOD"
        if (!line) continue;
        std::istringstream stream(*line);
        double granted = 0, period = 0;
        if (stream >> granted >> period && period > 0) take_minimum(quota, granted / period);
    }
    for (const std::string& folder : group_folders("cpu")) {
        const auto granted = read_number(folder + "/cpu.cfs_quota_us");
        const auto period = read_number(folder + "/cpu.cfs_period_us");
        if (granted && period && *granted > 0 && *period > 0) take_minimum(quota, *granted / *period);
    }
    return quota;
}

std::optional<uint64_t> control_group_memory_limit() {
    std::optional<uint64_t> limit;
    const auto consider = [&](const std::string& path) {
        const auto bytes = read_number(path);
        if (bytes && *bytes < static_cast<double>(kNoMemoryLimit))
            take_minimum(limit, static_cast<uint64_t>(*bytes));
    };
    for (const std::string& folder : group_folders("")) consider(folder + "/memory.max");
    for (const std::string& folder : group_folders("memory")) consider(folder + "/memory.limit_in_bytes");
    return limit;
}

}  // namespace pocketvlm
