// Steady state: from the third step on, a step takes no memory from the system and creates no primitive.
#include <doctest/doctest.h>
#include <fmt/format.h>

#include "train/bench.h"

using namespace mgic;

TEST_CASE("bench: steps in steady state allocate nothing from the system and create no primitive") {
  for (const char* block : {R"({"type": "mgic", "group_size": 4, "coarsest_width": 4})", R"({"type": "basic"})"})
    for (const char* precision : {"f32", "bf16"}) {
      CAPTURE(std::string(block));
      CAPTURE(std::string(precision));
      const std::string text = fmt::format(
          R"({{"model": {{"type": "resnet", "stem": "cifar", "in_channels": 3, "classes": 10, "channels": [16, 24],
              "blocks": [2, 2], "strides": [1, 2], "block": {}}}, "train": {{"precision": "{}"}}}})",
          block, precision);
      const Experiment experiment = parse_experiment(text, "bench.json", {}, {.model = true});
      const BenchResult result = bench(experiment, 4, {1, 15, 13, 3}, Device::cpu, 2);  // two and two after warming up
      CHECK(result.system_allocations == 0);
      CHECK(result.primitives_created == 0);
      CHECK(result.kernel_share > 0);
      CHECK(result.kernel_share <= 1);
      CHECK(result.update_ms < result.profiled_step_ms);
    }
}
