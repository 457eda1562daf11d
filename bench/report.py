#!/usr/bin/env python3
"""Tables and plots from bench/measure.py's output; bench/run.sh calls it.

    bench/report.py bench/results/latest.json [--markdown OUT.md] [--plots FOLDER] [--docs docs/performance.md]

--docs rewrites the sections between <!-- bench:NAME begin --> and <!-- bench:NAME end -->.
"""
import argparse
import itertools
import json
import math
import pathlib
import re
import statistics
import sys

import limits

PRECISIONS = ("f32", "bf16")
INTERRUPTED = "Not measured: the run was interrupted, or failed here.\n"
KIND_NAMES = {"train_step_ms": "training step", "infer_ms": "inference"}
# At most ours over the best of PyTorch 1.13 and of the current PyTorch (issue 4).
ALLOWED = {
    ("mgic", "train_step_ms", "f32"): (0.42, 0.60),
    ("mgic", "train_step_ms", "bf16"): (0.40, 0.60),
    ("mgic", "infer_ms", "f32"): (0.50, 0.75),
    ("mgic", "infer_ms", "bf16"): (0.45, 0.70),
    ("dense", "train_step_ms", "f32"): (0.85, 0.95),
    ("dense", "infer_ms", "f32"): (0.75, 0.95),
}
OVER_LIMIT, BLOCK_OVER_LIMIT, EXPONENT, MEMORY, KERNELS = 1.35, 1.6, 1.15, 0.7, 0.9
FASTER = {"mgic": ("dense", 2.4), "mgic_wide": ("dense_wide", 4.5)}
TITLES = {"mgic": "MGIC", "dense": "dense", "mgic_wide": "MGIC, channels 128 … 1024",
          "dense_wide": "dense, channels 128 … 1024"}


def old(peer):
    return peer["torch"].startswith("1.")


def best(peer, net, kind, precision):
    """(ms, variant) of the peer's fastest variant of this precision, by the medians of the run; None without one."""
    rows = peer["variants"].get(net, {}).get(kind, {})
    found = sorted((v["ms"], name) for name, v in rows.items() if name.endswith(" " + precision))
    return found[0] if found else None


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(str(c) for c in row) + " |" for row in rows]) + "\n"


def mark(holds):
    return "yes" if holds else "**no**"


def machine_section(r):
    m, v = r["machine"], r["versions"]
    best = max(m["bf16"], key=lambda loop: loop["gflops"], default=None)
    bf16 = f", bf16 {best['gflops']:.0f} Gflop/s (`{best['instructions']}`)" if best else ", no bf16 instructions"
    lines = [
        f"{m['cpu']}, {m['threads']} threads, {m['system']}; measured {r['date']}"
        + (" with `--quick`: a smoke test, no measurement" if r["quick"] else "") + ".",
        "",
        f"- Peaks of register-only loops: f32 {m['f32_gflops']:.0f} Gflop/s{bf16}. STREAM triad: best of the run "
        f"{m['triad_gb_s']:.1f} GB/s, median {m['triad_median_gb_s']:.1f} GB/s.",
        f"- {v['mgic']} ({v['commit']}), oneDNN {v['onednn']}, {v['compiler']}.",
    ]
    trips = m["round_trips_ns"]
    if m["threads"] > 1:
        lines.insert(-1, f"- A cache line goes from one core to another and back in {min(trips):.0f} to "
                         f"{max(trips):.0f} ns, {statistics.median(trips):.0f} in the median of {len(trips)} "
                         "measurements.")
    for p in r["peers"]:
        lines.append(f"- {p['name']} ({p['torch']}, `{p['python']}`, oneDNN {p['onednn'] or 'unknown'}, "
                     f"{p['threads']} threads).")
        if p["failed"]:
            lines[-1] += " Failed: " + "; ".join(f"{k} ({why})" for k, why in p["failed"].items()) + "."
    lines += [f"- Left out: {text}." for text in r["left_out"]]
    lines += [f"- Not built: {k} ({why})." for k, why in r["not_built"].items()]
    lines.append(f"- {r['rounds']} alternating rounds, {r['runs']} steps of each variant a round; batch {r['batch']}, "
                 f"images {'×'.join(map(str, r['image']))} (C×H×W).")
    return "\n".join(lines) + "\n"


