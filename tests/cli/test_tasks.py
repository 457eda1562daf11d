"""Networks for all tasks at the command line: removing noise, dry runs, summaries, losses, what does not fit."""
import json
import math
import os
import shutil

from mgic_cli import CliTest, read_safetensors, tiny, unittest

MOBILE = {"type": "mobilenet_v3", "block": {"type": "inverted_residual"}}
DENOISE = {"type": "autoencoder", "in_channels": 1, "channels": [4, 8], "block": {"type": "mgic", "group_size": 4, "coarsest_width": 4}}


class Tasks(CliTest):
    def summary(self, model):
        return json.loads(self.mgic("summary", self.write("c.json", {"model": model}), "--json").stdout)

    def test_counts(self):
        self.assertEqual(self.summary({"type": "lraspp", "backbone": MOBILE})["parameters"], 3221538)
        dgcnn = self.summary({"type": "dgcnn", "block": {"type": "mgic"}})
        self.assertEqual(dgcnn["dense"]["parameters"], 1809576)
        self.assertLess(dgcnn["parameters"], 1809576)
        # Images of another size; points are the height.
        few = json.loads(self.mgic("summary", self.write("d.json", {"model": {"type": "dgcnn", "block": {"type": "conv"}}}),
                                   "--input", "3,64,1", "--json").stdout)
        self.assertLess(few["macs"], dgcnn["dense"]["macs"] / 10)

    def test_an_autoencoder_learns_to_remove_noise(self):
        config = self.write("c.json", tiny(**{"model": DENOISE, "train.epochs": 4, "optimizer": {"type": "adamw", "lr": 5e-3},
                                              "loss": {"type": "mse", "noise": 0.2}}))
        printed = self.mgic("train", config, "--out", "run").stdout
        self.assertRegex(printed, r"test PSNR \d+\.\d\d dB \(best \d+\.\d\d dB\)")
        with open(self.path("run", "metrics.jsonl")) as f:
            lines = [json.loads(line) for line in f]
        self.assertNotIn("accuracy", lines[0])
        tests = [line["psnr"] for line in lines if line["split"] == "test"]
        self.assertGreater(tests[-1], tests[0])
        # Doing nothing gives the noise's own 10 log10(1/0.2²).
        self.assertGreater(tests[-1], -20 * math.log10(0.2))
        evaluated = json.loads(self.mgic("eval", "run", "--json", "--checkpoint", "run/checkpoints/last").stdout)
        self.assertEqual(evaluated["psnr"], tests[-1])
        self.assertEqual(evaluated["samples"], 40)
        self.assertIn("PSNR", self.mgic("eval", "run").stdout)

    def test_a_denoising_that_was_stopped_goes_on_bit_for_bit(self):
        config = self.write("c.json", tiny(**{"model": DENOISE, "train.epochs": 2, "optimizer": {"type": "adamw", "lr": 1e-3},
                                              "train.checkpoint_every": {"steps": 4}}))
        self.mgic("train", config, "--out", "whole")
        # As after a kill: the run as it was at step 8, within the second epoch.
        shutil.copytree(self.path("whole"), self.path("parts"), symlinks=True)
        checkpoints = self.path("parts", "checkpoints")
        steps = sorted(int(n[5:]) for n in os.listdir(checkpoints) if n.startswith("step-"))
        self.assertGreater(len(steps), 1)
        shutil.rmtree(os.path.join(checkpoints, f"step-{steps[-1]}"))
        for link in ("last", "best"):
            if os.path.islink(os.path.join(checkpoints, link)):
                os.unlink(os.path.join(checkpoints, link))
        os.symlink(f"step-{steps[-2]}", os.path.join(checkpoints, "last"))
        self.mgic("train", config, "--out", "parts", "--resume")
        for name in ("model.safetensors", "state.safetensors"):
            whole, parts = (read_safetensors(self.path(run, "checkpoints", "last", name))[0] for run in ("whole", "parts"))
            self.assertEqual(whole, parts, name)

    def test_smoothing_and_weights_train(self):
        config = self.write("c.json", tiny(**{"loss": {"type": "cross_entropy", "label_smoothing": 0.1,
                                                       "class_weights": [1, 1, 2, 0.5]}}))
        self.mgic("train", config, "--out", "run")
        evaluated = json.loads(self.mgic("eval", "run", "--json").stdout)
        self.assertEqual(evaluated["top5"], 1)
        recalls = [row[c] / sum(row) for c, row in enumerate(evaluated["confusion"])]
        self.assertAlmostEqual(evaluated["mean_class_accuracy"], sum(recalls) / 4)

    def train_losses(self, name, config):
        self.mgic("train", self.write(f"{name}.json", config), "--out", name)
        with open(self.path(name, "metrics.jsonl")) as f:
            return [line["loss"] for line in map(json.loads, f) if line["split"] == "train"]

    def test_mixing_reaches_the_loss(self):
        plain = self.train_losses("plain", tiny())
        for kind in ("mixup", "cutmix"):
            mixed = tiny(**{"data.mix": {kind: 1.0}})
            losses = self.train_losses(kind, mixed)
            self.assertNotEqual(losses, plain)
            self.assertEqual(losses, self.train_losses(f"{kind}_again", mixed))
        never = self.train_losses("never", tiny(**{"data.mix": {"mixup": 1.0, "probability": 0}}))
        self.assertEqual(never, plain)

    def test_clouds_of_points_train(self):
        config = tiny(**{
            "model": {"type": "dgcnn", "in_channels": 3, "classes": 14, "k": 4, "channels": [8, 16], "embedding": 32,
                      "dropout": 0.1, "block": {"type": "mgic", "group_size": 4, "coarsest_width": 4}},
            "data": {"type": "solids", "points": 32, "train_size": 280, "test_size": 56, "batch_size": 14,
                     "augment": [{"type": "point_scale"}]},
            "optimizer": {"type": "adamw", "lr": 5e-3}, "train.epochs": 3})
        losses = self.train_losses("run", config)
        self.assertLess(losses[-1], losses[0])
        evaluated = json.loads(self.mgic("eval", "run", "--json").stdout)
        self.assertEqual(evaluated["samples"], 56)

    def test_scenes_train(self):
        config = tiny(**{
            "model": {"type": "lraspp", "in_channels": 1, "classes": 11, "backbone": {
                "type": "resnet", "stem": "cifar", "channels": [8, 16], "blocks": [1, 1], "strides": [1, 2], "output_stride": 2,
                "block": {"type": "mgic", "group_size": 4, "coarsest_width": 4}}},
            "data": {"type": "fashion_scenes", "image_size": 32, "train_size": 64, "test_size": 10, "batch_size": 8,
                     "augment": [{"type": "random_flip"}]},
            "optimizer": {"type": "adamw", "lr": 5e-3}, "train.epochs": 3})
        path = self.write("c.json", config)
        probe = self.mgic("data", "stats", path, "--json", code=None)
        if probe.returncode != 0 and "train-images-idx3-ubyte" in probe.stderr:
            self.skipTest("Fashion-MNIST is not installed")
        losses = self.train_losses("run", config)
        self.assertLess(losses[-1], losses[0])
        with open(self.path("run", "metrics.jsonl")) as f:
            last = json.loads(f.readlines()[-1])

        def miou(*options):
            return json.loads(self.mgic("eval", "run", "--checkpoint", "run/checkpoints/last", "--json", *options).stdout)["miou"]

        self.assertEqual(miou(), last["miou"])
        # Windows: one that is the whole image changes nothing, smaller ones do.
        self.assertEqual(miou("--set", "evaluation.window=[32,32]"), last["miou"])
        self.assertNotEqual(miou("--set", "evaluation.window=[16,24]", "--set", "evaluation.stride=[8,12]"), last["miou"])

    def test_dry_runs_need_no_data_and_write_nothing(self):
        data = {"type": "fashion_mnist", "root": "/nowhere", "batch_size": 4}
        small = {"type": "mobilenet_v3", "size": "small", "stem": "cifar", "in_channels": 1, "block": {"type": "mgic"}}
        for model in (small, {"type": "autoencoder", "in_channels": 1, "block": {"type": "basic"}}):
            with self.subTest(model["type"]):
                config = self.write("c.json", tiny(**{"model": model, "data": data}))
                text = self.mgic("train", config, "--dry-run").stdout
                for part in ("(4, 28, 28, 1)", "parameters", "training step", "memory: peak"):
                    self.assertIn(part, text)
        self.assertFalse(os.path.exists(self.path("runs")))

    def test_what_does_not_fit(self):
        def wrong(model, part, **changes):
            config = self.write("w.json", tiny(**{"model": model, **changes}))
            self.assertIn(part, self.mgic("train", config, "--out", "wrong", code=2).stderr)
            self.assertFalse(os.path.exists(self.path("wrong")))

        wrong({"type": "mobilenet_v3", "in_channels": 1, "classes": 4, "block": {"type": "mgic", "kernel": 5}},
              "model.block.kernel: comes from MobileNetV3's table; remove it")
        wrong({**DENOISE, "block": {"type": "basci"}}, "model.block")
        wrong(DENOISE, "loss: cross_entropy needs classes", loss={"type": "cross_entropy"})
        wrong({"type": "lraspp", "in_channels": 1, "classes": 4, "backbone": {"type": "resnet", "block": {"type": "basic"}}},
              "model.type: lraspp gives a class for each pixel, but the data set shapes has a label for each sample")


if __name__ == "__main__":
    unittest.main()
