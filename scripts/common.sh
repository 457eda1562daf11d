# shellcheck shell=bash
# Sourced by the other scripts: stops at the first error, and works from the root of the tree wherever it is called.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

say() { printf '%s\n' "$*" >&2; }

heading() { say; say "== $* =="; }

die() {
  say "error: $*"
  exit 1
}

# Where Fashion-MNIST lies, in the order in which the data set itself looks (data/fashion_mnist.h); nothing where it is
# not to be found.
fashion_mnist_folder() {
  local folder
  for folder in ${MGIC_DATA:+"$MGIC_DATA" "$MGIC_DATA/fashion-mnist"} /usr/share/datasets/fashion-mnist; do
    if [ -e "$folder/train-images-idx3-ubyte.gz" ] || [ -e "$folder/train-images-idx3-ubyte" ]; then
      printf '%s\n' "$folder"
      return
    fi
  done
}
