"""mgic train, summary, trace and bench, run as a user would."""
import json
import os
import random
import struct
import sys

from mgic_cli import SOURCE, CliTest, read_safetensors, tiny, unittest


def metrics(path):
    """metrics.jsonl without what depends on time."""
    rows = []
    with open(path) as f:
        for line in f:
            row = json.loads(line)
            row.pop("seconds")
            row.pop("images_per_second")
            rows.append(row)
    return rows


class Train(CliTest):
    def write_quadrants(self):
        """MNIST-format files whose four classes are the brightest quadrant of a noisy image."""
        noise = random.Random(1)
        os.mkdir(self.path("data"))
        for part, n in (("train", 320), ("t10k", 80)):
            images, labels = b"", b""
            for i in range(n):
                label = i % 4
                images += bytes(noise.randrange(0, 160) + (80 if (y // 6) * 2 + x // 6 == label else 0)
                                for y in range(12) for x in range(12))
                labels += bytes([label])
            self.write(f"data/{part}-images-idx3-ubyte", bytes([0, 0, 8, 3]) + struct.pack(">3I", n, 12, 12) + images)
            self.write(f"data/{part}-labels-idx1-ubyte", bytes([0, 0, 8, 1]) + struct.pack(">I", n) + labels)

    def test_learns_and_leaves_a_whole_run(self):
        self.write_quadrants()
        config = tiny(**{"train.epochs": 6})
        config["data"] = {"type": "idx", "root": self.path("data"), "classes": 4, "mean": 0.4, "deviation": 0.2, "batch_size": 16}
        # A pooled classifier cannot see where: the image is flattened instead.
        config["model"]["layers"][2] = {"type": "flatten"}
        config = self.write("c.json", config)
        result = self.mgic("train", config, "--out", self.path("run"))
        self.assertIn("everything is in", result.stdout)
        self.assertIn("images/s", result.stderr)
        self.assertIn("ETA", result.stderr)
        rows = metrics(self.path("run", "metrics.jsonl"))
        self.assertEqual([(r["epoch"], r["split"]) for r in rows],
                         [(e, s) for e in range(1, 7) for s in ("train", "test")])
        self.assertEqual(set(rows[0]), {"epoch", "split", "loss", "accuracy", "lr"})
        # Four balanced classes: chance is 0.25.
        self.assertGreater(rows[-1]["accuracy"], 0.9)
        self.assertLess(rows[-2]["loss"], rows[0]["loss"])
        tensors, metadata = read_safetensors(self.path("run", "checkpoints", "last", "model.safetensors"))
        self.assertIn("1.mgic.restrict.0.weight", tensors)
        self.assertEqual(tensors["1.transition.conv.weight"][1], [16, 1, 3, 3])  # OIHW in files
        for name in ("config.json", "log.txt", "checkpoints/best"):
            self.assertTrue(os.path.exists(self.path("run", name)), name)
        with open(self.path("run", "config.json")) as f:
            self.assertEqual(json.load(f)["model"]["layers"][1]["coarsest_rule"], "reach")
        self.assertFalse([n for n in os.listdir(self.path("run", "checkpoints")) if n.endswith(".tmp")])

    def test_log_levels(self):
        config = self.write("c.json", tiny(**{"train.epochs": 1}))
        said = {level: self.mgic("train", config, "--out", self.path(level), "--log-level", level).stderr
                for level in ("error", "warning", "info", "debug")}
        self.assertEqual((said["error"], said["warning"]), ("", ""))
        self.assertIn("epoch 1/1", said["info"])
        self.assertNotIn("debug: ", said["info"])
        self.assertIn("debug: checkpoint of step", said["debug"])
        with open(self.path("error", "log.txt")) as f:
            self.assertIn("epoch 1/1", f.read())  # the run folder tells all, whatever was shown

    def test_same_seed_same_weights_for_any_number_of_loader_threads(self):
        files = []
        for threads in (0, 1, 3):
            config = self.write("c.json", tiny(**{"data.threads": threads}))
            self.mgic("train", config, "--out", self.path(f"run{threads}"))
            with open(self.path(f"run{threads}", "checkpoints", "last", "model.safetensors"), "rb") as f:
                files.append(f.read())
        self.assertEqual(files[0], files[1])
        self.assertEqual(files[0], files[2])
        self.mgic("train", self.write("c.json", tiny(seed=4)), "--out", self.path("other"))
        with open(self.path("other", "checkpoints", "last", "model.safetensors"), "rb") as f:
            self.assertNotEqual(files[0], f.read())

    def test_bf16_trains_nearly_the_same_network(self):
        losses = {}
        for precision in ("f32", "bf16"):
            config = self.write(f"{precision}.json", tiny(**{"train.precision": precision, "train.epochs": 3}))
            self.mgic("train", config, "--out", self.path(precision))
            rows = metrics(self.path(precision, "metrics.jsonl"))
            losses[precision] = rows[-1]["loss"]
            evaluated = json.loads(self.mgic("eval", self.path(precision), "--checkpoint",
                                             self.path(precision, "checkpoints", "last"), "--json").stdout)
            self.assertEqual(evaluated["loss"], rows[-1]["loss"])  # evaluated in the run's precision
        self.assertNotEqual(losses["bf16"], losses["f32"])
        self.assertAlmostEqual(losses["bf16"], losses["f32"], delta=0.1)
        tensors, _ = read_safetensors(self.path("bf16", "checkpoints", "last", "model.safetensors"))
        self.assertEqual({t[0] for t in tensors.values()}, {"F32"})  # weights and statistics

    def test_the_reference_device_trains_the_same_network(self):
        losses = []
        for device in ("cpu", "reference"):
            self.mgic("train", self.write("c.json", tiny(**{"train.epochs": 1})), "--device", device, "--out", self.path(device))
            losses.append(metrics(self.path(device, "metrics.jsonl"))[0]["loss"])
        # f32 sums in another order, over six steps.
        self.assertAlmostEqual(losses[0], losses[1], delta=1e-3)

    def test_memory_does_not_grow_over_200_steps(self):
        script = ("import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, stderr=subprocess.DEVNULL, "
                  "stdout=subprocess.DEVNULL); print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)")
        import subprocess
        from mgic_cli import MGIC
        peaks = []
        for epochs in (10, 60):  # 6 steps each: 60 and 360 steps
            config = self.write("c.json", tiny(**{"train.epochs": epochs}))
            # A sanitizer build keeps freed memory for a while, which is no leak.
            out = subprocess.run([sys.executable, "-c", script, MGIC, "train", config, "--out", self.path(f"m{epochs}")],
                                 capture_output=True, text=True, check=True,
                                 env={**os.environ, "ASAN_OPTIONS": "quarantine_size_mb=1:detect_leaks=0"})
            peaks.append(int(out.stdout))
        # 300 more steps may cost what the allocators' free lists and the log need, not what a leak of one tensor a
        # step would: 300 · 16·12·12·16·4 bytes = 44 MB.
        self.assertLess(peaks[1] - peaks[0], 4096, f"peaks in KiB: {peaks}")

    def test_optimizers_and_schedules_run(self):
        for i, (optimizer, schedule) in enumerate((
                ({"type": "adamw", "lr": 0.002}, {"type": "step", "milestones": [1], "gamma": 0.1}),
                ({"type": "sgd", "lr": 0.1, "groups": [{"match": "bn", "weight_decay": 0}]}, {"type": "constant"}))):
            config = tiny()
            config["optimizer"], config["schedule"] = optimizer, schedule
            self.mgic("train", self.write("c.json", config), "--out", self.path(f"r{i}"))
        rows = metrics(self.path("r0", "metrics.jsonl"))
        self.assertAlmostEqual(rows[-1]["lr"], 0.0002)


class Other(CliTest):
    def test_summary_json_is_one_object(self):
        config = os.path.join(SOURCE, "configs", "fashion_mnist_mgic.json")
        summary = json.loads(self.mgic("summary", config, "--json").stdout)
        self.assertEqual(summary["parameters"], 250026)
        self.assertEqual(summary["dense"]["parameters"], 696042)
        self.assertEqual(sum(l["parameters"] for l in summary["layers"]), 250026)
        self.assertEqual(sum(l["macs"] for l in summary["layers"]), summary["macs"])
        self.assertEqual(set(summary["layers"][0]), {"name", "type", "output_shape", "parameters", "macs"})
        text = self.mgic("summary", config).stdout
        self.assertIn("250,026", text)
        self.assertIn("its dense twin", text)

    def test_summary_takes_the_model_alone_and_an_input_size(self):
        config = self.write("m.json", {"model": {"type": "resnet", "stem": "imagenet", "classes": 1000,
                                                 "block": {"type": "basic"}}})
        at_224 = json.loads(self.mgic("summary", config, "--json").stdout)
        self.assertEqual(at_224["parameters"], 11689512)
        self.assertEqual(at_224["macs"], 1814073344)  # ResNet-18 at 224×224
        self.assertEqual(at_224["layers"][0]["output_shape"], [1, 112, 112, 64])
        small = json.loads(self.mgic("summary", config, "--json", "--input", "3,64,64").stdout)
        self.assertLess(small["macs"], at_224["macs"])

    def test_trace_in_both_dtypes(self):
        golden, metadata = read_safetensors(os.path.join(SOURCE, "tests", "golden", "resnet_mgic.safetensors"))
        config = self.write("c.json", {"model": json.loads(metadata["model"]), "optimizer": json.loads(metadata["optimizer"])})

        def write(name, tensors):
            header, data = {}, b""
            for key, (dtype, shape, raw) in tensors.items():
                header[key] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(raw)]}
                data += raw
            text = json.dumps(header).encode()
            return self.write(name, struct.pack("<Q", len(text)) + text + data)

        weights = write("w.safetensors", {k[8:]: v for k, v in golden.items() if k.startswith("weights/")})
        batch = write("b.safetensors", {k: golden[k] for k in ("input", "labels")})
        self.mgic("trace", config, "--weights", weights, "--batch", batch, "--out", self.path("o.safetensors"),
                  "--steps", metadata["steps"], "--dtype", "f64", "--device", "reference")
        out, _ = read_safetensors(self.path("o.safetensors"))
        expected = struct.unpack("<4d", golden["losses"][2])
        for a, b in zip(struct.unpack("<4d", out["losses"][2]), expected):
            self.assertAlmostEqual(a, b, delta=1e-8 * max(expected))
        self.mgic("trace", config, "--weights", weights, "--batch", batch, "--out", self.path("o32.safetensors"), "--activations")
        out, _ = read_safetensors(self.path("o32.safetensors"))
        self.assertEqual(out["logits.eval"][0], "F32")
        self.assertEqual(out["activations/stages.0.0.mgic.restrict.0"][1], [8, 8, 12, 12])  # NCHW in files
        self.mgic("trace", config, "--weights", weights, "--batch", batch, "--out", self.path("x"), "--dtype", "f64",
                  "--device", "cpu", code=2)
        self.mgic("trace", config, "--weights", batch, "--batch", batch, "--out", self.path("x"), code=2)
        self.assertFalse(os.path.exists(self.path("x")))

    def test_bench_json(self):
        config = self.write("c.json", tiny())
        b = json.loads(self.mgic("bench", config, "--json", "--runs", "2").stdout)
        for key in ("train_step_ms", "infer_ms", "images_per_second", "peak_rss_mb", "gflops", "kernel_share"):
            self.assertGreater(b[key], 0, key)
        self.assertEqual((b["system_allocations"], b["primitives_created"]), (0, 0))
        self.assertIn("1.mgic.smooth.0", [l["name"] for l in b["layers"]])
        self.assertEqual(set(b["layers"][0]), {"name", "forward_ms", "backward_ms", "gflops"})
        self.assertIn("training step", self.mgic("bench", config, "--runs", "2").stdout)

    def test_the_fashion_configurations_differ_in_the_block_alone(self):
        configs = []
        for name in ("mgic", "dense"):
            with open(os.path.join(SOURCE, "configs", f"fashion_mnist_{name}.json")) as f:
                configs.append(json.load(f))
        for c in configs:
            c.pop("name")
            c["model"].pop("block")
        self.assertEqual(configs[0], configs[1])


unittest.main(verbosity=2)
