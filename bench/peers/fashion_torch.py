"""The recipe of configs/fashion_mnist_mgic.json and its dense twin in PyTorch: seconds an epoch, and test accuracy.

/usr/bin/python3 bench/peers/fashion_torch.py --block mgic_basic|basic [--epochs 1] [--last] [--steps N] [--root DIR]

Prints one JSON line; with --steps only the median time of N training steps, data preparation included. The images are resident; augmentation (crop, flip) is done for a whole batch at once.
"""
import argparse
import gzip
import json
import math
import os
import statistics
import time

import numpy as np
import torch
import torch.nn.functional as F

from mgic_torch import ResNet


def idx(path):
    with gzip.open(path) as f:
        b = f.read()
    dims = [int.from_bytes(b[4 + 4 * i:8 + 4 * i], "big") for i in range(b[3])]
    return np.frombuffer(b, np.uint8, offset=4 + 4 * b[3]).reshape(dims)


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--block", default="mgic_basic")
    p.add_argument("--epochs", type=int, default=1)
    p.add_argument("--schedule-epochs", type=int, default=5)
    p.add_argument("--last", action="store_true", help="channels_last memory format")
    p.add_argument("--steps", type=int, default=0)
    p.add_argument("--root", default="/usr/share/datasets/fashion-mnist")
    a = p.parse_args()
    torch.manual_seed(1)
    x, y = (torch.from_numpy(idx(os.path.join(a.root, n)).copy()) for n in ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"))
    tx, ty = (torch.from_numpy(idx(os.path.join(a.root, n)).copy()) for n in ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"))
    y, ty = y.long(), ty.long()
    net = ResNet((32, 64, 128), (2, 2, 2), (1, 2, 2), 10, "cifar", a.block, 16, 16, "reach", in_channels=1)
    if a.last:
        net = net.to(memory_format=torch.channels_last)
    opt = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)
    batch, steps = 128, len(x) // 128
    norm = lambda v: (v.float() / 255 - 0.2860) / 0.3530
    out = {"torch": torch.__version__, "threads": torch.get_num_threads(), "block": a.block, "channels_last": a.last,
           "parameters": sum(q.numel() for q in net.parameters()), "epochs": []}
    step = 0
    for _ in range(a.epochs):
        net.train()
        order = torch.randperm(len(x))
        t = time.perf_counter()
        times = []
        for b in range(a.steps or steps):
            begun = time.perf_counter()
            total, warm = a.schedule_epochs * steps, steps
            lr = 0.1 * ((step + 1) / warm if step < warm else 0.5 * (1 + math.cos(math.pi * (step - warm) / (total - warm))))
            for g in opt.param_groups:
                g["lr"] = lr
            i = order[b * batch:(b + 1) * batch]
            v = F.pad(x[i], (2, 2, 2, 2))
            dy, dx = torch.randint(0, 5, (batch,)), torch.randint(0, 5, (batch,))
            rows = (dy[:, None] + torch.arange(28))[:, :, None]
            cols = (dx[:, None] + torch.arange(28))
            cols = torch.where(torch.rand(batch)[:, None] < 0.5, cols.flip(1), cols)[:, None, :]
            v = norm(v[torch.arange(batch)[:, None, None], rows, cols])[:, None]
            if a.last:
                v = v.contiguous(memory_format=torch.channels_last)
            opt.zero_grad(set_to_none=True)
            F.cross_entropy(net(v), y[i]).backward()
            opt.step()
            step += 1
            times.append(1e3 * (time.perf_counter() - begun))
        if a.steps:
            out["step_ms"] = round(statistics.median(times[2:]), 1)
            break
        seconds = time.perf_counter() - t
        net.eval()
        with torch.no_grad():
            right = sum((net(norm(tx[j:j + 500])[:, None]).argmax(1) == ty[j:j + 500]).sum().item() for j in range(0, len(tx), 500))
        out["epochs"].append({"seconds": round(seconds, 1), "test_accuracy": right / len(tx)})
        print(out["epochs"][-1], flush=True)
    print(json.dumps(out))


main()
