#!/usr/bin/env python3
"""Our networks against PyTorch's: torchvision's weights under torchvision's names, and MGIC MobileNetV3s against the
independent implementation in bench/peers/mgic_torch.py.

    tests/models/test_torch.py MGIC            compares live: PyTorch makes weights and results, `mgic trace` the others
    tests/models/test_torch.py --write         writes tests/models/torch.json, which test_torch.cpp reads without PyTorch

Weights are a function of their names (see `fill`), so that the file holds results alone. Without PyTorch and torchvision
the live comparison is skipped (exit code 77).
"""
import copy
import json
import os
import struct
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
SKIPPED = 77
DEBIAN = "/usr/bin/python3"  # has torchvision where python3-torchvision is installed
# OpenBLAS's choices of a kernel, set for other programs, break Debian's numpy.
ENVIRONMENT = {k: v for k, v in os.environ.items() if not k.startswith("OPENBLAS_")}

try:
    import numpy as np
    import torch
    import torchvision
except ImportError:
    if os.path.exists(DEBIAN) and os.path.realpath(sys.executable) != os.path.realpath(DEBIAN):
        os.execve(DEBIAN, [DEBIAN, *sys.argv], ENVIRONMENT)
    print("PyTorch or torchvision is not installed: skipped")
    sys.exit(SKIPPED)

sys.path.insert(0, os.path.join(HERE, "..", "..", "bench", "peers"))
import mgic_torch  # noqa: E402

LIMIT = 1e-4     # logits in f32, relative to the largest
LIMIT_64 = 1e-8  # everything in f64: rounding alone separates the two

RESNET50 = {"type": "resnet", "stem": "imagenet", "blocks": [3, 4, 6, 3], "block": {"type": "bottleneck"}}
MOBILE = {"type": "mobilenet_v3", "block": {"type": "inverted_residual"}}
MODELS, SEG = torchvision.models, torchvision.models.segmentation
NO_WEIGHTS = {"weights": None}
NO_BACKBONE = {"weights": None, "weights_backbone": None}
# name: our model, torchvision's, height, width
CASES = {
    "resnet18": ({**RESNET50, "blocks": [2, 2, 2, 2], "block": {"type": "basic"}, "classes": 1000},
                 lambda: MODELS.resnet18(**NO_WEIGHTS), 65, 48),
    "resnet34": ({**RESNET50, "block": {"type": "basic"}, "classes": 1000},
                 lambda: MODELS.resnet34(**NO_WEIGHTS), 48, 33),
    "resnet50": ({**RESNET50, "classes": 1000}, lambda: MODELS.resnet50(**NO_WEIGHTS), 33, 48),
    "mobilenet_v3_large": ({**MOBILE, "classes": 1000}, lambda: MODELS.mobilenet_v3_large(**NO_WEIGHTS), 65, 48),
    "mobilenet_v3_small": ({**MOBILE, "size": "small", "classes": 1000},
                           lambda: MODELS.mobilenet_v3_small(**NO_WEIGHTS), 48, 65),
    "lraspp_mobilenet_v3_large": ({"type": "lraspp", "backbone": MOBILE},
                                  lambda: SEG.lraspp_mobilenet_v3_large(num_classes=21, **NO_BACKBONE), 65, 48),
    "deeplabv3_resnet50": ({"type": "deeplabv3", "auxiliary": True, "backbone": RESNET50},
                           lambda: SEG.deeplabv3_resnet50(num_classes=21, aux_loss=True, **NO_BACKBONE), 40, 33),
    "deeplabv3_mobilenet_v3_large": ({"type": "deeplabv3", "backbone": MOBILE},
                                     lambda: SEG.deeplabv3_mobilenet_v3_large(num_classes=21, aux_loss=False,
                                                                              **NO_BACKBONE), 48, 40),
}
MGIC_CASES = {
    f"mgic_{size}_{s}": (size, s) for size, s in (("small", 8), ("large", 16))
}


def mgic_config(size, s):
    return {"type": "mobilenet_v3", "size": size, "stem": "released", "classes": 10,
            "block": {"type": "mgic", "group_size": s, "coarsest_width": s, "coarsest_rule": "below"}}


def uniform(name, count):
    """count numbers in [0, 1) that only depend on the name: FNV-1a of the name, splitmix64 of it plus the index."""
    seed = 0xcbf29ce484222325
    for byte in name.encode():
        seed = ((seed ^ byte) * 0x100000001b3) & 0xffffffffffffffff
    with np.errstate(over="ignore"):
        z = np.uint64(seed) + (np.arange(count, dtype=np.uint64) + np.uint64(1)) * np.uint64(0x9e3779b97f4a7c15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xbf58476d1ce4e5b9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94d049bb133111eb)
        z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(11)).astype(np.float64) * 2.0 ** -53


def fill(name, shape):
    """A tensor's values, in the order of its file: variances and scales near 1, kernels that keep the deviation."""
    u = uniform(name, int(np.prod(shape)))
    if len(shape) >= 2:
        v = (2 * u - 1) * np.sqrt(3.0 / np.prod(shape[1:]))
    elif name.endswith("running_var") or name.endswith("weight"):
        v = 0.5 + u
    else:
        v = 0.2 * (2 * u - 1)
    return torch.from_numpy(v.reshape(shape))


def filled(model, dtype):
    """The model with these weights, in evaluation mode, and its state without num_batches_tracked."""
    state = {n: fill(n, tuple(t.shape)).to(dtype) if t.is_floating_point() else t for n, t in model.state_dict().items()}
    model = model.to(dtype)
    model.load_state_dict(state)
    return model.eval(), {n: t for n, t in state.items() if not n.endswith("num_batches_tracked")}


