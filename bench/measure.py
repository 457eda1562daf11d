#!/usr/bin/env python3
"""Times our training step and inference beside PyTorch's, in one alternating run; bench/run.sh calls it.

    bench/measure.py --mgic build/bin/mgic --out bench/results/latest.json [--quick] [--rounds 7] [--peer PYTHON]…

A round measures, one after the other, for each network and precision: the machine (bench_peak), ours, and every
peer's best variants, so that whatever else the machine does meets all of them alike. Medians over the rounds are
compared. Ours is `mgic bench`, a process of its own each time; a peer is one process for the whole run, since compiling
takes minutes (peers/bench_torch.py --serve). Which variants are a peer's best is found before: each is built and timed
once, and those within a quarter of the fastest, three at most, go into the rounds.
"""
import argparse
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
import statistics
import subprocess
import sys
import tempfile
import threading
import time

import limits

HERE = pathlib.Path(__file__).resolve().parent
KINDS = ("train_step_ms", "infer_ms")
IMAGE, BATCH = (3, 32, 32), 32
# The networks of issue 4, and how their peers are called (None: measured against our own dense network only).
NETWORKS = {
    "mgic": {"channels": [64, 128, 256, 512], "block": "mgic", "peer": "mgic_basic"},
    "dense": {"channels": [64, 128, 256, 512], "block": "basic", "peer": "basic"},
    "mgic_wide": {"channels": [128, 256, 512, 1024], "block": "mgic", "peer": None},
    "dense_wide": {"channels": [128, 256, 512, 1024], "block": "basic", "peer": None},
}
WIDTHS, WIDTH_SIZE = (64, 128, 256, 512, 1024), 16  # one block, 16×16 pixels, batch 32
FINALISTS, NEAR = 3, 1.25
PATIENCE = 1200  # seconds for one answer of a peer: compiling a network may take minutes


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

    def __init__(self, python, environment):
        self.python, self.environment = python, environment
        # In torch 2 the compiler would start helper processes, which stay.
        self.environment = {**environment, "TORCHINDUCTOR_COMPILE_THREADS": "1"}
        self.start()

    def start(self):
        self.process = subprocess.Popen([self.python, str(HERE / "peers" / "bench_torch.py"), "--serve"],
                                        env=self.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.DEVNULL, text=True)
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
            line = self.answers.get(timeout=PATIENCE)
        except queue.Empty:
            line = ""
        if line:
            return json.loads(line)
        self.stop()
        return {"error": f"no answer within {PATIENCE} s, or the process ended"}

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
        self.process.kill()
        self.process.wait()

    @property
    def name(self):
        return "PyTorch " + re.match(r"[\d.]+\d", self.hello["torch"])[0]

    @property
    def compiles(self):
        return int(self.hello["torch"].split(".")[0]) >= 2

    def variants(self, kind, precision, quick):
        ways = ["eager"] + (["frozen"] if kind == "infer_ms" else []) + (["compiled"] if self.compiles else [])
        if quick:
            ways = [w for w in ways if w != "compiled"]
        return [f"{w} {layout} {precision}" for w in ways for layout in ("nchw", "channels_last")]


def find_peers(pythons, environment):
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
        peers.append(Peer(python, environment))
    return peers, left_out


def which(program):
    return subprocess.run(["sh", "-c", 'command -v "$0"', program], stdout=subprocess.DEVNULL).returncode == 0


def qualify(peer, precisions, quick):
    """({(net, kind, precision): [variant…]}, {variant: why it failed}): each peer's fastest variants."""
    best, failed = {}, {}
    for net in (n for n in NETWORKS if NETWORKS[n]["peer"]):
        for kind, precision in itertools.product(KINDS, precisions):
            times = {}
            for variant in peer.variants(kind, precision, quick):
                reply = peer.ask(net, kind, variant, 1 if quick else 3)
                if "ms" in reply:
                    times[variant] = statistics.median(reply["ms"])
                else:
                    failed[f"{net} {kind} {variant}"] = reply["error"]
                say(peer.name, net, kind, variant, f"{times[variant]:.1f} ms" if variant in times else reply["error"])
            order = sorted(times, key=times.get)
            best[net, kind, precision] = [v for v in order[:FINALISTS] if times[v] <= NEAR * times[order[0]]]
    return best, failed


