#include "core/device.h"

#include "core/error.h"

namespace mgic {

std::string_view name_of(Device device) {
  switch (device) {
    case Device::cpu:
      return "cpu";
    case Device::reference:
      return "reference";
    case Device::cuda:
      return "cuda";
    case Device::meta:
      return "meta";
  }
  return "?";
}

Device parse_device(std::string_view name) {
  for (Device d : {Device::cpu, Device::reference, Device::cuda, Device::meta})
    if (name_of(d) == name) return d;
  fail_user("\"{}\" is no device; choose one of auto, cpu, reference, cuda, meta", name);
}

}  // namespace mgic
