#!/usr/bin/env bash
# Configures and builds: scripts/build.sh [release|debug|asan]. The last line on stdout is the path of the binary.
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

preset=${1:-release}
case $preset in
  release) folder=build ;;
  debug | asan) folder=build/$preset ;;
  *) die "scripts/build.sh: unknown preset \"$preset\"; it is one of release, debug, asan (CMakePresets.json)" ;;
esac

for tool in cmake ninja; do command -v "$tool" >/dev/null || die "$tool is needed; run scripts/setup.sh"; done

# A folder that was configured for a tree that lay elsewhere, or for another build tool, cannot be built in.
cache=$folder/CMakeCache.txt
if [ -e "$cache" ]; then
  source=$(sed -n 's/^CMAKE_HOME_DIRECTORY:INTERNAL=//p' "$cache")
  generator=$(sed -n 's/^CMAKE_GENERATOR:INTERNAL=//p' "$cache")
  if ! [ "$source" -ef . ] || [ "$generator" != Ninja ]; then
    say "$folder was configured for $source ($generator); configuring it anew"
    rm -rf "$cache" "$folder/CMakeFiles"
  fi
fi

say "building ($preset) in $folder"
mkdir -p "$folder"
cmake --preset "$preset" >"$folder/configure.log" 2>&1 || {
  cat "$folder/configure.log" >&2
  die "cmake could not configure the build; scripts/setup.sh installs what is missing"
}
NINJA_STATUS='[%f/%t, %es] ' cmake --build "$folder" --parallel "$(nproc)" >&2
echo "$PWD/$folder/bin/mgic"