def judge(mine, limit, asked):
    """How a time fares that should be at most each of `asked`; to be near the limit counts against those below it."""
    missed = [most for most in asked if mine > most]
    if not missed:
        return "yes"
    return f"within {OVER_LIMIT} of the limit" if max(missed) < limit and mine <= OVER_LIMIT * limit else "**no**"


def peers_section(r):
    head = ["", "ours, ms", "limit, ms", "ours / limit"]
    for p in r["peers"]:
        head += [f"{p['name']}, ms", "ratio", "at most"]
    head.append("holds")
    rows = []
    for net, kind, precision in itertools.product(("mgic", "dense"), KIND_NAMES, PRECISIONS):
        mine = r["ours"].get(net, {}).get(precision)
        limit = r["limits"][net][precision]
        allowed = ALLOWED.get((net, kind, precision))
        row = [f"{TITLES[net]}, {KIND_NAMES[kind]}, {precision}", f"{mine[kind]:.1f}" if mine else "not built",
               f"{limit[kind]:.1f}", f"{mine[kind] / limit[kind]:.2f}" if mine else ""]
        asked = []
        for p in r["peers"]:
            theirs = best(p, net, kind, precision)
            most = allowed[0 if old(p) else 1] if allowed else None
            ratio = mine[kind] / theirs[0] if mine and theirs else None
            row += [f"{theirs[0]:.1f} ({theirs[1].rsplit(' ', 1)[0]})" if theirs else "",
                    f"{ratio:.2f}" if ratio else "", f"{most:.2f}" if most else ""]
            if ratio and most:
                asked.append(most * theirs[0])
        row.append(judge(mine[kind], limit[kind], asked) if asked else "")
        rows.append(row)
    return table(head, rows)


def own_section(r):
    rows = []
    for net, (twin, least) in FASTER.items():
        for precision, mine in r["ours"].get(net, {}).items():
            other = r["ours"].get(twin, {}).get(precision)
            if not other:
                continue
            ratio = other["train_step_ms"] / mine["train_step_ms"]
            rows.append([f"{TITLES[net]}, {precision}", f"{mine['train_step_ms']:.1f}", f"{other['train_step_ms']:.1f}",
                         f"{other['macs'] / mine['macs']:.1f}", f"{ratio:.2f}",
                         f"{least}" if precision == "f32" else "",
                         mark(ratio >= least) if precision == "f32" else "",
                         f"{other['infer_ms'] / mine['infer_ms']:.2f}"])
    return table(["", "MGIC step, ms", "our dense step, ms", "less arithmetic", "times faster", "at least", "holds",
                  "inference, times faster"], rows)


def memory_section(r):
    rows = []
    for net, precision in itertools.product(("mgic", "dense"), PRECISIONS):
        mine = r["ours"].get(net, {}).get(precision)
        if not mine:
            continue
        row, holds = [f"{TITLES[net]}, {precision}", f"{mine['peak_rss_mb']:.0f}"], []
        for p in r["peers"]:
            theirs = p["memory"].get(net, {}).get(precision)
            if not theirs:
                row += ["", "", ""]
                continue
            ratio = mine["peak_rss_mb"] / theirs["peak_rss_mb"]
            row += [f"{theirs['peak_rss_mb']} ({theirs['variant']})", p["rss_mb"], f"{ratio:.2f}"]
            holds.append(ratio <= MEMORY)
        rows.append(row + [mark(all(holds)) if holds else ""])
    head = ["MiB", "ours"]
    for p in r["peers"]:
        head += [p["name"], "of it after import", f"ratio (at most {MEMORY})"]
    return table(head + ["holds"], rows)


def steady_section(r):
    rows = []
    for net, precision in itertools.product(TITLES, PRECISIONS):
        mine = r["ours"].get(net, {}).get(precision)
        if mine:
            good = (mine["kernel_share"] >= KERNELS and not mine["system_allocations"]
                    and not mine["primitives_created"])
            rows.append([f"{TITLES[net]}, {precision}", f"{100 * mine['kernel_share']:.1f} %",
                         mine["system_allocations"], mine["primitives_created"], mark(good)])
    return table(["", f"inside kernels (at least {100 * KERNELS:.0f} %)", "system allocations (none)",
                  "primitives created (none)", "holds"], rows)


