// Files: whole reads, atomic writes, and what is said where they fail.
#include <doctest/doctest.h>

#include <filesystem>
#include <string>

#include "core/file.h"
#include "tests/core/thrown.h"
#include "tests/support/temp_folder.h"

using namespace mgic;
using test::TempFolder;
using test::thrown;

TEST_CASE("file: what is written is read, every byte of it") {
  const TempFolder folder;
  std::string bytes;
  for (int i = 0; i < 70000; ++i) bytes += static_cast<char>(i * 31 % 256);
  write_file(folder.path("a"), bytes);
  CHECK(read_file(folder.path("a")) == bytes);
  write_file(folder.path("a"), "");
  CHECK(read_file(folder.path("a")).empty());
  CHECK_FALSE(std::filesystem::exists(folder.path("a.part")));
}

TEST_CASE("file: a write that fails leaves the old file and nothing beside it") {
  const TempFolder folder;
  // The target is a folder with something in it, so the last step, the rename, fails.
  folder.write("target/inside", "old");
  CHECK(thrown([&] { write_file(folder.path("target"), "new"); }) ==
        "UserError: " + folder.path("target") + ": cannot be replaced: Is a directory");
  CHECK(folder.read("target/inside") == "old");
  CHECK_FALSE(std::filesystem::exists(folder.path("target.part")));

  // Where the part beside it cannot be made, the old file stays too.
  folder.write("file", "old");
  std::filesystem::create_directory(folder.path("file.part"));
  CHECK(thrown([&] { write_file(folder.path("file"), "new"); }) ==
        "UserError: " + folder.path("file.part") + ": cannot be opened: Is a directory");
  CHECK(folder.read("file") == "old");
}

TEST_CASE("file: a disk that is full is an error that names the file") {
  if (!std::filesystem::exists("/dev/full")) return;
  CHECK(thrown([] { append_line("/dev/full", "text", false); }) ==
        "UserError: /dev/full: cannot be written: No space left on device");
}

TEST_CASE("file: a folder that takes no file") {
  const TempFolder folder;
  CHECK(thrown([&] { write_file(folder.path("none/a"), "x"); }) ==
        "UserError: " + folder.path("none/a.part") + ": cannot be opened: No such file or directory");
  folder.write("plain", "x");
  CHECK(thrown([&] { write_file(folder.path("plain/a"), "x"); }) ==
        "UserError: " + folder.path("plain/a.part") + ": cannot be opened: Not a directory");
  CHECK(folder.read("plain") == "x");
  if (::geteuid() == 0) return;  // to root every folder is writable
  std::filesystem::create_directory(folder.path("locked"));
  std::filesystem::permissions(folder.path("locked"), std::filesystem::perms::owner_read);
  CHECK(test::has(thrown([&] { write_file(folder.path("locked/a"), "x"); }), "Permission denied"));
  std::filesystem::permissions(folder.path("locked"), std::filesystem::perms::owner_all);
}

TEST_CASE("file: what cannot be read is named") {
  const TempFolder folder;
  CHECK(thrown([&] { read_file(folder.path("none")); }) == "UserError: " + folder.path("none") + ": no such file");
  CHECK(thrown([&] { read_file(folder.path()); }) == "UserError: " + folder.path() + ": is a folder, not a file");
}

TEST_CASE("file: lines are appended, also to a file that is not there yet") {
  const TempFolder folder;
  append_line(folder.path("log"), "one", false);
  append_line(folder.path("log"), "two", true);
  append_line(folder.path("log"), "", true);
  CHECK(folder.read("log") == "one\ntwo\n\n");
  CHECK(thrown([&] { append_line(folder.path("none/log"), "x", false); }) ==
        "UserError: " + folder.path("none/log") + ": cannot be opened: No such file or directory");
}

TEST_CASE("file: sync takes files and folders") {
  const TempFolder folder;
  folder.write("a", "x");
  CHECK(thrown([&] { sync_path(folder.path("a")); }) == "nothing");
  CHECK(thrown([&] { sync_path(folder.path()); }) == "nothing");
  CHECK(thrown([&] { sync_path(folder.path("none")); }) ==
        "UserError: " + folder.path("none") + ": cannot be opened: No such file or directory");
}
