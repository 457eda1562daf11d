#!/usr/bin/env python3
"""The least time that a network's step can take on a machine, by what has to be computed and what has to be moved.

    bench/limits.py CONFIG [--input 3,32,32] [--batch 32] [--machine PEAK.json] [--mgic build/bin/mgic] [--json]

    limit = Σ over units of max(flops / peak, bytes / triad)

A unit is a row of `mgic summary` that has weights, together with the normalisation and activation that follow it; the
convolutions of one smoother, or of one dense block, are one unit, since between them nothing has to leave the caches:

    stem, transition, shortcut, other convolutions   reads x, writes y
    smoother (basic, pointwise, bottleneck, …)       reads x, writes y; the residual is x itself
    dense block with a shortcut                      reads x and the shortcut's output, writes y
    restriction r = R x                              reads x, writes r
    prolongation x + N(P (c − r))                    reads x, c and r, writes x
    classifier                                       reads and writes vectors

flops   2 · multiply-accumulates of its convolutions and linear layers · batch; times 3 in a training step (forward,
        data gradient, weight gradient), 2 for a unit that reads the image. Normalisation, activation, additions: none.
bytes   the feature maps that it reads and writes, each once, 4 bytes an element in f32 and 2 in bf16. In training, the
        backward pass reads the gradient of the output and, for the weights, what was convolved, and writes the
        gradient of that (not the image's). What is only added needs neither: its gradient is the output's. Not
        counted: weights and their gradients, the optimizer's update, pooling, the loss, whatever is read a second
        time (batch statistics need the whole output before the first of it can be used).

The multiplications with a convolution's padding are counted, as everywhere. A kernel may skip them, which for 3×3 on
32×32, 16×16, 8×8 and 4×4 pixels is 4, 8, 16 and 31 %: a dense network, which is bound by arithmetic alone, can so come
out below its limit. bench_peak measures the roofs.
"""
import argparse
import json
import math
import re
import subprocess
import sys

# The parts of a unit, which are rows of their own in the summary.
PART = re.compile(r"(\.(conv\d*|bn\d*|expand|depthwise|se|project|fc\d+))+$")
LEVEL = re.compile(r"^(?:(.*)\.)?(restrict|prolong|smooth|pre_smooth)\.(\d+)$")
KINDS = {"restrict": "restriction", "prolong": "prolongation", "smooth": "smoother", "pre_smooth": "smoother"}
BYTES = {"f32": 4, "bf16": 2}


def units_of(summary, image):
    """[{name, kind, macs, reads, writes, saved, gradient, first}] in order; counts of elements for one sample.

    saved is what the backward pass reads again, gradient what it writes."""
    rows = {}
    for layer in summary["layers"]:
        name = PART.sub("", layer["name"])
        if not layer["parameters"] and not layer["macs"]:
            continue  # pooling
        row = rows.setdefault(name, {"name": name, "macs": 0, "out": 0, "type": layer["type"]})
        row["macs"] += layer["macs"]
        row["out"] = math.prod(layer["output_shape"][1:])
    units, current, levels = [], math.prod(image), {}
    for row in rows.values():
        name, out = row["name"], row["out"]
        level = LEVEL.match(name)
        kind = KINDS[level[2]] if level else name.rsplit(".", 1)[-1]
        reads, saved, gradient = current, None, None  # None: as what was read
        if level:
            block, l = level[1], int(level[3])
            if level[2] == "restrict":
                reads = levels.setdefault((block, l), current)
                levels[block, l + 1] = out
            elif level[2] == "prolong":
                gradient = levels[block, l + 1]  # that of the difference c − r
                saved = 2 * gradient
                reads = out + saved
            else:
                reads = out
                levels[block, l] = out
        elif row["type"] == "linear":
            kind, reads = "classifier", row["macs"] // out
        elif kind not in ("stem", "transition", "shortcut"):
            kind = "block"
            if name + ".shortcut" in rows:
                reads, saved, gradient = current + out, current, current
        first = not units
        units.append({"name": name, "kind": kind, "macs": row["macs"], "reads": reads, "writes": out,
                      "saved": reads if saved is None else saved,
                      "gradient": 0 if first else reads if gradient is None else gradient, "first": first})
        if kind != "shortcut":
            current = out
    if sum(u["macs"] for u in units) != summary["macs"]:
        sys.exit("error: bench/limits.py: the units' multiply-accumulates are not those of the network")
    return units


