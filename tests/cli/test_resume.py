"""A run that is killed at any moment and resumed ends as one that was left alone, bit for bit."""
import json
import os
import random
import signal
import subprocess
import time

from mgic_cli import MGIC, CliTest, tiny, unittest

SEED = 20261124  # of the moments at which runs are killed
CONFIG = tiny(**{"train.epochs": 6, "train.checkpoint_every": {"steps": 4}, "data.train_size": 160})


def content(folder):
    """All that must agree: weights, optimizer state, and metrics without what depends on time."""
    last = os.path.join(folder, "checkpoints", "last")
    with open(os.path.join(last, "model.safetensors"), "rb") as f:
        model = f.read()
    with open(os.path.join(last, "state.safetensors"), "rb") as f:
        state = f.read()
    rows = []
    with open(os.path.join(folder, "metrics.jsonl")) as f:
        for line in f:
            row = json.loads(line)
            row.pop("seconds")
            row.pop("images_per_second")
            rows.append(row)
    # The state names the length of metrics.jsonl, whose times have more or fewer digits.
    size = int.from_bytes(state[:8], "little")
    header = json.loads(state[8:8 + size])
    position = json.loads(header["__metadata__"]["state"])
    position.pop("metrics_bytes")
    return model, state[8 + size:], position, rows, os.path.basename(os.readlink(os.path.join(folder, "checkpoints", "best")))


class Resume(CliTest):
    def start(self, folder, resume):
        return subprocess.Popen([MGIC, "train", self.config, "--out", folder] + (["--resume"] if resume else []),
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def setUp(self):
        super().setUp()
        self.config = self.write("c.json", CONFIG)
        start = time.monotonic()
        self.mgic("train", self.config, "--out", self.path("alone"))
        self.seconds = time.monotonic() - start
        self.alone = content(self.path("alone"))

    def finish(self, folder, text):
        result = subprocess.run([MGIC, "train", self.config, "--out", folder, "--resume"], capture_output=True, text=True)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertEqual(content(folder), self.alone, text)

    def test_killed_at_ten_moments(self):
        moments = random.Random(SEED)
        for i in range(10):
            folder = self.path(f"killed{i}")
            in_checkpoint = i % 3 == 2
            process = self.start(folder, False)
            delay = moments.uniform(0.1, 0.9) * self.seconds
            begun = time.monotonic()
            while process.poll() is None:
                late = time.monotonic() - begun > delay
                if late and not in_checkpoint:
                    break
                if late and self.in_checkpoint(folder):
                    break
                time.sleep(0 if in_checkpoint else 0.001)
            process.kill()
            process.communicate()
            with self.subTest(moment=i, delay=round(delay, 3), in_checkpoint=in_checkpoint):
                self.finish(folder, f"moment {i}")

    def in_checkpoint(self, folder):
        try:
            return any(n.endswith(".tmp") for n in os.listdir(os.path.join(folder, "checkpoints")))
        except FileNotFoundError:
            return False

    def test_killed_again_and_again(self):
        moments = random.Random(SEED + 1)
        folder = self.path("often")
        for i in range(4):
            process = self.start(folder, i > 0)
            time.sleep(moments.uniform(0.2, 0.6) * self.seconds)
            process.kill()
            process.communicate()
        self.finish(folder, "killed four times")

    def test_interrupted(self):
        for name, number in (("int", signal.SIGINT), ("term", signal.SIGTERM)):
            folder = self.path(name)
            process = self.start(folder, False)
            while not os.path.exists(os.path.join(folder, "checkpoints", "last")) and process.poll() is None:
                time.sleep(0.001)
            process.send_signal(number)
            output, _ = process.communicate()
            self.assertEqual(process.returncode, 130, output)
            self.assertIn("--resume", output)
            self.finish(folder, name)

    def test_a_second_signal_stops_at_once(self):
        config = tiny(**{"device": "reference", "data.image_size": 96, "data.batch_size": 32})  # seconds a step
        process = subprocess.Popen([MGIC, "train", self.write("slow.json", config), "--out", self.path("slow")],
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        while not os.path.exists(self.path("slow", "checkpoints")):
            time.sleep(0.001)
        time.sleep(0.2)  # into the first step
        process.send_signal(signal.SIGINT)
        time.sleep(0.1)
        start = time.monotonic()
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate()
        self.assertEqual(process.returncode, 130)
        self.assertLess(time.monotonic() - start, 1)
        self.assertNotIn("a checkpoint was written", output)
        self.assertEqual(os.listdir(self.path("slow", "checkpoints")), [])

    def test_a_finished_run_says_so_and_stays(self):
        def listing():
            return {os.path.join(d, f): os.stat(os.path.join(d, f)).st_mtime_ns
                    for d, _, files in os.walk(self.path("alone")) for f in files}

        before = listing()
        result = self.mgic("train", self.config, "--out", self.path("alone"), "--resume")
        self.assertIn("this run is finished", result.stdout)
        self.assertEqual(listing(), before)

    def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(self):
        folder = self.path("damaged")
        process = self.start(folder, False)
        checkpoints = os.path.join(folder, "checkpoints")
        while process.poll() is None:
            try:
                if len([n for n in os.listdir(checkpoints) if n.startswith("step-") and not n.endswith(".tmp")]) >= 2:
                    break
            except FileNotFoundError:
                pass
            time.sleep(0.001)
        process.kill()
        process.communicate()
        last = max((int(n[5:]) for n in os.listdir(checkpoints) if n.startswith("step-") and not n.endswith(".tmp")))
        file = os.path.join(checkpoints, f"step-{last}", "model.safetensors")
        with open(file, "r+b") as f:
            f.seek(-5, os.SEEK_END)
            byte = f.read(1)
            f.seek(-5, os.SEEK_END)
            f.write(bytes([byte[0] ^ 0x40]))
        result = subprocess.run([MGIC, "train", self.config, "--out", folder, "--resume"], capture_output=True, text=True)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertIn(f"step-{last}/model.safetensors: damaged", result.stderr)
        self.assertIn("the checkpoint before it is used", result.stderr)
        self.assertEqual(content(folder), self.alone)


unittest.main(verbosity=2)
