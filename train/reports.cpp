#include "train/reports.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/fields.h"

namespace mgic {
namespace {

// Columns that a terminal shows for UTF-8 text: one for each code point.
size_t width_of(const std::string& text) {
  return static_cast<size_t>(std::ranges::count_if(text, [](char c) { return (c & 0xC0) != 0x80; }));
}

std::string ratio(int64_t a, int64_t b) {
  return b == 0 ? "" : fmt::format("{:.1f} %", 100.0 * static_cast<double>(a) / static_cast<double>(b));
}

std::vector<int64_t> sizes_of(const Shape& shape) { return {shape.sizes().begin(), shape.sizes().end()}; }

}  // namespace

std::string format_table(const std::vector<std::vector<std::string>>& rows) {
  std::vector<size_t> widths;
  for (const auto& row : rows)
    for (size_t i = 0; i < row.size(); ++i) {
      if (i == widths.size()) widths.push_back(0);
      widths[i] = std::max(widths[i], width_of(row[i]));
    }
  std::string text;
  for (const auto& row : rows) {
    std::string line;
    for (size_t i = 0; i < row.size(); ++i) {
      const std::string gap(widths[i] - width_of(row[i]), ' ');
      line += (i == 0 ? "" : "  ") + (i == 0 ? row[i] + gap : gap + row[i]);
    }
    while (!line.empty() && line.back() == ' ') line.pop_back();
    text += line + "\n";
  }
  return text;
}

std::string with_thousands(int64_t n) {
  std::string text = std::to_string(n);
  for (auto at = static_cast<int64_t>(text.size()) - 3; at > (n < 0 ? 1 : 0); at -= 3)
    text.insert(static_cast<size_t>(at), ",");
  return text;
}

std::string summary_text(const Summary& s, const Summary& dense) {
  std::vector<std::vector<std::string>> rows{{"layer", "type", "output", "parameters", "multiply-accumulates"}};
  for (const LayerSummary& l : s.layers)
    rows.push_back({l.name.empty() ? "(network)" : l.name, l.type, l.output.rank() > 0 ? l.output.str() : "",
                    l.parameters > 0 ? with_thousands(l.parameters) : "", l.macs > 0 ? with_thousands(l.macs) : ""});
  std::vector<std::vector<std::string>> totals{
      {"", "parameters", "multiply-accumulates"},
      {"this network", with_thousands(s.parameters), with_thousands(s.macs)},
      {"its dense twin", with_thousands(dense.parameters), with_thousands(dense.macs)},
      {"share", ratio(s.parameters, dense.parameters), ratio(s.macs, dense.macs)}};
  return format_table(rows) + "\n" + format_table(totals) + "\nfor one sample; output shapes are (N, H, W, C)\n";
}

std::string summary_json(const Summary& s, const Summary& dense) {
  Json json{{"parameters", s.parameters}, {"macs", s.macs}, {"layers", Json::array()}};
  for (const LayerSummary& l : s.layers)
    json["layers"].push_back({{"name", l.name},
                              {"type", l.type},
                              {"output_shape", sizes_of(l.output)},
                              {"parameters", l.parameters},
                              {"macs", l.macs}});
  json["dense"] = {{"parameters", dense.parameters}, {"macs", dense.macs}};
  return json.dump();
}

std::string bench_text(const BenchResult& r) {
  double total = 0;
  for (const LayerTiming& l : r.layers) total += l.forward_ms + l.backward_ms;
  std::vector<std::vector<std::string>> rows{{"layer", "forward ms", "backward ms", "share", "Gflop/s"}};
  for (const LayerTiming& l : r.layers)
    rows.push_back({l.name, fmt::format("{:.3f}", l.forward_ms), fmt::format("{:.3f}", l.backward_ms),
                    fmt::format("{:.1f} %", 100 * (l.forward_ms + l.backward_ms) / std::max(total, 1e-9)),
                    l.gflops > 0 ? fmt::format("{:.1f}", l.gflops) : ""});
  std::vector<std::vector<std::string>> totals{{"training step", fmt::format("{:.2f} ms", r.train_step_ms)},
                                               {"inference", fmt::format("{:.2f} ms", r.infer_ms)},
                                               {"training", fmt::format("{:.0f} images/s", r.images_per_second)},
                                               {"arithmetic", fmt::format("{:.1f} Gflop/s", r.gflops)},
                                               {"peak memory", fmt::format("{:.0f} MiB", r.peak_rss_mb)},
                                               {"batch", std::to_string(r.batch)},
                                               {"parameters", with_thousands(r.parameters)},
                                               {"multiply-accumulates", with_thousands(r.macs)},
                                               {"threads", std::to_string(r.threads)}};
  return format_table(rows) + "\n" + format_table(totals);
}

std::string bench_json(const BenchResult& r) {
  Json json{{"train_step_ms", r.train_step_ms}, {"infer_ms", r.infer_ms}, {"images_per_second", r.images_per_second},
            {"peak_rss_mb", r.peak_rss_mb},     {"gflops", r.gflops},     {"batch", r.batch},
            {"parameters", r.parameters},       {"macs", r.macs},         {"threads", r.threads},
            {"layers", Json::array()}};
  for (const LayerTiming& l : r.layers)
    json["layers"].push_back(
        {{"name", l.name}, {"forward_ms", l.forward_ms}, {"backward_ms", l.backward_ms}, {"gflops", l.gflops}});
  return json.dump();
}

}  // namespace mgic
