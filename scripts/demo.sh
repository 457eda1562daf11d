#!/usr/bin/env bash
# From nothing to a trained MGIC network: installs, builds, trains on Fashion-MNIST, and shows what came out.
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
exec 2>&1  # headings, progress and results in one order

mgic=build/bin/mgic

# runs/demo, or the first of runs/demo-2, runs/demo-3, … that is not taken: earlier runs are kept.
free_run_folder() {
  local folder=runs/demo n=2
  while [ -e "$folder" ]; do folder=runs/demo-$((n++)); done
  echo "$folder"
}

# The last test line of metrics.jsonl, in words.
show_result() {
  python3 - "$1/metrics.jsonl" <<'PYTHON'
import json, sys
lines = [json.loads(line) for line in open(sys.argv[1]) if line.strip()]
test = [line for line in lines if line["split"] != "train"][-1]
seconds = sum(line["seconds"] for line in lines if line["split"] == "train")
print(f"after {test['epoch']} epochs ({seconds:.0f} s of training): "
      f"test accuracy {100 * test['accuracy']:.2f} %, loss {test['loss']:.4f}")
PYTHON
}

# The network beside its dense twin, which has plain residual blocks in place of the V-cycles.
show_cost() {
  "$mgic" summary "$1" --json | python3 -c '
import json, sys
s = json.load(sys.stdin)
rows = [("", "parameters", "multiply-accumulates"),
        ("this network", s["parameters"], s["macs"]),
        ("its dense twin", s["dense"]["parameters"], s["dense"]["macs"])]
for name, parameters, macs in rows:
    text = (lambda v: v if isinstance(v, str) else format(v, ","))
    print(f"{name:<16}{text(parameters):>12}{text(macs):>24}")
'
}

# Whether the command line has this subcommand.
has_command() { grep -qE "^ +$1( |\$)" <<<"$("$mgic" --help)"; }

# What the trained network says to images that it has not seen: `mgic predict` on a few test images as PNG files, else
# `mgic eval` on the whole test part; nothing where the command line has neither.
show_predictions() {
  local run=$1 images=$1/images
  if [ -n "$dataset" ] && has_command predict; then
    python3 scripts/sample_images.py --root "$dataset" --count 8 --png "$images"
    "$mgic" predict "$run" "$images"/*.png
  elif has_command eval; then
    "$mgic" eval "$run"
  else
    say "(this version has no command for predictions yet)"
  fi
}

started=$SECONDS
heading "what is needed"
scripts/setup.sh
heading "build"
scripts/build.sh release >/dev/null

dataset=$(fashion_mnist_folder)
config=configs/demo.json
if [ -z "$dataset" ]; then
  config=configs/demo_shapes.json
  say
  say "Fashion-MNIST is not on this machine, so the demo trains on the built-in data set \"shapes\" instead."
fi

run=$(free_run_folder)
heading "train: $mgic train $config --out $run"
"$mgic" train "$config" --out "$run"

heading "result"
show_result "$run"
heading "cost: $mgic summary $config"
show_cost "$config"
heading "predictions"
show_predictions "$run"

heading "where everything lies"
while IFS='|' read -r path what; do printf '  %-28s %s\n' "$path" "$what"; done <<END
$run/config.json|the experiment, all defaults filled in
$run/metrics.jsonl|one line an epoch and part of the data
$run/checkpoints/last|the weights, readable by other frameworks (safetensors)
$mgic|the command line; try: $mgic --help
docs/learn.md|how the network works inside
END
printf '\nThe demo took %d seconds.\n' $((SECONDS - started))
