// Where a data set's files lie, and what is in a folder.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace mgic {

// The folder `root`, or the one that the environment variable MGIC_DATA names where root is empty; its subfolder of one
// of these names where there is one. Throws UserError where there is no such folder.
std::filesystem::path data_folder(const std::string& root, const std::vector<std::string>& subfolders);

// The names in a folder, sorted by their bytes; what begins with a dot is left out. Throws UserError naming the folder.
std::vector<std::string> folders_in(const std::filesystem::path& folder);
std::vector<std::string> files_in(const std::filesystem::path& folder);

// The name's ending in lower case, as ".png".
std::string ending_of(const std::string& name);

}  // namespace mgic