def widths_section(r):
    if "widths" not in r:
        return INTERRUPTED
    w = r["widths"]
    rows = []
    for kind in ("mgic", "dense"):
        for row in w[kind]["rows"]:
            over = row["train_step_ms"] / row["limit_ms"]["train_step_ms"]
            at_median = row["train_step_ms"] / row["limit_at_median_ms"]["train_step_ms"]
            rows.append([TITLES[kind], row["channels"], f"{row['train_step_ms']:.2f}",
                         f"{row['limit_ms']['train_step_ms']:.2f}", f"{over:.2f}", f"{at_median:.2f}",
                         mark(over <= BLOCK_OVER_LIMIT) if kind == "mgic" else "", f"{row['infer_ms']:.2f}",
                         f"{row['infer_ms'] / row['limit_ms']['infer_ms']:.2f}", f"{row['macs'] / 1e6:.1f}",
                         f"{row['parameters'] / 1e3:.1f}"])
    text = table(["block", "C", "step, ms", "limit, ms", "step / limit", "at the median triad",
                  f"at most {BLOCK_OVER_LIMIT}", "inference, ms", "inference / limit", "M macs", "k parameters"], rows)
    for kind in ("mgic", "dense"):
        e, l = w[kind]["exponent"], w[kind]["limit_exponent"]
        text += f"\n{TITLES[kind]}: the step's time grows with C by an exponent of {e['train_step_ms']:.2f}"
        if kind == "mgic":
            text += f" (at most {EXPONENT}: {mark(e['train_step_ms'] <= EXPONENT)})"
        text += f", inference by {e['infer_ms']:.2f}; the limits by {l['train_step_ms']:.2f} and {l['infer_ms']:.2f}.\n"
    return text


def convolutions_section(r):
    if "convolutions" not in r:
        return INTERRUPTED
    c = r["convolutions"]
    text = ""
    for precision in PRECISIONS:
        if precision not in c:
            text += f"\n{precision}: not built.\n"
            continue
        rows = []
        for kind, group in [*itertools.product(("3x3", "restrict", "prolong"), (16, 8, 4)), ("plain", 0)]:
            for direction in ("forward", "data", "weights"):
                found = [x for x in c[precision]
                         if (x["kind"], x["group_size"], x["direction"]) == (kind, group, direction)]
                if not found:  # results of before there was a plain pass
                    continue
                judged = [x["per_mac" if kind == "3x3" else "over_limit"] for x in found]
                good = [v <= x["allowed"] or x["over_limit"] <= OVER_LIMIT for x, v in zip(found, judged)]
                most = found[0]["allowed"]
                rows.append([{"3x3": "3×3", "restrict": "R, 1×1", "prolong": "P, 1×1", "plain": "plain pass"}[kind],
                             group or "", direction]
                            + [f"{x['ms']:.3f} ({v:.2f})" for x, v in zip(found, judged)]
                            + [f"{most:.2f}" if most else "", mark(all(good)) if most else ""])
        stages = list(dict.fromkeys(x["stage"] for x in c[precision]))
        text += f"\n{precision}, ms (ratio):\n\n"
        text += table(["", "s_g", "pass", *stages, "at most", "holds"], rows)
    return text


def timed_units(r, net, precision):
    """Units with the time that they took in training: [{kind, name, ms, flops, bytes, limit}].

    A row of `mgic bench` that covers several units (a fused pass) becomes one."""
    mine = r["ours"][net][precision]
    names = {l["name"] for l in mine["layers"]}
    out = []
    for layer in mine["layers"]:
        name = layer["name"]
        under = [u for u in r["units"][net]
                 if u["name"] == name or (u["name"].startswith(name + ".") and u["name"] not in names)]
        if not under:
            continue
        both = [limits.costs(u, r["batch"], precision, True) for u in under]
        out.append({"name": name, "kind": under[0]["kind"] if len(under) == 1 else "fused",
                    "ms": layer["forward_ms"] + layer["backward_ms"],
                    "flops": sum(f for f, _ in both), "bytes": sum(b for _, b in both),
                    "limit": sum(limits.limit_ms(u, r["batch"], precision, True, r["machine"]) for u in under)})
    return out


