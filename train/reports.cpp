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

std::string aligned(const std::vector<std::vector<std::string>>& rows, bool numbers_right) {
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
      line += (i == 0 ? "" : "  ") + (i == 0 || !numbers_right ? row[i] + gap : gap + row[i]);
    }
    while (!line.empty() && line.back() == ' ') line.pop_back();
    text += line + "\n";
  }
  return text;
}

std::vector<int64_t> sizes_of(const Shape& shape) { return {shape.sizes().begin(), shape.sizes().end()}; }

}  // namespace

std::string format_table(const std::vector<std::vector<std::string>>& rows) { return aligned(rows, true); }
std::string format_list(const std::vector<std::vector<std::string>>& rows) { return aligned(rows, false); }

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
  std::vector<std::vector<std::string>> rows{{"layer", "forward ms", "backward ms", "infer ms", "share", "Gflop/s"}};
  for (const LayerTiming& l : r.layers)
    rows.push_back({l.name, fmt::format("{:.3f}", l.forward_ms), fmt::format("{:.3f}", l.backward_ms),
                    fmt::format("{:.3f}", l.infer_ms),
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
                                               {"threads", std::to_string(r.threads)},
                                               {"inside kernels", fmt::format("{:.1f} %", 100 * r.kernel_share)},
                                               {"system allocations", std::to_string(r.system_allocations)},
                                               {"primitives created", std::to_string(r.primitives_created)}};
  return format_table(rows) + "\n" + format_table(totals) +
         "\nthe last three are of the step in steady state; the share is of training\n";
}

std::string bench_json(const BenchResult& r) {
  Json json{{"train_step_ms", r.train_step_ms},
            {"infer_ms", r.infer_ms},
            {"images_per_second", r.images_per_second},
            {"peak_rss_mb", r.peak_rss_mb},
            {"gflops", r.gflops},
            {"profiled_step_ms", r.profiled_step_ms},
            {"update_ms", r.update_ms},
            {"kernel_share", r.kernel_share},
            {"system_allocations", r.system_allocations},
            {"primitives_created", r.primitives_created},
            {"batch", r.batch},
            {"parameters", r.parameters},
            {"macs", r.macs},
            {"threads", r.threads},
            {"layers", Json::array()}};
  for (const LayerTiming& l : r.layers)
    json["layers"].push_back(
        {{"name", l.name}, {"forward_ms", l.forward_ms}, {"backward_ms", l.backward_ms}, {"gflops", l.gflops}});
  return json.dump();
}

std::string dry_run_text(const DryRun& r) {
  return format_table({{"batch", r.batch.str()},
                       {"output", r.output.str()},
                       {"parameters", with_thousands(r.summary.parameters)},
                       {"multiply-accumulates of one sample", with_thousands(r.summary.macs)},
                       {"loss of the step", fmt::format("{:.4f}", r.loss)},
                       {"training step", fmt::format("{:.1f} ms", r.step_ms)},
                       {"samples a second", fmt::format("{:.1f}", 1e3 * static_cast<double>(r.batch[0]) / r.step_ms)},
                       {"memory: weights", fmt::format("{:.1f} MiB", r.weights_mb)},
                       {"memory: activations, as inferred", fmt::format("{:.1f} MiB", r.activations_mb)},
                       {"memory: peak of the process", fmt::format("{:.0f} MiB", r.peak_rss_mb)}}) +
         "\nno data were read, and nothing was written\n";
}

// Classes beyond this many make no readable confusion matrix.
constexpr size_t most_columns = 20;