def costs(unit, batch, precision, training):
    """(flops, bytes) of a unit for a batch."""
    passes = 1 if not training else 2 if unit["first"] else 3
    elements = unit["reads"] + unit["writes"]
    if training:
        elements += unit["writes"] + unit["saved"] + unit["gradient"]
    return 2 * unit["macs"] * batch * passes, elements * batch * BYTES[precision]


def limit_ms(unit, batch, precision, training, machine):
    """The unit's limit; machine is what bench_peak says."""
    peak = machine[f"{precision}_gflops"]
    flops, size = costs(unit, batch, precision, training)
    return max(flops / peak, size / machine["triad_gb_s"]) * 1e-6


def summary_of(mgic, config, image, overrides=()):
    command = [mgic, "summary", config, "--json", "--input", ",".join(map(str, image))]
    for o in overrides:
        command += ["--set", o]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def limits_of(units, batch, machine):
    """{precision: {train_step_ms, infer_ms}}, and how much of it is bound by memory."""
    out = {}
    for precision in BYTES:
        out[precision] = {}
        for key, training in (("train_step_ms", True), ("infer_ms", False)):
            out[precision][key] = sum(limit_ms(u, batch, precision, training, machine) for u in units)
    return out


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("config")
    p.add_argument("--input", default="3,32,32")
    p.add_argument("--batch", type=int, default=32)
    p.add_argument("--mgic", default="build/bin/mgic")
    p.add_argument("--machine", help="bench_peak's output; measured now where it is not given")
    p.add_argument("--json", action="store_true")
    a = p.parse_args()
    image = [int(v) for v in a.input.split(",")]
    try:
        units = units_of(summary_of(a.mgic, a.config, image), image)
    except subprocess.CalledProcessError as e:
        sys.exit(e.returncode)  # mgic has said why
    if a.machine:
        machine = json.load(open(a.machine))
    else:
        peak = a.mgic.replace("mgic", "bench_peak") if "/" not in a.mgic else a.mgic.rsplit("/", 1)[0] + "/bench_peak"
        machine = json.loads(subprocess.run([peak], check=True, stdout=subprocess.PIPE, text=True).stdout)
    totals = limits_of(units, a.batch, machine)
    if a.json:
        print(json.dumps({"machine": machine, "limits": totals, "units": units}))
        return
    print(f"f32 {machine['f32_gflops']:.0f} Gflop/s, bf16 {machine['bf16_gflops']:.0f} Gflop/s, "
          f"triad {machine['triad_gb_s']:.1f} GB/s; batch {a.batch}\n")
    width = max(len(u["name"]) for u in units)
    print("training, f32")
    print(f"{'unit':<{width}}  {'kind':<12} {'Mflop':>9} {'MB':>8} {'flop/byte':>9} {'ms':>8}  bound by")
    for u in units:
        flops, size = costs(u, a.batch, "f32", True)
        bound = "arithmetic" if flops / machine["f32_gflops"] > size / machine["triad_gb_s"] else "memory"
        print(f"{u['name']:<{width}}  {u['kind']:<12} {flops / 1e6:>9.1f} {size / 1e6:>8.2f} {flops / size:>9.1f} "
              f"{limit_ms(u, a.batch, 'f32', True, machine):>8.3f}  {bound}")
    print()
    for precision, t in totals.items():
        print(f"{precision:<5} training step {t['train_step_ms']:8.2f} ms   inference {t['infer_ms']:8.2f} ms")


if __name__ == "__main__":
    main()
