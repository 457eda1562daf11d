#include <charconv>

#include "apps/mgic/commands.h"

namespace mgic::cli {

void Common::add_to(CLI::App& command, const std::string& name, const std::string& what) {
  command.add_option(name, config, what)->required();
  command.add_option("--set", set, "KEY=VALUE: overrides a key of the configuration, for example optimizer.lr=0.05")
      ->expected(1, -1);
  command.add_option("--device", device, "auto, cpu, reference or cuda");
}

Overrides Common::overrides() const {
  Overrides all = set;
  if (!device.empty()) all.push_back("device=\"" + device + "\"");
  return all;
}

Experiment Common::read(const Needs& needs) const { return read_experiment(config, overrides(), needs); }

Shape parse_input(const std::string& text) {
  std::vector<int64_t> sizes;
  const char* at = text.data();
  const char* end = text.data() + text.size();
  while (at < end) {
    int64_t value = 0;
    const auto r = std::from_chars(at, end, value);
    if (r.ec != std::errc() || value < 1 || value > 65536 || (r.ptr != end && *r.ptr != ',')) break;
    sizes.push_back(value);
    at = r.ptr == end ? end : r.ptr + 1;
  }
  if (at != end || sizes.size() != 3 || text.ends_with(","))
    fail_user("--input {}: expects C,H,W, for example 3,32,32", text);
  return {1, sizes[1], sizes[2], sizes[0]};
}

}  // namespace mgic::cli