std::string evaluation_text(const Evaluation& e) {
  const auto& confusion = e.metrics.confusion;
  const size_t n = confusion.size();
  const bool pixels = e.task == Task::segmentation;
  std::string text;
  if (n > 0) {
    std::vector<std::vector<std::string>> rows{{"class", pixels ? "pixels" : "samples", "recall", "precision"}};
    if (pixels) rows[0].emplace_back("IoU");
    for (size_t c = 0; c < n; ++c) {
      int64_t samples = 0, predicted = 0;
      for (size_t other = 0; other < n; ++other) {
        samples += confusion[c][other];
        predicted += confusion[other][c];
      }
      rows.push_back(
          {e.names[c], with_thousands(samples), ratio(confusion[c][c], samples), ratio(confusion[c][c], predicted)});
      if (pixels) rows.back().push_back(ratio(confusion[c][c], samples + predicted - confusion[c][c]));
    }
    text = format_table(rows);
  }
  if (n > 0 && n <= most_columns) {
    std::vector<std::vector<std::string>> matrix{{"true \\ predicted"}};
    for (size_t c = 0; c < n; ++c) matrix[0].push_back(std::to_string(c));
    for (size_t c = 0; c < n; ++c) {
      matrix.push_back({fmt::format("{} {}", c, e.names[c])});
      for (int64_t count : confusion[c]) matrix.back().push_back(count == 0 ? "." : std::to_string(count));
    }
    text += "\n" + format_table(matrix);
  }
  std::string more;
  if (n > 5 && !pixels) more += fmt::format(", top-5 {:.2f} %", 100 * e.metrics.top5.value_or(0));
  if (n > 0) more += fmt::format(", mean class accuracy {:.2f} %", 100 * e.metrics.mean_class_accuracy());
  return text + fmt::format("\n{}, loss {:.4f}{} on {} samples, with {}\n", e.metrics.text(e.task), e.metrics.loss,
                            more, with_thousands(e.metrics.samples), e.weights);
}

std::string evaluation_json(const Evaluation& e) {
  Json json{{"loss", e.metrics.loss}, {"samples", e.metrics.samples}, {"weights", e.weights}};
  if (e.task == Task::restoration) {
    json["psnr"] = e.metrics.psnr;
    return json.dump();
  }
  json["accuracy"] = e.metrics.accuracy;
  json["classes"] = e.names;
  json["confusion"] = e.metrics.confusion;
  if (e.metrics.confusion.empty()) return json.dump();
  json["mean_class_accuracy"] = e.metrics.mean_class_accuracy();
  if (e.task == Task::classification) {
    json["top5"] = e.metrics.top5.value_or(0);
    return json.dump();
  }
  json["miou"] = e.metrics.mean_iou();
  json["iou"] = Json::array();
  for (size_t c = 0; c < e.metrics.confusion.size(); ++c) {
    const auto iou = e.metrics.iou(c);
    json["iou"].push_back(iou ? Json(*iou) : Json());
  }
  return json.dump();
}

std::string predictions_text(const std::vector<Prediction>& predictions) {
  std::vector<std::vector<std::string>> rows;
  for (const Prediction& p : predictions) {
    rows.push_back({p.file});
    for (const auto& [name, probability] : p.best)
      rows.back().push_back(fmt::format("{} {:5.1f} %", name, 100 * probability));
  }
  return format_list(rows);
}

std::string predictions_json(const std::vector<Prediction>& predictions) {
  Json json{{"predictions", Json::array()}};
  for (const Prediction& p : predictions) {
    Json best = Json::array();
    for (const auto& [name, probability] : p.best) best.push_back({{"class", name}, {"probability", probability}});
    json["predictions"].push_back({{"file", p.file}, {"best", best}});
  }
  return json.dump();
}

std::string schema_text(const std::string& name, const std::string& doc, const Schema& schema) {
  std::vector<std::vector<std::string>> rows{{"key", "type", "default", "meaning", "range"}};
  for (const SchemaEntry& e : schema)
    rows.push_back({e.key, e.type, e.default_value == "null" ? "" : e.default_value, e.doc, e.range});
  return name + (doc.empty() ? "" : ": " + doc) + "\n\n" + (schema.empty() ? "it has no keys\n" : format_list(rows));
}

std::string schema_json(const std::string& name, const std::string& doc, const Schema& schema) {
  Json json{{"name", name}, {"doc", doc}, {"keys", Json::array()}};
  for (const SchemaEntry& e : schema)
    json["keys"].push_back(
        {{"key", e.key}, {"type", e.type}, {"default", e.default_value}, {"range", e.range}, {"doc", e.doc}});
  return json.dump();
}

}  // namespace mgic
