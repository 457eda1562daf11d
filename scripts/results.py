#!/usr/bin/env python3
"""Trains the networks of docs/results.md and writes its tables; scripts/results.sh calls it.

A run is a folder runs/results/TASK-VARIANT-SEED, made by `mgic train`; behind a finished one lies result.json with
what the training itself does not know: the whole time, and how much of the machine others took meanwhile.
"""
import argparse
import dataclasses
import datetime
import json
import math
import os
import pathlib
import platform
import re
import resource
import shlex
import signal
import statistics
import subprocess
import sys
import time

MGIC = "build/bin/mgic"
DOCS = pathlib.Path("docs/results.md")
PLOT = pathlib.Path("docs/results/score.svg")
LONGEST = 300  # seconds that a run may take
BUSY = 0.05    # share of the machine that others may take before the times are called disturbed
GUESS = 120    # seconds of a run of which nothing is known yet
QUICK = ["train.epochs=1", "data.train_limit=1024", "data.test_limit=512"]


@dataclasses.dataclass(frozen=True)
class Task:
    config: str
    block: str    # where the block stands
    dense: str    # the dense block's type
    measure: str  # in metrics.jsonl
    unit: str     # in words


@dataclasses.dataclass(frozen=True)
class Variant:
    title: str
    seeds: tuple
    block: dict  # keys of the block that differ from the file's; a "type" replaces it
    halved: bool = False  # half of the file's coarsest width


TASKS = {
    "classification": Task("configs/results_classification.json", "model.block", "basic", "accuracy", "test accuracy"),
    "segmentation": Task("configs/results_segmentation.json", "model.backbone.block", "basic", "miou", "test mIoU"),
    "points": Task("configs/results_points.json", "model.block", "conv", "accuracy", "test accuracy"),
}
VARIANTS = {
    "dense": Variant("dense", (1, 2, 3), {"type": None}),
    "mgic16": Variant("MGIC, s_g = 16", (1, 2, 3), {}),
    "mgic8": Variant("MGIC, s_g = 8", (1,), {"group_size": 8}, halved=True),
    "grouped16": Variant("grouped alone, s_g = 16", (1, 2, 3), {"levels": 1}),
}


def overrides(task, variant):
    if "type" in variant.block:
        return [f'{task.block}={json.dumps({"type": task.dense})}']
    block = dict(variant.block)
    if variant.halved:
        own = json.loads(pathlib.Path(task.config).read_text())
        for key in task.block.split("."):
            own = own[key]
        block["coarsest_width"] = own["coarsest_width"] // 2
    return [f"{task.block}.{key}={value}" for key, value in block.items()]


@dataclasses.dataclass(frozen=True)
class Run:
    task: str
    variant: str
    seed: int
    root: pathlib.Path
    more: tuple = ()

    @property
    def name(self):
        return f"{self.task}-{self.variant}-{self.seed}"

    @property
    def folder(self):
        return self.root / self.name

    def sets(self):
        task = TASKS[self.task]
        values = [f"name={self.name}", f"seed={self.seed}", *overrides(task, VARIANTS[self.variant]), *self.more]
        return [text for value in values for text in ("--set", value)]

    def command(self):
        resume = ["--resume"] if self.folder.exists() else []
        return [MGIC, "train", TASKS[self.task].config, *self.sets(), "--out", str(self.folder), *resume]

    def note(self):
        """What result.json says, where the run is finished."""
        path = self.folder / "result.json"
        return json.loads(path.read_text()) if path.exists() else None

    def metrics(self, split):
        lines = [json.loads(line) for line in (self.folder / "metrics.jsonl").read_text().splitlines() if line]
        return [line for line in lines if line["split"] == split]

    def score(self):
        """Of the last epoch, not of the best one: nothing is chosen on the test part. In points of 100."""
        return 100 * self.metrics("test")[-1][TASKS[self.task].measure]


def plan(only, root, more):
    """Every network once first, then the further seeds."""
    seeds = sorted({seed for v in VARIANTS.values() for seed in v.seeds})
    return [Run(task, name, seed, root, more) for seed in seeds for task in TASKS if only in (None, task)
            for name, variant in VARIANTS.items() if seed in variant.seeds]


# ---- Training ----

def busy_seconds():
    """CPU seconds that the whole machine has worked, and that our finished children have."""
    try:
        words = pathlib.Path("/proc/stat").read_text().split("\n")[0].split()[1:]
        user, nice, system, _, _, irq, softirq, steal = map(int, words[:8])
        machine = (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError):
        return None
    ours = resource.getrusage(resource.RUSAGE_CHILDREN)
    return machine - ours.ru_utime - ours.ru_stime


def minutes(seconds):
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"


def left(runs):
    """Seconds that the runs will take, judged by the finished ones."""
    known = {r: r.note()["seconds"] for r in runs if r.note()}

    def guess(run):
        for alike in (lambda r: (r.task, r.variant) == (run.task, run.variant), lambda r: r.task == run.task,
                      lambda r: True):
            found = [seconds for r, seconds in known.items() if alike(r)]
            if found:
                return statistics.mean(found)
        return GUESS

    return sum(guess(r) for r in runs if r not in known)


