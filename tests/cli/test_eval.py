"""mgic eval, predict, list and describe."""
import json
import os
import struct
import sys

from mgic_cli import SOURCE, CliTest, tiny, unittest

sys.path.insert(0, os.path.join(SOURCE, "scripts"))
from sample_images import png  # noqa: E402


class Eval(CliTest):
    def setUp(self):
        super().setUp()
        # MNIST-format files of 40 test images, so that single ones can be written as PNG.
        os.mkdir(self.path("data"))
        self.images = [bytes((i * 37 + y * 11 + x * (3 + i % 4)) % 256 for y in range(12) for x in range(12)) for i in range(40)]
        self.labels = bytes(i % 4 for i in range(40))
        for part in ("train", "t10k"):
            self.write(f"data/{part}-images-idx3-ubyte", bytes([0, 0, 8, 3]) + struct.pack(">3I", 40, 12, 12) + b"".join(self.images))
            self.write(f"data/{part}-labels-idx1-ubyte", bytes([0, 0, 8, 1]) + struct.pack(">I", 40) + self.labels)
        config = tiny()
        config["data"] = {"type": "idx", "root": self.path("data"), "classes": 4, "mean": 0.5, "deviation": 0.3, "batch_size": 16}
        self.config = self.write("c.json", config)
        self.mgic("train", self.config, "--out", self.path("run"))

    def test_eval_prints_what_training_printed(self):
        with open(self.path("run", "metrics.jsonl")) as f:
            trained = [json.loads(line) for line in f][-1]
        last = json.loads(self.mgic("eval", self.path("run"), "--json", "--checkpoint",
                                    self.path("run", "checkpoints", "last")).stdout)
        self.assertEqual(last["accuracy"], trained["accuracy"])
        self.assertEqual(last["loss"], trained["loss"])
        self.assertEqual(last["samples"], 40)
        self.assertEqual(sum(map(sum, last["confusion"])), 40)
        self.assertEqual(sum(last["confusion"][c][c] for c in range(4)) / 40, last["accuracy"])
        # The configuration with the weights named is the same evaluation.
        other = json.loads(self.mgic("eval", self.config, "--json", "--checkpoint",
                                     self.path("run", "checkpoints", "last", "model.safetensors")).stdout)
        self.assertEqual(other["confusion"], last["confusion"])
        text = self.mgic("eval", self.path("run")).stdout
        self.assertIn("recall", text)
        self.assertIn("accuracy", text)

    def test_predict_agrees_with_eval(self):
        result = json.loads(self.mgic("eval", self.path("run"), "--json").stdout)
        names = []
        for i, image in enumerate(self.images):
            self.write(f"{i}.png", png(image, 12, 12))
            names.append(self.path(f"{i}.png"))
        predictions = json.loads(self.mgic("predict", self.path("run"), *names, "--json").stdout)["predictions"]
        confusion = [[0] * 4 for _ in range(4)]
        for i, p in enumerate(predictions):
            self.assertEqual(p["file"], names[i])
            self.assertAlmostEqual(sum(b["probability"] for b in p["best"]), 1)
            confusion[self.labels[i]][result["classes"].index(p["best"][0]["class"])] += 1
        self.assertEqual(confusion, result["confusion"])
        self.assertIn("%", self.mgic("predict", self.path("run"), names[0]).stdout)

    def test_wrong_input(self):
        def refused(*arguments, part):
            self.assertIn(part, self.mgic(*arguments, code=2).stderr)

        self.write("text.png", b"not an image")
        self.write("cut.png", png(self.images[0], 12, 12)[:60])
        refused("predict", self.path("run"), self.path("text.png"), part="text.png: is no image that can be read")
        refused("predict", self.path("run"), self.path("cut.png"), part="cut.png")
        refused("predict", self.path("run"), self.path("none.png"), part="none.png: no such file")
        refused("eval", self.folder, part="is no run folder")
        refused("eval", self.config, part="--checkpoint")
        refused("eval", self.path("run"), "--checkpoint", self.path("data"), part="model.safetensors: no such file")
        other = tiny()
        other["model"]["layers"][1]["channels"] = 24
        with open(self.config) as f:
            other["data"] = json.load(f)["data"]
        refused("eval", self.write("d.json", other), "--checkpoint", self.path("run", "checkpoints", "last"),
                part="does not fit this network")
        refused("list", "nothing", part='there is nothing called "nothing"')
        refused("describe", "layer", "cov2d", part='did you mean "conv2d"?')

    def test_a_validation_share_chooses_the_best(self):
        self.mgic("train", self.config, "--out", self.path("v"), "--set", "data.validation=0.25", "--set", "data.batch_size=10")
        with open(self.path("v", "metrics.jsonl")) as f:
            rows = [json.loads(line) for line in f]
        self.assertEqual([r["split"] for r in rows], ["train", "validation", "test"] * 2)
        self.assertIn("data.validation", self.mgic("train", self.config, "--out", self.path("w"), "--set", "data.validation=0.001",
                                                   code=2).stderr)


class Describe(CliTest):
    def keys(self, kind, name):
        return {k["key"] for k in json.loads(self.mgic("describe", kind, name, "--json").stdout)["keys"]}

    def test_every_key_of_every_shipped_configuration_is_described(self):
        kinds = {"model": ["models"], "block": ["blocks", "mobile_blocks", "point_blocks"], "backbone": ["backbones"],
                 "data": ["data"], "loss": ["losses"], "optimizer": ["optimizers"], "schedule": ["schedules"],
                 "augment": ["augmentations"], "layers": ["layers"]}
        cache = {}

        def known(kind, name):
            if (kind, name) not in cache:
                cache[kind, name] = self.keys(kind, name)
            return cache[kind, name]

        def names(kind):
            return {line.split()[0] for line in self.mgic("list", kind).stdout.splitlines()}

        def visit(where, node, section):
            if where in kinds and "type" not in node:
                return  # changes a part of its _base_
            allowed = known("sections", section) if section else set()
            if where in kinds:
                kind = next(k for k in kinds[where] if node["type"] in names(k))
                allowed |= known(kind, node["type"]) | {"type", "name"}
                if isinstance(node.get("smoother"), str):
                    allowed |= known("layers", node["smoother"])
            for key, value in node.items():
                if key == "_base_":
                    continue
                self.assertIn(key, allowed, f"{where}.{key}")
                if isinstance(value, dict):
                    sections = {"data": "data", "train": "train", "checkpoint_every": "checkpoint_every"}
                    visit(key, value, sections.get(key, ""))
                elif isinstance(value, list):
                    for element in value:
                        if isinstance(element, dict):
                            visit(key, element, "")

        found = 0
        folder = os.path.join(SOURCE, "configs")
        for name in sorted(os.listdir(folder)):
            with open(os.path.join(folder, name)) as f:
                visit("experiment", json.load(f), "experiment")
            found += 1
        self.assertGreater(found, 2)

    def test_text(self):
        self.assertIn("mgic", self.mgic("list", "layers").stdout)
        text = self.mgic("describe", "layer", "mgic").stdout
        for part in ("group_size", "integer", "16", "at least 1", "channels a group aims at"):
            self.assertIn(part, text)
        self.assertIn("models", self.mgic("list").stdout)


unittest.main(verbosity=2)