def inputs(name, n, height, width, dtype):
    return torch.from_numpy((4 * uniform("input of " + name, n * 3 * height * width) - 2).reshape(n, 3, height, width)).to(dtype)


def torchvision_case(name):
    config, build, height, width = CASES[name]
    model, state = filled(build(), torch.float32)
    x = inputs(name, 2, height, width, torch.float32)
    with torch.no_grad():
        y = model(x)
    return config, state, x, y if torch.is_tensor(y) else y["out"]


def mgic_case(name):
    size, s = MGIC_CASES[name]
    model, state = filled(mgic_torch.MobileNetV3(size, 10, s, s, "below"), torch.float64)
    x, labels = inputs(name, 2, 32, 32, torch.float64), torch.tensor([3, 7])
    result = {"logits.eval": model(x).detach()}
    model = copy.deepcopy(model).train()
    logits = model(x)
    loss = torch.nn.functional.cross_entropy(logits, labels)
    loss.backward()
    result.update({"logits.train": logits.detach(), "loss": loss.detach()})
    result.update({f"grads/{n}": p.grad for n, p in model.named_parameters()})
    return mgic_config(size, s), state, x, labels, result


def write():
    cases = {}
    for name in CASES:
        config, state, x, y = torchvision_case(name)
        flat = y.double().flatten()
        step = max(1, len(flat) // 61)
        cases[name] = {"model": config, "input": list(x.shape), "tensors": len(state), "step": step,
                       "logits": [float(f"{v:.7g}") for v in flat[::step].tolist()], "largest": float(flat.abs().max())}
    mgic = {}
    for name in MGIC_CASES:
        config, state, x, labels, result = mgic_case(name)
        gradients = {n[6:]: [float((g.flatten() * torch.from_numpy(2 * uniform("direction of " + n[6:], g.numel()) - 1)).sum()),
                             float(g.norm())] for n, g in result.items() if n.startswith("grads/")}
        mgic[name] = {"model": config, "input": list(x.shape), "labels": labels.tolist(), "tensors": len(state),
                      "loss": float(result["loss"]), "logits.eval": result["logits.eval"].flatten().tolist(),
                      "logits.train": result["logits.train"].flatten().tolist(), "gradients": gradients}
    with open(os.path.join(HERE, "torch.json"), "w") as f:
        json.dump({"torchvision": cases, "mgic": mgic}, f, separators=(",", ":"))
        f.write("\n")


CODES = {torch.float32: "F32", torch.float64: "F64", torch.int64: "I64"}


def save(path, tensors):
    header, blob = {}, b""
    for name, t in tensors.items():
        raw = t.contiguous().numpy().tobytes()
        header[name] = {"dtype": CODES[t.dtype], "shape": list(t.shape), "data_offsets": [len(blob), len(blob) + len(raw)]}
        blob += raw
    text = json.dumps(header).encode()
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + blob)


def load(path):
    with open(path, "rb") as f:
        data = f.read()
    size = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:8 + size])
    header.pop("__metadata__", None)
    kinds = {"F32": np.float32, "F64": np.float64, "I64": np.int64}
    return {n: np.frombuffer(data[8 + size + v["data_offsets"][0]:8 + size + v["data_offsets"][1]],
                             dtype=kinds[v["dtype"]]).reshape(v["shape"]) for n, v in header.items()}


def error(ours, theirs):
    theirs = theirs.detach().numpy()
    assert ours.shape == theirs.shape, (ours.shape, theirs.shape)
    return float(np.abs(ours - theirs).max() / max(np.abs(theirs).max(), 1e-300))


def trace(mgic, folder, config, state, batch, *arguments):
    with open(os.path.join(folder, "c.json"), "w") as f:
        json.dump({"model": config}, f)
    save(os.path.join(folder, "w.safetensors"), state)
    save(os.path.join(folder, "b.safetensors"), batch)
    subprocess.run([mgic, "trace", "c.json", "--weights", "w.safetensors", "--batch", "b.safetensors", "--out",
                    "o.safetensors", *arguments], cwd=folder, check=True)
    return load(os.path.join(folder, "o.safetensors"))


def compare(mgic):
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        for name in CASES:
            config, state, x, y = torchvision_case(name)
            # num_batches_tracked is in torchvision's files, and ignored.
            state["bn1.num_batches_tracked"] = torch.tensor(5)
            labels = torch.zeros([len(x), *x.shape[2:]] if y.dim() == 4 else [len(x)], dtype=torch.int64)
            out = trace(mgic, folder, config, state, {"input": x, "labels": labels}, "--device", "cpu")
            ours = out["logits.eval"]
            e = error(ours, y)
            wrong += not e <= LIMIT
            print(f"{name}: {e:.1e}")
        for name in MGIC_CASES:
            config, state, x, labels, result = mgic_case(name)
            out = trace(mgic, folder, config, state, {"input": x, "labels": labels}, "--device", "reference", "--dtype", "f64")
            errors = {n: error(out[n].reshape(t.shape), t) for n, t in result.items()}
            worst = max(errors, key=errors.get)
            wrong += not errors[worst] <= LIMIT_64
            print(f"{name}: {len(errors)} tensors, the worst is {worst}: {errors[worst]:.1e}")
    return wrong


if __name__ == "__main__":
    torch.set_num_threads(2)
    if sys.argv[1:] == ["--write"]:
        write()
    else:
        sys.exit(1 if compare(os.path.abspath(sys.argv[1])) else 0)
