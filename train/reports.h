// What the commands print: aligned tables, and one JSON object where asked for.
#pragma once

#include <string>
#include <vector>

#include "models/summary.h"
#include "train/bench.h"

namespace mgic {

// Columns separated by two spaces; the first is left-aligned, the others right-aligned.
std::string format_table(const std::vector<std::vector<std::string>>& rows);
std::string with_thousands(int64_t n);  // 1,177,034

std::string summary_text(const Summary& summary, const Summary& dense);
std::string summary_json(const Summary& summary, const Summary& dense);
std::string bench_text(const BenchResult& result);
std::string bench_json(const BenchResult& result);

}  // namespace mgic
