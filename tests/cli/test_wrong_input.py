"""Wrong input: exit code 2, a sentence that names the file, the path, the rule and the remedy, and nothing left behind."""
import gzip
import os
import shutil
import struct
import subprocess

from mgic_cli import MGIC, CliTest, tiny, unittest


def idx(dims, body):
    return bytes([0, 0, 8, len(dims)]) + b"".join(struct.pack(">I", d) for d in dims) + body


def idx_files(n=20, classes=4):
    images = idx([n, 12, 12], bytes(range(144)) * n)
    labels = idx([n], bytes(i % classes for i in range(n)))
    return {"train-images-idx3-ubyte.gz": gzip.compress(images), "train-labels-idx1-ubyte.gz": gzip.compress(labels),
            "t10k-images-idx3-ubyte.gz": gzip.compress(images), "t10k-labels-idx1-ubyte.gz": gzip.compress(labels)}


RESNET = {"type": "resnet", "in_channels": 1, "classes": 4, "channels": [8], "blocks": [1], "strides": [1],
          "block": {"type": "basic"}}


class WrongInput(CliTest):
    def refused(self, arguments, *parts, env=None):
        """Exit 2, every line (behind the progress) begins with "error: ", and all parts are said."""
        result = self.mgic(*arguments, env=env, code=2)
        lines = [line for line in result.stderr.splitlines() if not line.startswith("epoch ")]
        self.assertTrue(lines)
        for line in lines:
            self.assertTrue(line.startswith("error: "), result.stderr)
        for part in parts:
            self.assertIn(part, result.stderr)
        self.assertNotIn("terminate", result.stderr)
        return result

    def train(self, config):
        return ["train", self.write("c.json", config), "--out", self.path("run")]

    def test_configurations(self):
        table = [
            ({"model.layers.1.group_sze": 8}, 'model.layers[1].group_sze: unknown key, did you mean "group_size"?'),
            ({"optimizer.lrate": 1}, 'optimizer.lrate: unknown key'),
            ({"optimizer.lr": "fast"}, 'optimizer.lr: expects a number, not "fast"'),
            ({"optimizer.lr": -1}, "optimizer.lr: must be above 0, not -1"),
            ({"optimizer.type": "sdg"}, 'optimizer.type: "sdg" is not a choice; allowed are sgd, adamw'),
            ({"optimizer": None}, "optimizer: is missing"),
            ({"data": None}, "data: is missing"),
            ({"model": None}, "model: is missing"),
            ({"model.classes": 5}, "model.classes: is 5, but the data set shapes has 4 classes"),
            ({"model.in_channels": 3}, "model.in_channels: is 3, but the images of shapes have 1 channels"),
            ({"model.layers.4.out_features": 3}, '"classes" asks for (1, 4)'),
            ({"model.layers.1.group_size": 0}, "model.layers[1].group_size: must be at least 1"),
            ({"model.layers.1.coarsest_rule": "below", "model.layers.1.coarsest_width": 1}, "must be at least 2"),
            ({"model.layers.1.smoother": "smoth"}, '"smoth" is not a choice'),
            ({"data.batch_size": 97}, "data.batch_size: must be at most the number of training samples, 96, not 97"),
            ({"data.batch_size": 0}, "data.batch_size: must be at least 1"),
            ({"data.augment": [{"type": "random_crop", "padding": -1}]}, "data.augment[0].padding: must be at least 0"),
            ({"data.augment": [{"type": "rotate"}]}, "data.augment[0].type"),
            ({"data.type": "cifar"}, 'data.type: "cifar" is not a choice'),
            ({"data.classes": 99}, "data.classes"),
            ({"schedule.type": "linear"}, "schedule.type"),
            ({"schedule.warmup_epochs": -1}, "schedule.warmup_epochs: must be at least 0"),
            ({"train.epochs": 1.5}, "train.epochs: expects an integer, not 1.5"),
            ({"train.checkpoint_every": {"steps": 1, "minutes": 1}}, "train.checkpoint_every: takes only one"),
            ({"train.precision": "f16"}, 'train.precision: "f16" is not a choice; allowed are f32, bf16'),
            ({"train.precision": "bf16", "device": "reference"}, "train.precision: must be f32 on the reference device"),
            ({"data": {"type": "solids", "batch_size": 8}, "model": RESNET},
             "model.type: resnet takes images, but the data set solids holds clouds of points"),
            ({"model": {"type": "dgcnn", "classes": 4, "block": {"type": "mgic"}}},
             "model.type: dgcnn takes clouds of points, but the data set shapes holds images"),
            ({"model": {"type": "pointnet", "classes": 4, "block": {"type": "conv"}}},
             "model.type: pointnet takes clouds of points, but the data set shapes holds images"),
            ({"model.layers.1.levels": 0}, "model.layers[1].levels: must be at least 1"),
            ({"evaluation": {"window": [8, 8]}}, "evaluation.window: is for segmentation, and the model is a sequential"),
            ({"evaluation": {"window": [8]}}, "evaluation.window: must be [height, width] or []"),
            ({"evaluation": {"window": [8, 8], "stride": [4, 9]}}, "evaluation.stride: must be at most the window, [8, 8]"),
            ({"evaluation": {"stride": [4, 4]}}, "evaluation.stride: needs a window"),
            ({"seed": "one"}, 'seed: expects an integer, not "one"'),
            ({"device": "gpu"}, 'device: "gpu" is not a choice; allowed are auto, cpu, reference, cuda'),
        ]
        for changes, message in table:
            with self.subTest(changes=changes):
                self.refused(self.train(tiny(**changes)), f"error: {self.path('c.json')}: ", message)
                self.assertFalse(os.path.exists(self.path("run")))

    def test_several_faults_at_once(self):
        config = tiny(**{"optimizer.lr": 0, "train.epochs": "x", "data.augment.0.padding": "y", "colour": 1})
        result = self.refused(self.train(config), "optimizer.lr: must be above 0", "train.epochs: expects an integer",
                              "data.augment[0].padding: expects an integer", "colour: unknown key")
        self.assertEqual(len(result.stderr.splitlines()), 4)

    def test_files(self):
        self.refused(["train", self.path("nowhere.json")], "nowhere.json: no such file")
        self.refused(["train", self.folder], "is a folder, not a file")
        self.refused(["train", self.write("c.json", '{"seed": 1,')], "c.json: is not JSON")
        self.refused(["train", self.write("c.json", "")], "c.json: is not JSON")
        self.refused(["train", self.write("c.json", b"\xff\xfe\x00")], "c.json: is not JSON")
        self.refused(["train", self.write("c.json", {"_base_": "lost.json"})], "lost.json: no such file")
        self.refused(["train", self.write("c.json", {"_base_": "c.json"})], "inherits from itself")

    def test_the_command_line_itself(self):
        config = self.write("c.json", tiny())
        self.refused([], "subcommand")
        self.refused(["trian", config])
        self.refused(["train"], "CONFIG")
        self.refused(["train", config, "--epochs", "3"], "--epochs")
        self.refused(["train", config, "--set", "optimizer.lrr=1"], 'optimizer.lrr: unknown key, did you mean "lr"?')
        self.refused(["train", config, "--set", "optimizer.lr"], "expects KEY=VALUE")
        self.refused(["train", config, "--set", b"name=\xff"], "is not UTF-8")
        self.refused(["train", config, "--set", "data.augment[5].padding=1"], "no list element [5]")
        self.refused(["train", config, "--device", "cuda"], "device cuda")
        self.refused(["summary", config, "--input", "3,32"], "expects C,H,W")
        self.refused(["summary", config, "--input", "3,0,4"], "expects C,H,W")
        self.refused(["train", config, "--log-level", "loud"], "--log-level")
        self.refused(["bench", config, "--runs", "0"], "--runs")
        self.refused(["trace", config], "--weights")

    def test_data_files(self):
        def config(**changes):
            c = tiny(**{"data.augment": None, **{f"data.{k}": None for k in ("image_size", "channels", "train_size", "test_size")}})
            c["data"] = {"type": "idx", "root": self.path("data"), "classes": 4, "batch_size": 8, **changes}
            return c

        def data(**files):
            shutil.rmtree(self.path("data"), ignore_errors=True)
            os.mkdir(self.path("data"))
            for name, content in {**idx_files(), **files}.items():
                if content is not None:
                    with open(self.path("data", name), "wb") as f:
                        f.write(content)

        data()
        self.mgic(*self.train(config()))
        shutil.rmtree(self.path("run"))
        images, labels = "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"
        whole = idx_files()
        table = [
            ({images: None}, [images[:-3], "data.root"]),
            ({images: whole[images][:-20]}, [images]),
            ({images: b"not gzip at all"}, [images]),
            ({images: gzip.compress(b"\x00\x00\x09\x03" + bytes(12))}, [images]),
            ({images: gzip.compress(idx([20, 12, 12], bytes(100)))}, [images]),
            ({images: gzip.compress(idx([4000000000, 12, 12], bytes(144)))}, [images]),
            ({labels: gzip.compress(idx([20], bytes([9] * 20)))}, [labels]),
            ({labels: gzip.compress(idx([19], bytes(19)))}, [labels]),
            ({labels: whole[images]}, [labels]),
            ({images: b""}, [images]),
        ]
        for files, parts in table:
            with self.subTest(files={k: None if v is None else len(v) for k, v in files.items()}):
                data(**files)
                self.refused(self.train(config()), *parts)
                self.assertFalse(os.path.exists(self.path("run")))
        # Read correctly, but of the wrong shape for the network.
        data()
        wrong = config()
        wrong["model"]["in_channels"] = 3
        self.refused(self.train(wrong), "model.in_channels: is 3, but the images of idx have 1 channels")
        self.refused(self.train(config(batch_size=21)), "data.batch_size: must be at most the number of training samples, 20")
        # Fashion-MNIST that is not there.
        fashion = tiny()
        fashion["data"] = {"type": "fashion_mnist", "root": self.path("nowhere")}
        fashion["model"]["classes"] = 10
        fashion["model"]["layers"][-1]["out_features"] = 10
        self.refused(self.train(fashion), "train-images-idx3-ubyte")

    def test_folders(self):
        config = self.write("c.json", tiny(**{"train.epochs": 1}))
        self.mgic("train", config, "--out", self.path("run"))
        before = sorted(os.listdir(self.path("run", "checkpoints")))
        self.refused(["train", config, "--out", self.path("run")], "--resume", "--out")
        other = self.write("d.json", tiny(**{"train.epochs": 1, "optimizer.lr": 0.2}))
        self.refused(["train", other, "--out", self.path("run")], "another configuration")
        self.refused(["train", other, "--out", self.path("run"), "--resume"], "another configuration")
        self.assertEqual(before, sorted(os.listdir(self.path("run", "checkpoints"))))
        self.refused(["train", config, "--out", self.write("file", "x")], "is a file, not a folder")
        self.refused(["train", config, "--out", "/proc/mgic"], "/proc/mgic")

    def test_a_folder_in_use(self):
        config = self.write("c.json", tiny(**{"train.epochs": 100000}))
        first = subprocess.Popen([MGIC, "train", config, "--out", self.path("run")], stderr=subprocess.PIPE,
                                 stdout=subprocess.DEVNULL, text=True)
        try:
            first.stderr.readline()  # it has begun
            self.refused(["train", config, "--out", self.path("run"), "--resume"], "another process trains in this folder")
        finally:
            first.kill()
            first.communicate()

    def test_a_full_disk(self):
        mount = self.path("small")
        os.mkdir(mount)
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=96k", "tmpfs", mount], capture_output=True).returncode:
            self.skipTest("a tmpfs cannot be mounted here")
        try:
            config = self.write("c.json", tiny(**{"train.epochs": 50}))
            self.refused(["train", config, "--out", os.path.join(mount, "run")], "No space left on device")
            left = os.listdir(os.path.join(mount, "run", "checkpoints"))
            self.assertFalse([n for n in left if n.endswith(".tmp")], left)
        finally:
            subprocess.run(["umount", mount], check=True)

    def test_a_loss_that_is_not_finite(self):
        config = tiny(**{"optimizer.lr": 1e30, "train.epochs": 3, "train.checkpoint_every": {"steps": 100}})
        config["schedule"] = {"type": "constant"}
        self.refused(self.train(config), "no longer finite", "optimizer.lr")
        # It names the layer, and the last good checkpoint stays.
        shutil.rmtree(self.path("run"))
        config["train"]["checkpoint_every"] = {"steps": 1}
        self.refused(self.train(config), "the loss is no longer finite at step ",
                     "the first output that is not finite is that of ", "; the last good checkpoint stays; try a smaller")
        last = os.readlink(self.path("run", "checkpoints", "last"))
        self.assertTrue(os.path.exists(self.path("run", "checkpoints", last, "state.safetensors")))
        self.assertFalse([n for n in os.listdir(self.path("run", "checkpoints")) if n.endswith(".tmp")])
        self.mgic("eval", self.path("run"), "--checkpoint", self.path("run", "checkpoints", "last"))


unittest.main(verbosity=2)
