#!/usr/bin/env bash
# Installs what building and testing need, where it is missing, on Debian and Ubuntu; elsewhere says what is missing
# and how it is called there. Quick where nothing is missing.
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

# What it is for | how to tell that it is there: a program or a header | Debian and Ubuntu | Fedora | Arch
required=(
  "C++20 compiler|g++|g++|gcc-c++|gcc"
  "build files|cmake|cmake|cmake|cmake"
  "build|ninja|ninja-build|ninja-build|ninja"
  "tests and demo|python3|python3|python3|python"
  "CPU convolutions (oneDNN 2.6 or later)|oneapi/dnnl/dnnl.hpp|libdnnl-dev|onednn-devel|onednn"
  "configurations|nlohmann/json.hpp|nlohmann-json3-dev|json-devel|nlohmann-json"
  "images|stb/stb_image.h|libstb-dev|stb_image-devel stb_image_write-devel|stb"
  "tests|doctest/doctest.h|doctest-dev|doctest-devel|doctest"
  "command line|CLI/CLI.hpp|libcli11-dev|cli11-devel|cli11"
  "messages|fmt/core.h|libfmt-dev|fmt-devel|fmt"
  "SIMD kernels (Highway)|hwy/highway.h|libhwy-dev|highway-devel|highway"
  "compressed data files|zlib.h|zlib1g-dev|zlib-devel|zlib"
)

installed() { [[ "$(dpkg-query -W -f='${db:Status-Status} ' "$1" 2>/dev/null)" == installed* ]]; }

in_archive() { apt-cache show "$1" >/dev/null 2>&1; }

# Downloads fail now and then: once more before giving up.
twice() { "$@" || { say "that failed; once more in 5 seconds"; sleep 5; "$@"; }; }

as_root() {
  if [ "$(id -u)" = 0 ]; then
    env DEBIAN_FRONTEND=noninteractive "$@"
  else
    sudo env DEBIAN_FRONTEND=noninteractive "$@"
  fi
}

install() { as_root apt-get install -y -q --no-install-recommends -o Dpkg::Use-Pty=0 "$@" >&2; }

debian() {
  local row probe package missing=() wanted=()
  for row in "${required[@]}"; do
    IFS='|' read -r _ probe package _ <<<"$row"
    # A program may come from elsewhere; a library must be the package, so that CMake finds its files.
    if [[ $probe != */* && $probe != *.h ]] && command -v "$probe" >/dev/null; then continue; fi
    installed "$package" || missing+=("$package")
  done
  command -v ccache >/dev/null || wanted+=(ccache)
  [ -n "$(fashion_mnist_folder)" ] || wanted+=(dataset-fashion-mnist)
  installed libhdf5-dev || wanted+=(libhdf5-dev)

  if [ ${#missing[@]} -gt 0 ] || [ ${#wanted[@]} -gt 0 ]; then
    say "to be installed: ${missing[*]} ${wanted[*]}"
    if [ "$(id -u)" != 0 ] && ! command -v sudo >/dev/null; then
      if [ ${#missing[@]} -gt 0 ]; then
        die "this needs root, and there is no sudo; run as root: apt-get install ${missing[*]} ${wanted[*]}"
      fi
      say "warning: not installed, for want of root: ${wanted[*]}"
      return
    fi
    twice as_root apt-get update -q >&2 || say "warning: apt-get update failed; trying with the lists that are there"
    if [ ${#missing[@]} -gt 0 ]; then
      twice install "${missing[@]}" || die "apt-get could not install: ${missing[*]}"
    fi
    for package in "${wanted[@]}"; do
      if in_archive "$package" && twice install "$package"; then continue; fi
      if [ "$package" = dataset-fashion-mnist ]; then
        say "warning: apt has no dataset-fashion-mnist. Put the four files of Fashion-MNIST into a folder and name it" \
          "in MGIC_DATA, or use the built-in data set \"shapes\", which needs no files."
      elif [ "$package" = libhdf5-dev ]; then
        say "note: going on without $package; the HDF5 files of ModelNet cannot be read then"
      else
        say "note: going on without $package, which only makes repeated builds faster"
      fi
    done
  fi
  local version
  version=$(dpkg-query -W -f='${Version}' libdnnl-dev 2>/dev/null || true)
  if [ -n "$version" ] && dpkg --compare-versions "$version" lt 2.6; then
    say "warning: oneDNN $version is too old, 2.6 is needed: Debian 12 and Ubuntu 24.04 have it," \
      "https://github.com/oneapi-src/oneDNN has the source"
  fi
}

elsewhere() {
  local row what probe debian fedora arch bad=0
  for row in "${required[@]}"; do
    IFS='|' read -r what probe debian fedora arch <<<"$row"
    if [[ $probe == */* || $probe == *.h ]]; then
      if ! command -v g++ >/dev/null; then continue; fi
      echo "#include <$probe>" | g++ -std=c++20 -E -x c++ - >/dev/null 2>&1 && continue
    else
      command -v "$probe" >/dev/null && continue
    fi
    if [ $bad = 0 ]; then
      say "This is not Debian or Ubuntu, so nothing is installed here. Please install what is missing:"
      say "$(printf '  %-42s %-24s %-22s %-40s %s' 'what for' 'looked for' 'Debian' 'Fedora' 'Arch')"
    fi
    bad=1
    say "$(printf '  %-42s %-24s %-22s %-40s %s' "$what" "$probe" "$debian" "$fedora" "$arch")"
  done
  command -v g++ >/dev/null || say "(the libraries can be looked for once there is a compiler)"
  [ $bad = 0 ] || exit 1
  if [ -z "$(fashion_mnist_folder)" ]; then
    say "note: Fashion-MNIST was not found. Put its four files into a folder and name it in MGIC_DATA," \
      "or use the built-in data set \"shapes\", which needs no files."
  fi
}

if command -v apt-get >/dev/null && command -v dpkg-query >/dev/null; then debian; else elsewhere; fi
say "setup: everything that the build needs is there"
