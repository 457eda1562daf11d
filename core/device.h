// Where a tensor lives and which backend computes on it.
#pragma once

#include <cstdint>
#include <string_view>

namespace mgic {

// cpu: oneDNN and SIMD kernels. reference: the naive oracle, in host memory too. cuda: a GPU.
// meta: shapes only, no data; nothing is computed.
enum class Device : uint8_t { cpu, reference, cuda, meta };

std::string_view name_of(Device device);
Device parse_device(std::string_view name);  // throws UserError listing the names; "auto" is the backends' to resolve
inline bool on_host(Device d) { return d == Device::cpu || d == Device::reference; }

}  // namespace mgic