def account_section(r):
    text = ""
    for net, precision in itertools.product(("mgic", "dense"), PRECISIONS):
        mine = r["ours"].get(net, {}).get(precision)
        if not mine:
            continue
        units, step = timed_units(r, net, precision), mine["profiled_step_ms"]
        rows = []
        for kind in dict.fromkeys(u["kind"] for u in units):
            mine_of = [u for u in units if u["kind"] == kind]
            ms, limit = sum(u["ms"] for u in mine_of), sum(u["limit"] for u in mine_of)
            rows.append([kind, len(mine_of), f"{ms:.1f}", f"{100 * ms / step:.0f} %", f"{limit:.1f}",
                         f"{ms / limit:.2f}", f"{1e-6 * sum(u['flops'] for u in mine_of) / ms:.0f}",
                         f"{1e-6 * sum(u['bytes'] for u in mine_of) / ms:.1f}", f"{ms - limit:.1f}"])
        every = sum(l["forward_ms"] + l["backward_ms"] for l in mine["layers"])
        rest = every - sum(u["ms"] for u in units)
        for what, ms in (("loss, pooling, …", rest), ("update", mine["update_ms"]),
                         ("outside of kernels", (1 - mine["kernel_share"]) * step)):
            rows.append([what, "", f"{ms:.1f}", f"{100 * ms / step:.0f} %", "", "", "", "", f"{ms:.1f}"])
        total = sum(u["limit"] for u in units)
        rows.append(["**step**", "", f"{step:.1f}", "100 %", f"{total:.1f}", f"{step / total:.2f}", "", "",
                     f"{step - total:.1f}"])
        text += f"\n{TITLES[net]}, {precision}, training step:\n\n"
        text += table(["unit", "number", "ms", "share", "limit, ms", "ms / limit", "Gflop/s", "GB/s",
                       "above its limit, ms"], rows)
    return text


def limits_section(r):
    rows = []
    for net, precision in itertools.product(r["limits"], PRECISIONS):
        l = r["limits"][net][precision]
        rows.append([f"{TITLES[net]}, {precision}"] + [f"{l[k]:.1f}" for k in KIND_NAMES]
                    + [f"{l['at_median_triad'][k]:.1f}" for k in KIND_NAMES])
    return table(["", "training step, ms", "inference, ms", "the step at the median triad, ms",
                  "inference at the median triad, ms"], rows)


SECTIONS = {"machine": machine_section, "peers": peers_section, "own": own_section, "steady": steady_section,
            "memory": memory_section,
            "widths": widths_section, "convolutions": convolutions_section, "account": account_section,
            "limits": limits_section}
HEADINGS = {"machine": "The machine", "peers": "Against PyTorch", "own": "Against our own dense network",
            "steady": "A step in steady state", "memory": "Peak memory", "widths": "One block against its width",
            "convolutions": "Single convolutions", "account": "Where the time goes", "limits": "Limits"}


# Okabe and Ito's colours, which all eyes can tell apart.
BLACK, ORANGE, SKY, GREEN = "#222222", "#E69F00", "#56B4E9", "#009E73"
BLUE, RED, PURPLE = "#0072B2", "#D55E00", "#CC79A7"
DASHES = (0, (3, 1.5))


def style(plt):
    plt.rcParams.update({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True,
                         "axes.grid": True, "grid.color": "#dddddd", "grid.linewidth": 0.6, "svg.fonttype": "path",
                         "svg.hashsalt": "mgic", "figure.constrained_layout.use": True})


def save(fig, path):
    fig.savefig(path, metadata={"Date": None})  # the same numbers give the same file
    text = pathlib.Path(path).read_text()
    pathlib.Path(path).write_text("\n".join(line.rstrip() for line in text.splitlines()) + "\n")


def plot_times(r, plt, path):
    fig, axes = plt.subplots(1, 2, figsize=(9, 3.8))
    series = ["ours"] + [p["name"] for p in r["peers"]]
    colours = [BLUE, ORANGE, SKY, PURPLE]
    for ax, (kind, title) in zip(axes, KIND_NAMES.items()):
        cells = list(itertools.product(("mgic", "dense"), PRECISIONS))
        width = 0.8 / len(series)
        for s, name in enumerate(series):
            for i, (net, precision) in enumerate(cells):
                if s == 0:
                    mine = r["ours"].get(net, {}).get(precision)
                    ms = mine[kind] if mine else None
                else:
                    found = best(r["peers"][s - 1], net, kind, precision)
                    ms = found[0] if found else None
                x = i + (s - (len(series) - 1) / 2) * width
                ax.bar(x, ms or 0, width * 0.94, color=colours[s], label=name if i == 0 else None)
                if ms:
                    ax.annotate(f"{ms:.0f}", (x, ms), (0, 2), textcoords="offset points", ha="center", fontsize=8,
                                bbox={"boxstyle": "square,pad=0.1", "fc": "white", "ec": "none", "alpha": 0.8})
                else:
                    ax.annotate("none", (x, 0), (0, 3), textcoords="offset points", ha="center", va="bottom",
                                rotation=90, fontsize=8, color="#777777")
        for i, (net, precision) in enumerate(cells):
            ax.plot([i - 0.42, i + 0.42], [r["limits"][net][precision][kind]] * 2, color=BLACK, lw=1.2, ls=DASHES,
                    label="limit of the machine" if i == 0 else None)
        ax.set_xticks(range(len(cells)), [f"{TITLES[n]}\n{p}" for n, p in cells])
        ax.grid(axis="x", visible=False)
        ax.tick_params(axis="x", length=0)
        ax.margins(y=0.08)
        ax.set_title(title.capitalize(), loc="left", fontsize=11)
    axes[0].set_ylabel(f"ms, batch {r['batch']}")
    handles, names = axes[0].get_legend_handles_labels()
    order = sorted(range(len(names)), key=lambda i: names[i] == "limit of the machine")
    fig.legend([handles[i] for i in order], [names[i] for i in order], loc="outside lower center", ncols=len(order),
               frameon=False)
    save(fig, path)


