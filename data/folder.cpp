#include "data/folder.h"

#include <algorithm>
#include <cstdlib>

#include "core/error.h"

namespace mgic {
namespace fs = std::filesystem;
namespace {

std::vector<std::string> names_in(const fs::path& folder, bool folders) {
  std::error_code error;
  std::vector<std::string> names;
  fs::directory_iterator it(folder, error);
  if (error) fail_user("{}: cannot be listed: {}", folder.string(), error.message());
  for (; it != fs::directory_iterator(); it.increment(error)) {
    if (error) fail_user("{}: cannot be listed: {}", folder.string(), error.message());
    const std::string name = it->path().filename().string();
    std::error_code ignored;
    if (!name.starts_with('.') && it->is_directory(ignored) == folders) names.push_back(name);
  }
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace

fs::path data_folder(const std::string& root, const std::vector<std::string>& subfolders) {
  fs::path folder = root;
  if (const char* variable = std::getenv("MGIC_DATA"); folder.empty() && variable != nullptr) folder = variable;
  if (folder.empty()) fail_user("data.root: is missing; it is the folder of the files, else set MGIC_DATA");
  std::error_code ignored;
  for (const std::string& name : subfolders)
    if (fs::is_directory(folder / name, ignored)) return folder / name;
  if (!fs::is_directory(folder, ignored)) fail_user("{}: no such folder; set data.root or MGIC_DATA", folder.string());
  return folder;
}

std::vector<std::string> folders_in(const fs::path& folder) { return names_in(folder, true); }
std::vector<std::string> files_in(const fs::path& folder) { return names_in(folder, false); }

std::string ending_of(const std::string& name) {
  std::string ending = fs::path(name).extension().string();
  std::transform(ending.begin(), ending.end(), ending.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return ending;
}

}  // namespace mgic