def train(run):
    """The words to show. Interrupted or failed: ends the program."""
    start, before = time.monotonic(), busy_seconds()
    command = run.command()
    signal.signal(signal.SIGINT, lambda *_: None)  # Ctrl-C is for mgic, which writes a checkpoint and ends
    done = subprocess.run(command, capture_output=True, text=True)
    seconds = time.monotonic() - start
    # What a run that was stopped had taken until then counts too.
    partial = run.folder / "partial.json"
    if partial.exists():
        seconds += json.loads(partial.read_text())["seconds"]
    if done.returncode != 0:
        if run.folder.exists():
            partial.write_text(json.dumps({"seconds": seconds}) + "\n")
        if done.returncode == 130:
            sys.exit("interrupted; the same command goes on from here")
        sys.exit(f"{done.stderr}error: {shlex.join(command)}: exit code {done.returncode}")
    others = None
    if before is not None and not partial.exists():
        others = (busy_seconds() - before) / ((time.monotonic() - start) * os.cpu_count())
    partial.unlink(missing_ok=True)
    note = {"seconds": seconds, "others": others, "date": datetime.date.today().isoformat(), "commit": commit(),
            "threads": threads()}
    (run.folder / "result.json").write_text(json.dumps(note) + "\n")
    text = f"{TASKS[run.task].unit} {run.score():.2f} %, {seconds:.0f} s"
    if seconds > LONGEST:
        text += f"  WARNING: more than {LONGEST} s"
    if others is not None and others > BUSY:
        text += f"  (others took {100 * others:.0f} % of the machine)"
    return text


def train_all(runs):
    for i, run in enumerate(runs):
        if run.note():
            continue
        print(f"[{i + 1}/{len(runs)}] {run.name}: {minutes(left(runs))} left for all …", file=sys.stderr, flush=True)
        print(f"[{i + 1}/{len(runs)}] {run.name}: {train(run)}", file=sys.stderr, flush=True)


# ---- Tables ----

def commit():
    try:
        head = subprocess.run(["git", "rev-parse", "--short=10", "HEAD"], capture_output=True, text=True, check=True)
        dirty = subprocess.run(["git", "diff", "--quiet", "HEAD", "--", ".", ":!docs"], capture_output=True)
        return head.stdout.strip() + (" with changes" if dirty.returncode else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def threads():
    return int(os.environ.get("OMP_NUM_THREADS", 0)) or len(os.sched_getaffinity(0))


def cpu():
    try:
        return re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text())[1]
    except (OSError, TypeError):
        return platform.processor() or platform.machine()


