// What the commands print: aligned tables, and one JSON object where asked for.
#pragma once

#include <string>
#include <vector>

#include "core/fields.h"
#include "models/summary.h"
#include "train/bench.h"
#include "train/dry_run.h"
#include "train/metrics.h"

namespace mgic {

// Columns separated by two spaces; the first is left-aligned, the others right-aligned.
std::string format_table(const std::vector<std::vector<std::string>>& rows);
// The same with every column left-aligned: for names and sentences.
std::string format_list(const std::vector<std::vector<std::string>>& rows);
std::string with_thousands(int64_t n);  // 1,177,034

std::string summary_text(const Summary& summary, const Summary& dense);
std::string summary_json(const Summary& summary, const Summary& dense);
std::string bench_text(const BenchResult& result);
std::string bench_json(const BenchResult& result);

std::string dry_run_text(const DryRun& result);

struct Evaluation {
  Task task = Task::classification;
  Metrics metrics;
  std::vector<std::string> names;
  std::string weights;
};
std::string evaluation_text(const Evaluation& result);
std::string evaluation_json(const Evaluation& result);

struct Prediction {
  std::string file;
  std::vector<std::pair<std::string, double>> best;  // class and probability, most probable first
};
std::string predictions_text(const std::vector<Prediction>& predictions);
std::string predictions_json(const std::vector<Prediction>& predictions);

std::string schema_text(const std::string& name, const std::string& doc, const Schema& schema);
std::string schema_json(const std::string& name, const std::string& doc, const Schema& schema);

}  // namespace mgic