def combine(results):
    """One result from those of several rounds: medians; lists of layers by their names."""
    out = {k: statistics.median(r[k] for r in results) for k in KINDS}
    out["rounds"] = {k: [r[k] for r in results] for k in KINDS}
    out["peak_rss_mb"] = max(r["peak_rss_mb"] for r in results)
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
    """Peaks: the best of all rounds. The triad: the median, as it is compared with medians, and the best beside it."""
    out = {**found[0]}
    for key in ("f32_gflops", "bf16_gflops"):
        out[key] = max(m[key] for m in found)
    out["triad_gb_s"] = statistics.median(m["triad_median_gb_s"] for m in found)
    out["triad_best_gb_s"] = max(m["triad_gb_s"] for m in found)
    out["triad_rounds_gb_s"] = [m["triad_median_gb_s"] for m in found]
    for key in ("triad_median_gb_s", "triad_streaming_gb_s"):
        del out[key]
    return out


def slope(xs, ys):
    """The exponent e of y ≈ a x^e: least squares in logarithms."""
    lx, ly = [math.log(x) for x in xs], [math.log(y) for y in ys]
    mx, my = statistics.mean(lx), statistics.mean(ly)
    return sum((x - mx) * (y - my) for x, y in zip(lx, ly)) / sum((x - mx) ** 2 for x in lx)


def measure_widths(ours, machine, rounds, quick):
    """Time of one block against its width, MGIC and dense, with limits and fitted exponents."""
    widths = {"mgic": WIDTHS[:4] if quick else WIDTHS, "dense": WIDTHS[:3] if quick else WIDTHS}
    cases = [(kind, c) for kind in widths for c in widths[kind]]
    found = {case: [] for case in cases}
    for r in range(rounds):
        for kind, c in cases:
            config = ours.config(f"block_{kind}_{c}", one_block(kind, c))
            # A dense step at C = 1024 takes seconds: it is repeated by the rounds alone.
            found[kind, c].append(ours.bench(config, "f32", 1 if kind == "dense" and c > 256 else 3,
                                             (c, WIDTH_SIZE, WIDTH_SIZE)))
        say(f"widths: round {r + 1} of {rounds}")
    out = {"size": WIDTH_SIZE, "batch": BATCH}
    for kind in widths:
        rows = []
        for c in widths[kind]:
            image = (c, WIDTH_SIZE, WIDTH_SIZE)
            config = ours.config(f"block_{kind}_{c}", one_block(kind, c))
            units = limits.units_of(limits.summary_of(ours.binary, config, image), image)
            row = combine(found[kind, c])
            del row["layers"]
            rows.append({"channels": c, "limit_ms": limits.limits_of(units, BATCH, machine)["f32"], **row})
        out[kind] = {"rows": rows, "exponent": {k: slope(widths[kind], [r[k] for r in rows]) for k in KINDS},
                     "limit_exponent": {k: slope(widths[kind], [r["limit_ms"][k] for r in rows]) for k in KINDS}}
    return out


