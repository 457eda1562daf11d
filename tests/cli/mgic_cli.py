"""What the command-line tests share: running mgic, reading and writing safetensors, small configurations."""
import copy
import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import unittest

MGIC = os.path.abspath(sys.argv.pop(1)) if len(sys.argv) > 1 and not sys.argv[1].startswith("-") else "mgic"
SOURCE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

# Small enough to train in a second: ten classes of shapes, an MGIC network with three levels, dropout.
TINY = {
    "seed": 3,
    "device": "cpu",
    "model": {
        "type": "sequential", "in_channels": 1, "classes": 4,
        "layers": [
            {"type": "conv_chain", "links": [{"out_channels": 8, "activation": "relu"}]},
            {"type": "mgic_stage", "channels": 16, "stride": 2, "group_size": 4, "coarsest_width": 4},
            {"type": "global_pool"},
            {"type": "dropout", "probability": 0.2},
            {"type": "linear", "out_features": 4},
        ],
    },
    "data": {
        "type": "shapes", "image_size": 12, "channels": 1, "classes": 4, "train_size": 96, "test_size": 40, "batch_size": 16,
        "augment": [{"type": "random_crop", "padding": 1}, {"type": "random_flip"}],
    },
    "optimizer": {"type": "sgd", "lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 1e-4},
    "schedule": {"type": "cosine", "warmup_epochs": 0.5},
    "train": {"epochs": 2},
}


def tiny(**changes):
    """TINY with dotted keys changed: tiny(**{"train.epochs": 3}); None removes a key."""
    config = copy.deepcopy(TINY)
    for path, value in changes.items():
        node = config
        *parents, last = path.split(".")
        for key in parents:
            node = node[int(key)] if isinstance(node, list) else node[key]
        if value is None:
            del node[last]
        else:
            node[last] = value
    return config


def read_safetensors(path):
    """Name to (dtype, shape, bytes), and the metadata."""
    with open(path, "rb") as f:
        data = f.read()
    size = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:8 + size])
    metadata = header.pop("__metadata__", {})
    return {k: (v["dtype"], v["shape"], data[8 + size + v["data_offsets"][0]:8 + size + v["data_offsets"][1]])
            for k, v in header.items()}, metadata


class CliTest(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="mgic_cli_")
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)

    def path(self, *names):
        return os.path.join(self.folder, *names)

    def write(self, name, content):
        with open(self.path(name), "wb") as f:
            f.write(content if isinstance(content, bytes) else
                    (content if isinstance(content, str) else json.dumps(content)).encode())
        return self.path(name)

    def mgic(self, *arguments, env=None, timeout=300, code=0):
        result = subprocess.run([MGIC, *arguments], capture_output=True, text=True, timeout=timeout,
                                cwd=self.folder, env={**os.environ, **(env or {})})
        if code is not None:
            self.assertEqual(result.returncode, code, f"{arguments}\n{result.stdout}\n{result.stderr}")
        return result
