#!/usr/bin/env python3
"""Times our training step and inference beside PyTorch's, in one alternating run; bench/run.sh calls it.

    bench/measure.py --mgic build/bin/mgic --out bench/results/latest.json [--quick] [--rounds 5] [--peer PYTHON]…

A round measures, one after the other, for each network and precision: the machine (bench_peak), ours, and every
peer's best variants, so that whatever else the machine does meets all of them alike. Medians over the rounds are
compared. Ours is `mgic bench`, a process of its own each time; a peer is one process for the whole run, since compiling
takes minutes (peers/bench_torch.py --serve). Which variants are a peer's best is found before: each is built and timed
a few times, and the fastest goes into the rounds, with the next where that is within a quarter of it. Compiled variants
are tried in the layout that is faster without. What takes longer than the patience is listed as failed.

Results are written after every phase and every round, so that an interrupted run leaves what it has measured.
"""
import argparse
import atexit
import collections
import ctypes
import datetime
import itertools
import json
import math
import os
import pathlib
import platform
import queue
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time

import limits

HERE = pathlib.Path(__file__).resolve().parent
KINDS, PRECISIONS = ("train_step_ms", "infer_ms"), ("f32", "bf16")
IMAGE, BATCH = (3, 32, 32), 32
# The networks of issue 4, and how their peers are called (None: measured against our own dense network only).
NETWORKS = {
    "mgic": {"channels": [64, 128, 256, 512], "block": "mgic", "peer": "mgic_basic"},
    "dense": {"channels": [64, 128, 256, 512], "block": "basic", "peer": "basic"},
    "mgic_wide": {"channels": [128, 256, 512, 1024], "block": "mgic", "peer": None},
    "dense_wide": {"channels": [128, 256, 512, 1024], "block": "basic", "peer": None},
}
WIDTHS, WIDTH_SIZE = (64, 128, 256, 512, 1024), 16  # one block, 16×16 pixels, batch 32
FINALISTS, NEAR = 2, 1.25
PATIENCE = 180  # seconds for one answer of a peer: compiling a network takes minutes
COMPILING = 480  # seconds for all compiled variants of a peer together


def say(*text):
    print(time.strftime("%H:%M:%S"), *text, file=sys.stderr, flush=True)


def network(name):
    n = NETWORKS[name]
    block = {"type": "mgic", "smoother": "basic", "group_size": 16, "coarsest_width": 16, "coarsest_rule": "reach"}
    return {"model": {"type": "resnet", "stem": "cifar", "in_channels": IMAGE[0], "classes": 10,
                      "channels": n["channels"], "blocks": [2, 2, 2, 2], "strides": [1, 2, 2, 2],
                      "block": block if n["block"] == "mgic" else {"type": n["block"]}}}


def one_block(kind, channels):
    """A single block; pooling and a classifier behind it, so that there is a loss to train on."""
    block = {"type": "mgic" if kind == "mgic" else "basic", "name": "block"}
    return {"model": {"type": "sequential", "in_channels": channels, "classes": 10,
                      "layers": [block, {"type": "global_pool"}, {"type": "linear", "out_features": 10}]}}