def memory_of(peer, best, precisions):
    """Peak memory of a process that trained with one variant alone, the fastest."""
    out = {}
    for net, precision in itertools.product([n for n in NETWORKS if NETWORKS[n]["peer"]], precisions):
        variants = best.get((net, "train_step_ms", precision))
        if not variants:
            continue
        alone = Peer(peer.python, peer.environment)
        reply = alone.ask(net, "train_step_ms", variants[0], 3)
        alone.stop()
        if "ms" in reply:
            out.setdefault(net, {})[precision] = {"variant": variants[0], "peak_rss_mb": reply["peak_rss_mb"]}
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


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--mgic", default="build/bin/mgic")
    p.add_argument("--out", default="bench/results/latest.json")
    p.add_argument("--rounds", type=int, default=7)
    p.add_argument("--runs", type=int, default=3, help="steps of each variant in a round")
    p.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    p.add_argument("--peer", action="append", help="a Python with torch; default: /usr/bin/python3 and python3")
    p.add_argument("--no-peers", action="store_true")
    p.add_argument("--quick", action="store_true", help="few rounds and variants, nothing compiled: a smoke test")
    a = p.parse_args()
    rounds, runs = (1, 1) if a.quick else (a.rounds, a.runs)
    precisions = ("f32", "bf16")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("OPENBLAS_")}
    environment["OMP_NUM_THREADS"] = str(a.threads)
    bin_folder = os.path.dirname(os.path.abspath(a.mgic))

    def tool(name, *arguments):
        done = subprocess.run([os.path.join(bin_folder, name), *arguments], env=environment, check=True,
                              stdout=subprocess.PIPE, text=True)
        return json.loads(done.stdout)

    with tempfile.TemporaryDirectory() as folder:
        ours = Ours(a.mgic, environment, folder)
        configs = {n: ours.config(n, network(n)) for n in NETWORKS}
        peers, left_out = ([], ["all: --no-peers"]) if a.no_peers else find_peers(
            a.peer or ["/usr/bin/python3", "python3"], environment)
        for text in left_out:
            say("left out:", text)
        best, failed = {}, {}
        for peer in peers:
            best[peer.name], failed[peer.name] = qualify(peer, precisions, a.quick)

        machines, found = [], {}
        times = collections.defaultdict(list)
        for r in range(rounds):
            for net, precision in itertools.product(NETWORKS, precisions):
                if not NETWORKS[net]["peer"] and (precision != "f32" or a.quick):
                    continue
                machines.append(tool("bench_peak", "--threads", str(a.threads), "--seconds", "0.5"))
                result = ours.bench(configs[net], precision, runs)
                if result:
                    found.setdefault((net, precision), []).append(result)
                for peer in peers if NETWORKS[net]["peer"] else []:
                    for kind in KINDS:
                        for variant in best[peer.name][net, kind, precision]:
                            reply = peer.ask(net, kind, variant, runs)
                            times[peer.name, net, kind, variant] += reply.get("ms", [])
            say(f"networks: round {r + 1} of {rounds}")
        for peer in peers:
            peer.stop()

        machine = combine_machine(machines)
        out = {
            "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="minutes"),
            "quick": a.quick, "rounds": rounds, "runs": runs, "batch": BATCH, "image": IMAGE,
            "machine": {**machine, "system": platform.platform()},
            "versions": {"mgic": first_line(os.path.abspath(a.mgic), "--version"),
                         "commit": first_line("git", "describe", "--always", "--dirty"),
                         "onednn": onednn_version(a.mgic), "compiler": first_line("c++", "--version")},
            "not_built": ours.not_built, "left_out": left_out, "ours": {}, "limits": {}, "units": {}, "peers": [],
        }
        for (net, precision), results in found.items():
            out["ours"].setdefault(net, {})[precision] = combine(results)
        for net in NETWORKS:
            units = limits.units_of(limits.summary_of(a.mgic, configs[net], IMAGE), IMAGE)
            out["units"][net] = units
            out["limits"][net] = limits.limits_of(units, BATCH, machine)
            at_best = limits.limits_of(units, BATCH, {**machine, "triad_gb_s": machine["triad_best_gb_s"]})
            for precision in precisions:
                out["limits"][net][precision]["at_best_triad"] = at_best[precision]
        for peer in peers:
            say("memory:", peer.name)
            medians = {}
            for (name, net, kind, variant), ms in times.items():
                if name == peer.name and ms:
                    medians.setdefault(net, {}).setdefault(kind, {})[variant] = {"ms": statistics.median(ms), "all": ms}
            out["peers"].append({"name": peer.name, "python": peer.python, **peer.hello, "failed": failed[peer.name],
                                 "variants": medians, "memory": memory_of(peer, best[peer.name], precisions)})
        out["widths"] = measure_widths(ours, machine, 1 if a.quick else max(3, rounds // 2), a.quick)
    say("convolutions")
    out["convolutions"] = tool("bench_convolutions", "--json", "--rounds", "2" if a.quick else "15")
    os.makedirs(os.path.dirname(os.path.abspath(a.out)), exist_ok=True)
    with open(a.out, "w") as f:
        json.dump(out, f, indent=1)
    say("written:", a.out)


if __name__ == "__main__":
    main()