def plot_roofline(r, plt, path):
    precisions = [p for p in PRECISIONS if p in r["ours"].get("mgic", {})]
    if not precisions:
        return
    fig, axes = plt.subplots(1, len(precisions), figsize=(6.6 if len(precisions) == 1 else 10, 4.8), squeeze=False,
                             sharey=True)
    colours = {"smoother": BLUE, "restriction": GREEN, "prolongation": ORANGE, "transition": PURPLE, "stem": RED,
               "fused": SKY, "block": "#999999", "shortcut": "#cccccc"}
    names = {"block": "dense block", "shortcut": "dense shortcut"}
    m = r["machine"]
    for ax, precision in zip(axes[0], precisions):
        peak = m[f"{precision}_gflops"]
        points = [u for net in ("dense", "mgic") if precision in r["ours"].get(net, {})
                  for u in timed_units(r, net, precision) if u["kind"] != "classifier" and u["ms"] > 0]
        left, right = 0.5, max(max(u["flops"] / u["bytes"] for u in points), peak / m["triad_gb_s"]) * 2
        knee = peak / m["triad_gb_s"]
        ax.plot([left, knee, right], [left * m["triad_gb_s"], peak, peak], color=BLACK, lw=1.4)
        ax.annotate(f"{peak:.0f} Gflop/s", (right, peak), (-2, 4), textcoords="offset points", ha="right", fontsize=9,
                    bbox={"boxstyle": "square,pad=0.1", "fc": "white", "ec": "none", "alpha": 0.8}, zorder=5)
        for kind, colour in colours.items():
            of = [u for u in points if u["kind"] == kind]
            if of:
                ax.scatter([u["flops"] / u["bytes"] for u in of], [1e-6 * u["flops"] / u["ms"] for u in of],
                           s=[max(14, 26 * u["ms"] ** 0.5) for u in of], color=colour, alpha=0.75, lw=0.5,
                           edgecolor="white", label=names.get(kind, kind), zorder=3)
        ax.set(xscale="log", yscale="log", xlim=(left, right), xlabel="flop / byte")
        ax.set_ylim(bottom=max(1, 0.5 * min(1e-6 * u["flops"] / u["ms"] for u in points)), top=2 * peak)
        # The slope's text lies along the line: its angle in the plot follows from the limits of both axes.
        fig.canvas.draw()
        x, y = left * (knee / left) ** 0.3, left * (knee / left) ** 0.3 * m["triad_gb_s"]
        (x0, y0), (x1, y1) = ax.transData.transform([(x, y), (2 * x, 2 * y)])
        ax.annotate(f"triad, {m['triad_gb_s']:.0f} GB/s", (x, y), (-3, 4), textcoords="offset points", fontsize=9,
                    rotation=math.degrees(math.atan2(y1 - y0, x1 - x0)), rotation_mode="anchor")
        ax.set_title(f"Units of the training step, {precision}", loc="left", fontsize=11)
    axes[0][0].set_ylabel("Gflop/s")
    legend = axes[0][-1].legend(loc="lower right", fontsize=9, frameon=True, framealpha=0.9, edgecolor="none")
    for handle in legend.legend_handles:
        handle.set_sizes([45])  # a disc's size means time, but not here
    save(fig, path)


