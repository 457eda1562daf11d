#!/usr/bin/env bash
# Measures what docs/results.md shows: scripts/results.sh [--only TASK] [--dry-run] [--quick] [--report]
#
# Builds, trains every network of the tables into runs/results/ (two to four minutes each on 2 idle cores, 75 minutes in
# all), and rewrites the tables and the plot. It can be stopped at any time; the same command goes on where it stopped.
#   --only TASK   classification, segmentation or points
#   --dry-run     only prints the commands
#   --quick       a smoke test in runs/results-quick/, which leaves docs/ alone
#   --report      trains nothing, and rewrites the tables from the runs that are there
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

build=yes
for argument in "$@"; do
  case $argument in
    -h | --help) sed -n '2,10s/^# \?//p' scripts/results.sh; exit ;;
    --dry-run) build=no ;;
  esac
done
if [ $build = yes ]; then
  heading "build"
  scripts/build.sh release >/dev/null
  [ -n "$(fashion_mnist_folder)" ] || die "Fashion-MNIST is needed; scripts/setup.sh says where it comes from"
fi
exec python3 scripts/results.py "$@"
