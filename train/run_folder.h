// A run folder (DESIGN section 9):
//   config.json                     the experiment, all defaults filled in
//   metrics.jsonl                   one object per epoch and split
//   log.txt                         what was printed
//   checkpoints/step-N/             model.safetensors (weights by name), state.safetensors (everything else)
//   checkpoints/last, best          links
//   lock                            held by the process that trains here
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/fields.h"
#include "core/safetensors.h"

namespace mgic {

// All that a training needs to go on bit for bit, beside the configuration. Random streams are functions of the seed
// and of these positions, so there is no other random state.
struct Checkpoint {
  std::map<std::string, Tensor> model;      // parameters and buffers
  std::map<std::string, Tensor> optimizer;  // states by name
  Tensor sums;                              // of the unfinished epoch
  int64_t step = 0;                         // optimizer steps done
  int64_t epoch = 0, batch = 0;             // the next batch to train on
  double best = -1;                         // best accuracy so far; -1: none yet
  int64_t metrics_bytes = 0;                // length of metrics.jsonl at this moment
  bool finished = false;
};

class RunFolder {
 public:
  // Creates the folder, or takes one that is there. With `resume` false a folder that holds a run is refused; with it
  // true the run must be of this experiment. Refused too where another process trains in it.
  RunFolder(const std::filesystem::path& folder, const Json& config, bool resume);
  ~RunFolder();
  RunFolder(const RunFolder&) = delete;
  RunFolder& operator=(const RunFolder&) = delete;

  const std::filesystem::path& path() const { return folder_; }
  bool resumed() const { return resumed_; }

  // Written as step-N.tmp, synced, renamed; then the links are replaced and what nobody points to is deleted, but for
  // the generation before the last.
  void save(const Checkpoint& checkpoint, bool is_best);
  // The newest checkpoint that is whole; those that are damaged are named in `warnings`. Nothing: none was written yet.
  static std::optional<Checkpoint> load_last(const std::filesystem::path& folder, std::vector<std::string>& warnings);

  void append_metrics(const std::string& json_line);
  void cut_metrics(int64_t bytes);
  int64_t metrics_bytes() const;
  void log(const std::string& line);

 private:
  class Lock;
  std::filesystem::path folder_;
  std::unique_ptr<Lock> lock_;
  bool resumed_ = false;
};

// The weights that `eval` and others use: FOLDER/checkpoints/best where it exists, else last.
std::filesystem::path weights_of(const std::filesystem::path& folder);

}  // namespace mgic