class Ours:
    """`mgic`, which is asked for one measurement at a time."""

    def __init__(self, binary, environment, folder):
        self.binary, self.environment, self.folder = binary, environment, folder
        self.not_built = {}  # precision: why

    def config(self, name, content):
        path = os.path.join(self.folder, name + ".json")
        with open(path, "w") as f:
            json.dump(content, f)
        return path

    def bench(self, config, precision, runs, image=IMAGE):
        """What `mgic bench --json` says, or None where this precision is not built yet."""
        if precision in self.not_built:
            return None
        command = [self.binary, "bench", config, "--json", "--batch", str(BATCH), "--runs", str(runs), "--input",
                   ",".join(map(str, image))]
        if precision != "f32":
            command += ["--set", f"train.precision={precision}"]
        done = subprocess.run(command, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if done.returncode == 2 and precision != "f32":
            self.not_built[precision] = done.stderr.strip().splitlines()[0].replace(config + ": ", "")
            say(f"ours: {precision} is not built yet ({self.not_built[precision]})")
            return None
        if done.returncode:
            sys.exit(f"error: {' '.join(command)}: exit code {done.returncode}\n{done.stderr}")
        return json.loads(done.stdout)


class Peer:
    """A PyTorch that runs what it is asked for, in a process of its own."""

    def __init__(self, python, environment, patience):
        self.python, self.environment, self.patience = python, environment, patience
        self.start()

    def start(self):
        self.process = subprocess.Popen([self.python, str(HERE / "peers" / "bench_torch.py"), "--serve"],
                                        env=self.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.DEVNULL, text=True, start_new_session=True)
        atexit.register(self.stop)
        self.answers = queue.Queue()
        threading.Thread(target=self.listen, args=(self.process, self.answers), daemon=True).start()
        self.hello = self.answer()
        if "torch" not in self.hello:
            raise RuntimeError(f"{self.python}: bench_torch.py does not start")

    @staticmethod
    def listen(process, answers):
        for line in process.stdout:
            answers.put(line)
        answers.put("")

    def answer(self):
        try:
            line = self.answers.get(timeout=self.patience)
        except queue.Empty:
            line = None
        if line:
            return json.loads(line)
        self.stop()
        return {"error": "the process ended" if line == "" else f"took more than {self.patience} s"}

    def ask(self, net, kind, variant, runs):
        if self.process.poll() is not None:
            self.start()
        try:
            self.process.stdin.write(json.dumps({"block": NETWORKS[net]["peer"], "channels": NETWORKS[net]["channels"],
                                                 "kind": kind, "variant": variant, "runs": runs}) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # the answer says so
        return self.answer()

    def stop(self):
        """Ends the process with the compilers that it has started: it leads a group of its own."""
        atexit.unregister(self.stop)
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    @property
    def name(self):
        return "PyTorch " + re.match(r"[\d.]+\d", self.hello["torch"])[0]

    @property
    def compiles(self):
        return int(self.hello["torch"].split(".")[0]) >= 2


def find_peers(pythons, environment, patience):
    """The PyTorch of each interpreter, each version once, and the names of what is left out."""
    peers, left_out = [], []
    for python in pythons:
        probe = subprocess.run([python, "-c", "import torch; print(torch.__version__)"], env=environment,
                               stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) if which(python) else None
        if probe is None or probe.returncode:
            left_out.append(f"{python}: " + ("not installed" if probe is None else "has no torch"))
            continue
        if any(p.hello["torch"] == probe.stdout.strip() for p in peers):
            continue
        peers.append(Peer(python, environment, patience))
    return peers, left_out


def which(program):
    return subprocess.run(["sh", "-c", 'command -v "$0"', program], stdout=subprocess.DEVNULL).returncode == 0


def qualify(peer, compiling, quick):
    """({(net, kind, precision): [variant…]}, {variant: why it failed}): each peer's fastest variants."""
    cells = list(itertools.product([n for n in NETWORKS if NETWORKS[n]["peer"]], KINDS, PRECISIONS))
    times, failed = {cell: {} for cell in cells}, {}

    def attempt(cell, way, layout):
        net, kind, precision = cell
        variant = f"{way} {layout} {precision}"
        reply = peer.ask(net, kind, variant, 1 if quick else 3)
        if "ms" in reply:
            times[cell][variant] = min(reply["ms"])
        else:
            failed[f"{net} {kind} {variant}"] = reply["error"]
        say(peer.name, net, kind, variant, f"{min(reply['ms']):.1f} ms" if "ms" in reply else reply["error"])

    for cell in cells:
        for way in ("eager", "frozen") if cell[1] == "infer_ms" else ("eager",):
            for layout in ("nchw", "channels_last"):
                attempt(cell, way, layout)
    if peer.compiles and compiling > 0:
        until = time.monotonic() + compiling
        for cell in cells:
            eager = {v: ms for v, ms in times[cell].items() if v.startswith("eager")}
            layout = min(eager, key=eager.get).split()[1] if eager else "channels_last"
            if time.monotonic() < until:
                attempt(cell, "compiled", layout)
            else:
                failed[f"{cell[0]} {cell[1]} compiled {layout} {cell[2]}"] = f"{compiling} s of compiling were over"
    best = {}
    for cell, found in times.items():
        order = sorted(found, key=found.get)
        best[cell] = [v for v in order[:FINALISTS] if found[v] <= NEAR * found[order[0]]]
    return best, failed


def combine(results):
    """One result from those of several rounds: medians; lists of layers by their names."""
    out = {k: statistics.median(r[k] for r in results)
           for k in (*KINDS, "profiled_step_ms", "update_ms", "kernel_share")}
    out["rounds"] = {k: [r[k] for r in results] for k in KINDS}
    for key in ("peak_rss_mb", "system_allocations", "primitives_created"):
        out[key] = max(r[key] for r in results)
    for key in ("parameters", "macs", "threads", "batch"):
        out[key] = results[0][key]
    rows = collections.OrderedDict()
    for r in results:
        for layer in r["layers"]:
            rows.setdefault(layer["name"], []).append(layer)
    out["layers"] = [{"name": name, "forward_ms": statistics.median(l["forward_ms"] for l in found),
                      "backward_ms": statistics.median(l["backward_ms"] for l in found)}
                     for name, found in rows.items()]
    return out


def combine_machine(found):
    """The roofs are the best of all rounds, so that no limit is too large; the triad's median stands beside it."""
    out = {**found[0]}
    for key in ("f32_gflops", "bf16_gflops", "triad_gb_s"):
        out[key] = max(m[key] for m in found)
    out["triad_median_gb_s"] = statistics.median(m["triad_median_gb_s"] for m in found)
    out["triad_rounds_gb_s"] = [m["triad_median_gb_s"] for m in found]
    out["round_trips_ns"] = [m["round_trip_ns"] for m in found]
    del out["triad_streaming_gb_s"], out["round_trip_ns"]
    return out


def at_median(machine):
    return {**machine, "triad_gb_s": machine["triad_median_gb_s"]}


def slope(xs, ys):
    """The exponent e of y ≈ a x^e: least squares in logarithms."""
    lx, ly = [math.log(x) for x in xs], [math.log(y) for y in ys]
    mx, my = statistics.mean(lx), statistics.mean(ly)
    return sum((x - mx) * (y - my) for x, y in zip(lx, ly)) / sum((x - mx) ** 2 for x in lx)


def memory_of(peer):
    """Peak memory of a process that trained alone, in the frugal way: eager, without a compiler; the smaller layout."""
    out = {}
    for net, precision in itertools.product([n for n in NETWORKS if NETWORKS[n]["peer"]], PRECISIONS):
        for layout in ("nchw", "channels_last"):
            alone = Peer(peer.python, peer.environment, peer.patience)
            reply = alone.ask(net, "train_step_ms", f"eager {layout} {precision}", 2)
            alone.stop()
            least = out.setdefault(net, {}).get(precision)
            if "ms" in reply and (least is None or reply["peak_rss_mb"] < least["peak_rss_mb"]):
                out[net][precision] = {"variant": f"eager {layout}", "peak_rss_mb": reply["peak_rss_mb"]}
    return out


def onednn_version(mgic):
    """Of the library that our binary loads."""
    linked = subprocess.run(["ldd", mgic], stdout=subprocess.PIPE, text=True).stdout
    path = re.search(r"libdnnl\S* => (\S+)", linked)
    if not path:
        return "linked statically, or not at all"

    class Version(ctypes.Structure):
        _fields_ = [(n, ctypes.c_int) for n in ("major", "minor", "patch")]

    library = ctypes.CDLL(path[1])
    library.dnnl_version.restype = ctypes.POINTER(Version)
    v = library.dnnl_version().contents
    return f"{v.major}.{v.minor}.{v.patch}"


def first_line(*command):
    try:
        return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                              cwd=HERE).stdout.splitlines()[0]
    except (OSError, IndexError):
        return "unknown"


class Plan:
    """The steps that are to come, {name: [how often, seconds each]}: a guess, until one of them has run."""

    def __init__(self, steps):
        self.steps = steps
        say(f"{self.minutes():.0f} minutes, as a guess")

    def minutes(self):
        return sum(times * seconds for times, seconds in self.steps.values()) / 60

    def run(self, name, step):
        began = time.monotonic()
        result = step()
        took = time.monotonic() - began
        self.steps[name] = [self.steps[name][0] - 1, took]
        say(f"{name}: {took:.0f} s; about {self.minutes():.0f} minutes to go")
        return result


def write(path, content):
    """As a whole or not at all: an interruption leaves the file of before."""
    with open(path + ".new", "w") as f:
        json.dump(content, f, indent=1)
    os.replace(path + ".new", path)


class Measurement:
    """What has been measured, and what measures it; result() is complete at any time."""

    def __init__(self, ours, peers, tool, threads, runs, quick):
        self.ours, self.peers, self.tool, self.runs, self.quick = ours, peers, tool, runs, quick
        self.threads = threads
        self.configs = {n: ours.config(n, network(n)) for n in NETWORKS}
        self.units = {n: limits.units_of(limits.summary_of(ours.binary, c, IMAGE), IMAGE)
                      for n, c in self.configs.items()}
        self.widths = {"mgic": WIDTHS[:4] if quick else WIDTHS, "dense": WIDTHS[:3] if quick else WIDTHS}
        self.best, self.failed, self.memory = {}, {}, {}  # by the peer's name
        self.machines, self.rounds, self.convolutions = [], 0, None
        self.commit = first_line("git", "describe", "--always", "--dirty")  # before results change the tree
        self.found = collections.defaultdict(list)   # (net, precision): results of ours
        self.times = collections.defaultdict(list)   # (peer, net, kind, variant): ms
        self.blocks = collections.defaultdict(list)  # (kind, channels): results of ours

    def measure_networks(self):
        for net, precision in itertools.product(NETWORKS, PRECISIONS):
            if not NETWORKS[net]["peer"] and (precision != "f32" or self.quick):
                continue
            self.machines.append(self.tool("bench_peak", "--threads", str(self.threads), "--seconds", "0.5"))
            result = self.ours.bench(self.configs[net], precision, self.runs)
            if result:
                self.found[net, precision].append(result)
            for peer, kind in itertools.product(self.peers if NETWORKS[net]["peer"] else [], KINDS):
                for variant in self.best[peer.name][net, kind, precision]:
                    reply = peer.ask(net, kind, variant, self.runs)
                    self.times[peer.name, net, kind, variant] += reply.get("ms", [])
                    if "error" in reply:
                        say(peer.name, net, kind, variant, reply["error"])
        self.rounds += 1

    def measure_widths(self):
        for kind, widths in self.widths.items():
            for c in widths:
                # A dense step at C = 1024 takes seconds: it is repeated by the rounds alone.
                self.blocks[kind, c].append(self.ours.bench(
                    self.ours.config(f"block_{kind}_{c}", one_block(kind, c)), "f32",
                    1 if kind == "dense" and c > 256 else self.runs, (c, WIDTH_SIZE, WIDTH_SIZE)))

    def measure_convolutions(self):
        try:
            self.convolutions = self.tool("bench_convolutions", "--json", "--rounds", "2" if self.quick else "15")
        except subprocess.CalledProcessError as e:
            say(f"left out: single convolutions: {e}")  # what has been measured before is kept

    def combine_widths(self, machine):
        """Time of one block against its width, MGIC and dense, with limits and fitted exponents."""
        out = {"size": WIDTH_SIZE, "batch": BATCH}
        for kind, widths in self.widths.items():
            rows = []
            for c in widths:
                image = (c, WIDTH_SIZE, WIDTH_SIZE)
                config = self.ours.config(f"block_{kind}_{c}", one_block(kind, c))
                summary = limits.summary_of(self.ours.binary, config, image)
                units = limits.units_of(summary, image)
                row = combine(self.blocks[kind, c])
                del row["layers"]
                rows.append({"channels": c, "limit_ms": limits.limits_of(units, BATCH, machine)["f32"],
                             "limit_at_median_ms": limits.limits_of(units, BATCH, at_median(machine))["f32"], **row,
                             **{k: sum(l[k] for l in summary["layers"] if l["type"] != "linear")  # of the block alone
                                for k in ("parameters", "macs")}})
            out[kind] = {"rows": rows, "exponent": {k: slope(widths, [r[k] for r in rows]) for k in KINDS},
                         "limit_exponent": {k: slope(widths, [r["limit_ms"][k] for r in rows]) for k in KINDS}}
        return out

    def result(self):
        machine = combine_machine(self.machines)
        out = {
            "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="minutes"),
            "quick": self.quick, "rounds": self.rounds, "runs": self.runs, "batch": BATCH, "image": IMAGE,
            "machine": {**machine, "system": platform.platform()},
            "versions": {"mgic": first_line(os.path.abspath(self.ours.binary), "--version"),
                         "commit": self.commit,
                         "onednn": onednn_version(self.ours.binary), "compiler": first_line("c++", "--version")},
            "not_built": self.ours.not_built, "ours": {}, "limits": {}, "units": self.units, "peers": [],
        }
        for (net, precision), results in self.found.items():
            out["ours"].setdefault(net, {})[precision] = combine(results)
        for net, units in self.units.items():
            out["limits"][net] = limits.limits_of(units, BATCH, machine)
            median = limits.limits_of(units, BATCH, at_median(machine))
            for precision in PRECISIONS:
                out["limits"][net][precision]["at_median_triad"] = median[precision]
        for peer in self.peers:
            medians = {}
            for (name, net, kind, variant), ms in self.times.items():
                if name == peer.name and ms:
                    medians.setdefault(net, {}).setdefault(kind, {})[variant] = {"ms": statistics.median(ms), "all": ms}
            out["peers"].append({"name": peer.name, "python": peer.python, **peer.hello,
                                 "failed": self.failed[peer.name], "variants": medians,
                                 "memory": self.memory.get(peer.name, {})})
        if self.blocks:
            out["widths"] = self.combine_widths(machine)
        if self.convolutions:
            out["convolutions"] = self.convolutions
        return out


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--mgic", default="build/bin/mgic")
    p.add_argument("--out", default="bench/results/latest.json")
    p.add_argument("--rounds", type=int, help="default: 5, with --quick 1")
    p.add_argument("--runs", type=int, help="steps of each variant in a round; default: 3, with --quick 1")
    p.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    p.add_argument("--peer", action="append", help="a Python with torch; default: /usr/bin/python3 and python3")
    p.add_argument("--no-peers", action="store_true")
    p.add_argument("--patience", type=int, default=PATIENCE, help="seconds that a peer may take to answer")
    p.add_argument("--compiling", type=int, help=f"seconds for compiled variants; default: {COMPILING}, with --quick 0")
    p.add_argument("--quick", action="store_true", help="few rounds and widths, nothing compiled: a smoke test")
    a = p.parse_args()
    rounds, runs = a.rounds or (1 if a.quick else 5), a.runs or (1 if a.quick else 3)
    compiling = a.compiling if a.compiling is not None else 0 if a.quick else COMPILING
    width_rounds = min(rounds, 3)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("OPENBLAS_")}
    environment["OMP_NUM_THREADS"] = str(a.threads)
    bin_folder = os.path.dirname(os.path.abspath(a.mgic))
    os.makedirs(os.path.dirname(os.path.abspath(a.out)), exist_ok=True)

    def tool(name, *arguments):
        done = subprocess.run([os.path.join(bin_folder, name), *arguments], env=environment, check=True,
                              stdout=subprocess.PIPE, text=True)
        return json.loads(done.stdout)

    with tempfile.TemporaryDirectory() as folder:
        peers, left_out = ([], ["all: --no-peers"]) if a.no_peers else find_peers(
            a.peer or ["/usr/bin/python3", "python3"], environment, a.patience)
        for text in left_out:
            say("left out:", text)
        m = Measurement(Ours(a.mgic, environment, folder), peers, tool, a.threads, runs, a.quick)

        def save():
            write(a.out, {**m.result(), "left_out": left_out})

        plan = Plan({"finding the best variants": [len(peers), 90 + compiling / 2], "networks": [rounds, 90],
                     "widths": [width_rounds, 60], "convolutions": [1, 90], "memory of the peers": [len(peers), 60]})
        for peer in peers:
            m.best[peer.name], m.failed[peer.name] = plan.run("finding the best variants",
                                                              lambda: qualify(peer, compiling, a.quick))
        for i in range(rounds):
            plan.run("networks", m.measure_networks)
            save()
            if i < width_rounds:  # between the networks' rounds, so that no one stretch of time is met by all of them
                plan.run("widths", m.measure_widths)
                save()
        for peer in peers:
            peer.stop()
        plan.run("convolutions", m.measure_convolutions)
        for peer in peers:
            m.memory[peer.name] = plan.run("memory of the peers", lambda: memory_of(peer))
        save()
    say("written:", a.out)


if __name__ == "__main__":
    main()
