// Files: whole reads, and writes that either happen completely or not at all.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

namespace mgic {

std::string read_file(const std::filesystem::path& path);  // throws UserError naming the file

// Writes beside the target, syncs, and renames over it: a reader sees the old file or the new one, never a part.
void write_file(const std::filesystem::path& path, std::string_view bytes);

void sync_path(const std::filesystem::path& path);  // fsync of a file or a folder

// Appends a line, and syncs where asked; throws Error where the disk takes it not.
void append_line(const std::filesystem::path& path, std::string_view line, bool sync);

}  // namespace mgic
