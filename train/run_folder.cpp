#include "train/run_folder.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <nlohmann/json.hpp>
#include <set>

#include "core/file.h"

namespace mgic {
namespace fs = std::filesystem;
namespace {

// Files that the product needs; std::filesystem's own exceptions become sentences.
template <class F>
auto or_say(const fs::path& path, const char* what, F&& f) {
  try {
    return f();
  } catch (const fs::filesystem_error& e) {
    fail_user("{}: cannot be {}: {}", path.string(), what, e.code().message());
  }
}

// N of "step-N"; nothing where the name is another.
std::optional<int64_t> step_of(const std::string& name) {
  constexpr std::string_view prefix = "step-";
  if (!name.starts_with(prefix)) return {};
  int64_t step = 0;
  const char* last = name.data() + name.size();
  const auto r = std::from_chars(name.data() + prefix.size(), last, step);
  return r.ec == std::errc() && r.ptr == last ? std::optional(step) : std::nullopt;
}

// Steps that have a folder, newest first.
std::vector<int64_t> steps_in(const fs::path& checkpoints) {
  std::vector<int64_t> steps;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(checkpoints, error))
    if (const auto step = step_of(entry.path().filename().string()); step && !entry.is_symlink())
      steps.push_back(*step);
  std::ranges::sort(steps, std::greater());
  return steps;
}

std::optional<int64_t> step_behind(const fs::path& link) {
  std::error_code error;
  const fs::path target = fs::read_symlink(link, error);
  return error ? std::nullopt : step_of(target.filename().string());
}

fs::path folder_of(const fs::path& checkpoints, int64_t step) { return checkpoints / fmt::format("step-{}", step); }

// The link is never absent: a new one takes its place by a rename.
void point(const fs::path& link, const fs::path& target) {
  fs::path next = link;
  next += ".tmp";
  fs::remove(next);
  fs::create_directory_symlink(target, next);
  fs::rename(next, link);
}

const char* const model_file = "model.safetensors";
const char* const state_file = "state.safetensors";
const char* const optimizer_prefix = "optimizer/";

Checkpoint read_checkpoint(const fs::path& folder) {
  Checkpoint c;
  c.model = read_safetensors(folder / model_file).tensors;
  TensorFile state = read_safetensors(folder / state_file);
  for (auto& [name, tensor] : state.tensors) {
    if (name.starts_with(optimizer_prefix))
      c.optimizer[name.substr(std::strlen(optimizer_prefix))] = tensor;
    else if (name == "sums")
      c.sums = tensor;
  }
  try {
    const Json json = Json::parse(state.metadata.at("state"));
    c.step = json.at("step").get<int64_t>();
    c.epoch = json.at("epoch").get<int64_t>();
    c.batch = json.at("batch").get<int64_t>();
    c.best = json.at("best").get<double>();
    c.metrics_bytes = json.at("metrics_bytes").get<int64_t>();
    c.finished = json.at("finished").get<bool>();
  } catch (const std::exception&) {
    fail_user("{}: its metadata is damaged", (folder / state_file).string());
  }
  if (!c.sums.defined()) fail_user("{}: its running sums are missing", (folder / state_file).string());
  return c;
}

}  // namespace

