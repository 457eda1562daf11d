#!/usr/bin/env bash
# Builds, measures and writes everything of docs/performance.md: bench/run.sh [--quick] [--rounds N] [--no-peers]
# [--peer PYTHON]…  (what follows is handed to bench/measure.py)
#
#   bench/results/latest.json, latest.md   all numbers, and the tables
#   docs/performance.md, docs/performance/*.svg   the tables in their places, and the plots
#
# With --quick the same in minutes, without compiled variants and with one round: a smoke test, which goes to
# bench/results/quick.* and leaves docs/ alone. Nothing else should run on the machine meanwhile.
. "$(dirname "${BASH_SOURCE[0]}")/../scripts/common.sh"

name=latest
for argument in "$@"; do
  case $argument in
    -h | --help) sed -n '2,10s/^# \?//p' "bench/run.sh"; exit ;;
    --quick) name=quick ;;
  esac
done
for tool in cmake ninja python3; do command -v "$tool" >/dev/null || die "$tool is needed; run scripts/setup.sh"; done

heading "Building"
mkdir -p build bench/results
cmake --preset release -DMGIC_BENCH=ON >build/configure.log 2>&1 || {
  cat build/configure.log >&2
  die "cmake could not configure the build; scripts/setup.sh installs what is missing"
}
NINJA_STATUS='[%f/%t, %es] ' cmake --build build --parallel "$(nproc)" \
  --target mgic_cli bench_peak bench_convolutions >&2

heading "Measuring"
busy=$(cut -d ' ' -f 1 /proc/loadavg 2>/dev/null || echo 0)
case $busy in 0.*) ;; *) say "warning: the load is $busy; measure on an idle machine" ;; esac
python3 bench/measure.py --mgic build/bin/mgic --out "bench/results/$name.json" "$@"

heading "Tables and plots"
if [ "$name" = quick ]; then
  python3 bench/report.py "bench/results/$name.json" --markdown "bench/results/$name.md" --plots "bench/results/$name"
else
  python3 bench/report.py "bench/results/$name.json" --markdown "bench/results/$name.md" --plots docs/performance \
    --docs docs/performance.md
fi
say "written: bench/results/$name.json, bench/results/$name.md"