def log_axes(ax, plt, widths):
    def short(v, _):
        for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
            if v >= max(size, 1e5):
                return f"{v / size:g} {unit}"
        return f"{v:g}"

    ax.set(xscale="log", yscale="log")
    ax.set_xticks(widths, [str(c) for c in widths])
    ax.minorticks_off()
    low, high = ax.get_ylim()
    ax.yaxis.set_major_locator(plt.matplotlib.ticker.LogLocator(subs=(1, 2, 5) if high / low < 1e3 else (1,)))
    ax.yaxis.set_major_formatter(short)


def plot_widths(r, plt, path):
    fig, axes = plt.subplots(1, 2, figsize=(9, 3.8))
    w = r["widths"]
    for ax, (kind, title) in zip(axes, KIND_NAMES.items()):
        for block, colour in (("mgic", BLUE), ("dense", RED)):
            rows = w[block]["rows"]
            cs = [x["channels"] for x in rows]
            ax.plot(cs, [x[kind] for x in rows], "o-", color=colour, ms=5,
                    label=f"{TITLES[block]}: exponent {w[block]['exponent'][kind]:.2f}")
            ax.plot(cs, [x["limit_ms"][kind] for x in rows], color=colour, lw=1, ls=DASHES,
                    label=f"its limit: {w[block]['limit_exponent'][kind]:.2f}")
        ticks = [x["channels"] for x in max((w["mgic"]["rows"], w["dense"]["rows"]), key=len)]
        log_axes(ax, plt, ticks)
        ax.set_xlabel("channels C")
        ax.set_title(f"One block, {w['size']}×{w['size']} pixels, {title}", loc="left", fontsize=11)
        ax.legend(frameon=False, fontsize=9)
    axes[0].set_ylabel(f"ms, batch {w['batch']}")
    save(fig, path)


def plot_width(r, plt, path):
    """The picture of the README: what a block costs at each width."""
    fig, axes = plt.subplots(1, 3, figsize=(9.6, 3.3))
    w = r["widths"]
    panels = {"parameters": "parameters", "macs": "multiply-accumulates of a sample",
              "train_step_ms": f"training step, ms (batch {w['batch']})"}
    for ax, (key, title) in zip(axes, panels.items()):
        for block, colour, marker in (("dense", RED, "s"), ("mgic", BLUE, "o")):
            rows = w[block]["rows"]
            ax.plot([x["channels"] for x in rows], [x[key] for x in rows], marker + "-", color=colour, ms=5,
                    label=TITLES[block])
        log_axes(ax, plt, [x["channels"] for x in w["mgic"]["rows"]])
        ax.set_title(title, loc="left", fontsize=10.5)
        ax.set_xlabel("channels C")
    axes[0].legend(frameon=False)
    save(fig, path)


def draw(r, folder):
    try:
        import matplotlib
    except ImportError:
        print("note: no matplotlib (pip install matplotlib, or Debian's python3-matplotlib): no plots", file=sys.stderr)
        return
    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    style(plt)
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    plots = {"times": plot_times, "roofline": plot_roofline}
    if "widths" in r:
        plots |= {"widths": plot_widths, "width": plot_width}
    for name, plot in plots.items():
        plot(r, plt, folder / f"{name}.svg")


def rewrite(path, sections):
    text = pathlib.Path(path).read_text()
    for name, body in sections.items():
        pattern = re.compile(rf"(<!-- bench:{name} begin -->\n).*?(<!-- bench:{name} end -->)", re.S)
        if not pattern.search(text):
            sys.exit(f"error: {path}: has no section <!-- bench:{name} begin --> … <!-- bench:{name} end -->")
        text = pattern.sub(lambda m: m[1] + body.strip("\n") + "\n" + m[2], text)
    pathlib.Path(path).write_text(text)


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("results")
    p.add_argument("--markdown")
    p.add_argument("--plots")
    p.add_argument("--docs")
    a = p.parse_args()
    r = json.loads(pathlib.Path(a.results).read_text())
    sections = {name: make(r) for name, make in SECTIONS.items()}
    if a.markdown:
        pathlib.Path(a.markdown).write_text("\n".join(f"## {HEADINGS[n]}\n\n{body.strip(chr(10))}\n"
                                                      for n, body in sections.items()))
    if a.plots:
        draw(r, a.plots)
    if a.docs:
        rewrite(a.docs, sections)
    print(sections["machine"] + "\n" + sections["peers"] + "\n" + sections["own"])


if __name__ == "__main__":
    main()