class RunFolder::Lock {
 public:
  explicit Lock(const fs::path& folder) : fd_(::open((folder / "lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644)) {
    if (fd_ < 0) fail_user("{}: cannot be written: {}", folder.string(), std::strerror(errno));
    if (::flock(fd_, LOCK_EX | LOCK_NB) == 0) return;
    ::close(fd_);
    fail_user("{}: another process trains in this folder; wait for it, or use another --out", folder.string());
  }
  ~Lock() { ::close(fd_); }
  Lock(const Lock&) = delete;
  Lock& operator=(const Lock&) = delete;

 private:
  int fd_;
};

RunFolder::RunFolder(const fs::path& folder, const Json& config, bool resume) : folder_(folder) {
  const fs::path config_file = folder / "config.json";
  or_say(folder, "created", [&] {
    if (fs::exists(folder) && !fs::is_directory(folder)) fail_user("{}: is a file, not a folder", folder.string());
    fs::create_directories(folder);
  });
  lock_ = std::make_unique<Lock>(folder);
  if (fs::exists(config_file)) {
    Json there;
    try {
      there = Json::parse(read_file(config_file));
    } catch (const Json::exception&) {
      fail_user("{}: is damaged; use another --out", config_file.string());
    }
    if (there != config)
      fail_user("{}: holds a run of another configuration; use another --out, or the configuration in its config.json",
                folder.string());
    if (!resume) fail_user("{}: holds a run already; go on with --resume, or use another --out", folder.string());
    resumed_ = true;
  } else {
    write_file(config_file, config.dump(2) + "\n");
  }
  or_say(folder, "written", [&] { fs::create_directories(folder / "checkpoints"); });
}

RunFolder::~RunFolder() = default;

void RunFolder::save(const Checkpoint& c, bool is_best) {
  const fs::path checkpoints = folder_ / "checkpoints";
  const fs::path target = folder_of(checkpoints, c.step);
  fs::path part = target;
  part += ".tmp";
  try {
    or_say(part, "written", [&] {
      fs::remove_all(part);
      fs::create_directory(part);
    });
    write_safetensors(part / model_file, {c.model, {}});
    TensorFile state;
    for (const auto& [name, tensor] : c.optimizer) state.tensors[optimizer_prefix + name] = tensor;
    state.tensors["sums"] = c.sums;
    state.metadata["state"] = Json{
        {"step", c.step},
        {"epoch", c.epoch},
        {"batch", c.batch},
        {"best", c.best},
        {"metrics_bytes", c.metrics_bytes},
        {"finished", c.finished}}.dump();
    write_safetensors(part / state_file, state);
    sync_path(part);
  } catch (...) {
    std::error_code ignored;  // the first failure is the one to report
    fs::remove_all(part, ignored);
    throw;
  }
  or_say(target, "written", [&] {
    const auto before = step_behind(checkpoints / "last");
    if (fs::exists(target)) fs::remove_all(target);  // the same step again: after a resume, or at the very end
    fs::rename(part, target);
    sync_path(checkpoints);
    point(checkpoints / "last", target.filename());
    if (is_best) point(checkpoints / "best", target.filename());
    sync_path(checkpoints);

    std::set<int64_t> keep{c.step};
    if (before) keep.insert(*before);
    if (const auto best = step_behind(checkpoints / "best")) keep.insert(*best);
    // A resumed run may keep a "last" that equals this step; the generation before is then the next older one.
    for (int64_t step : steps_in(checkpoints)) {
      if (step < c.step && (!before || *before == c.step)) {
        keep.insert(step);
        break;
      }
    }
    for (int64_t step : steps_in(checkpoints))
      if (!keep.contains(step)) fs::remove_all(folder_of(checkpoints, step));
  });
}

std::optional<Checkpoint> RunFolder::load_last(const fs::path& folder, std::vector<std::string>& warnings) {
  const fs::path checkpoints = folder / "checkpoints";
  for (int64_t step : steps_in(checkpoints)) {
    try {
      return read_checkpoint(folder_of(checkpoints, step));
    } catch (const UserError& e) {
      warnings.push_back(fmt::format("{}; the checkpoint before it is used", e.what()));
    }
  }
  return {};
}

void RunFolder::append_metrics(const std::string& json_line) {
  append_line(folder_ / "metrics.jsonl", json_line, true);
}

int64_t RunFolder::metrics_bytes() const {
  std::error_code error;
  const auto size = fs::file_size(folder_ / "metrics.jsonl", error);
  return error ? 0 : static_cast<int64_t>(size);
}

void RunFolder::cut_metrics(int64_t bytes) {
  const fs::path file = folder_ / "metrics.jsonl";
  if (metrics_bytes() < bytes)
    fail_user("{}: has {} bytes, but the checkpoint was written after {}; it was changed", file.string(),
              metrics_bytes(), bytes);
  if (metrics_bytes() > bytes) or_say(file, "cut", [&] { fs::resize_file(file, static_cast<uintmax_t>(bytes)); });
}

void RunFolder::log(const std::string& line) { append_line(folder_ / "log.txt", line, false); }

fs::path weights_of(const fs::path& folder) {
  for (const char* link : {"best", "last"})
    if (fs::path file = folder / "checkpoints" / link / model_file; fs::exists(file)) return file;
  fail_user("{}: holds no checkpoint yet", folder.string());
}

}  // namespace mgic