def cost(run):
    """(parameters, macs)"""
    command = [MGIC, "summary", TASKS[run.task].config, *run.sets(), "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(done.stderr)
    summary = json.loads(done.stdout)
    return summary["parameters"], summary["macs"]


@dataclasses.dataclass
class Row:
    """One network of a task: all seeds together."""
    variant: str
    parameters: int
    macs: int
    epoch_seconds: float  # of training, without evaluation: the fastest of all epochs of all seeds
    longest: float        # whole run
    others: float         # share of the machine that others took, in the first seed's run; NaN where unknown
    scores: list

    @property
    def mean(self):
        return statistics.mean(self.scores)

    @property
    def error(self):
        """The standard error of the mean; NaN for one seed."""
        n = len(self.scores)
        return statistics.stdev(self.scores) / math.sqrt(n) if n > 1 else math.nan

    def score(self):
        return f"{self.mean:.2f}" + (f" ± {self.error:.2f}" if len(self.scores) > 1 else "") + " %"


def rows_of(task, runs):
    rows = {}
    for name, variant in VARIANTS.items():
        done = [r for r in runs if (r.task, r.variant) == (task, name) and r.note()]
        if not done:
            continue
        notes = [r.note() for r in done]
        others = notes[0]["others"]
        rows[name] = Row(name, *cost(done[0]), min(line["seconds"] for r in done for line in r.metrics("train")),
                         max(n["seconds"] for n in notes), math.nan if others is None else others,
                         [r.score() for r in done])
    return rows


def claims(rows):
    """What the table says of the two claims; nothing for networks that are not measured."""
    lines = []
    mgic, dense, grouped = (rows.get(n) for n in ("mgic16", "dense", "grouped16"))
    if mgic and dense:
        share, gap = mgic.parameters / dense.parameters, mgic.mean - dense.mean
        lines.append(f"- MGIC, s_g = 16, within 1 point of dense with at most half the parameters: "
                     f"{gap:+.2f} points with {share:.2f} of the parameters, {verdict(gap >= -1 and share <= 0.5)}")
    if mgic and grouped and len(mgic.scores) > 1 and len(grouped.scores) > 1:
        gain, error = mgic.mean - grouped.mean, math.hypot(mgic.error, grouped.error)
        lines.append(f"- MGIC above the grouped convolutions alone by more than twice the standard error of the "
                     f"difference: {gain:+.2f} points, standard error {error:.2f}, {verdict(gain > 2 * error)}")
    return lines


def verdict(holds):
    return "holds." if holds else "**does not hold.**"


def task_section(task, rows, missing):
    if not rows:
        return "Not measured yet: run `scripts/results.sh`."
    lines = [f"| | parameters | multiply-accumulates | seconds an epoch | {TASKS[task].unit} | seeds |",
             "|---|---|---|---|---|---|"]
    for row in rows.values():
        lines.append(f"| {VARIANTS[row.variant].title} | {row.parameters:,} | {row.macs:,} | {row.epoch_seconds:.1f} | "
                     f"{row.score()} | {len(row.scores)} |")
    lines += ["", *claims(rows)]
    for row in rows.values():
        title = VARIANTS[row.variant].title
        if row.others > BUSY:
            lines.append(f"- The seconds of \"{title}\" are disturbed: others took {100 * row.others:.0f} % of the "
                         "machine.")
        if row.longest > LONGEST:
            lines.append(f"- A run of \"{title}\" took {row.longest:.0f} s, more than {LONGEST}.")
    if missing:
        lines.append(f"- Not measured yet: {', '.join(missing)}.")
    return "\n".join(lines)


def machine_section(runs):
    notes = [r.note() for r in runs if r.note()]
    if not notes:
        return "Not measured yet: run `scripts/results.sh`."
    dates = sorted({n["date"] for n in notes})
    counts = sorted({n["threads"] for n in notes})
    return (f"{cpu()}, {'/'.join(map(str, counts))} threads, {platform.system()} {platform.release()}; "
            f"commit {', '.join(sorted({n['commit'] for n in notes}))}; "
            f"{' … '.join(dict.fromkeys((dates[0], dates[-1])))}; "
            f"{len(notes)} of {len(runs)} runs, {sum(n['seconds'] for n in notes) / 60:.0f} minutes in all, "
            f"the longest {max(n['seconds'] for n in notes):.0f} s.")


def rewrite(path, sections):
    text = path.read_text()
    for name, body in sections.items():
        pattern = re.compile(rf"(<!-- results:{name} begin -->\n).*?(<!-- results:{name} end -->)", re.S)
        if not pattern.search(text):
            sys.exit(f"error: {path}: has no section <!-- results:{name} begin --> … <!-- results:{name} end -->")
        text = pattern.sub(lambda m: m[1] + body + "\n" + m[2], text)
    path.write_text(text)


def draw(tables, path):
    try:
        import matplotlib
    except ImportError:
        print("note: no matplotlib (pip install matplotlib, or Debian's python3-matplotlib): no plot", file=sys.stderr)
        return
    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    plt.rcParams.update({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True,
                         "axes.grid": True, "grid.color": "#dddddd", "grid.linewidth": 0.6, "svg.fonttype": "path",
                         "svg.hashsalt": "mgic", "figure.constrained_layout.use": True})
    colors = {"dense": "#555555", "mgic16": "#0b6fb8", "mgic8": "#6db3e6", "grouped16": "#c8501e"}
    fig, axes = plt.subplots(1, len(tables), figsize=(4 * len(tables), 3.4), squeeze=False)
    for axis, (task, rows) in zip(axes[0], tables.items()):
        for row in rows.values():
            axis.errorbar(row.parameters / 1e3, row.mean, yerr=None if math.isnan(row.error) else row.error, fmt="o",
                          capsize=3, color=colors[row.variant], label=VARIANTS[row.variant].title)
        axis.set(title=task, xscale="log", xlabel="parameters, thousands", ylabel=f"{TASKS[task].unit}, %")
    handles, labels = axes[0][0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside lower center", ncols=len(VARIANTS), frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    fig.savefig(path, metadata={"Date": None, "Creator": None})


def report(root, more, docs):
    runs = plan(None, root, more)
    tables = {task: rows_of(task, runs) for task in TASKS}
    sections = {"machine": machine_section(runs)}
    for task, rows in tables.items():
        sections[task] = task_section(task, rows, [r.name for r in runs if r.task == task and not r.note()])
    print("\n\n".join(f"{name}\n\n{body}" for name, body in sections.items()))
    if docs:
        rewrite(DOCS, sections)
        shown = {task: rows for task, rows in tables.items() if rows}
        if shown:
            draw(shown, PLOT)


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--only", choices=TASKS, help="one task")
    p.add_argument("--dry-run", action="store_true", help="print the commands")
    p.add_argument("--quick", action="store_true", help="a smoke test in runs/results-quick, which leaves docs/ alone")
    p.add_argument("--report", action="store_true", help="only the tables, from the runs that are there")
    a = p.parse_args()
    root, more = pathlib.Path("runs/results-quick" if a.quick else "runs/results"), tuple(QUICK if a.quick else ())
    runs = plan(a.only, root, more)
    if a.dry_run:
        print("\n".join(shlex.join(run.command()) for run in runs if not run.note()))
        return
    if not a.report:
        train_all(runs)
    report(root, more, docs=not a.quick)


if __name__ == "__main__":
    main()
