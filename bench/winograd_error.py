#!/usr/bin/env python3
"""How far Winograd's filtering is off the plain sum, in f32 and in bf16: bench/winograd_error.py [CHANNELS]

Random tiles and weights; the error's root mean square over that of the result. In bf16 the transformed values are rounded,
as the kernels do it (backends/cpu/winograd-inl.h), and sums are in f64. Needs numpy.
"""
import sys

import numpy as np

# Bᵀ, G and Aᵀ (Lavin, Gray, arXiv 1509.09308, section 4), with the points 0, ±1, ∞, and for M = 4 ±2/3 and ±3/2 instead
# of 1: with their ±1 and ±2, errors were twice as large.
NEAR, FAR, SCALE = 2 / 3, 3 / 2, 18 / 65
N2, F2 = NEAR ** 2, FAR ** 2
TRANSFORMS = {
    2: ([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]],
        [[1, 0, 0], [1 / 2, 1 / 2, 1 / 2], [1 / 2, -1 / 2, 1 / 2], [0, 0, 1]],
        [[1, 1, 1, 0], [0, 1, -1, -1]]),
    4: ([[1, 0, -N2 - F2, 0, 1, 0], [0, -FAR, -F2, NEAR, 1, 0], [0, FAR, -F2, -NEAR, 1, 0],
         [0, -NEAR, -N2, FAR, 1, 0], [0, NEAR, -N2, -FAR, 1, 0], [0, 1, 0, -N2 - F2, 0, 1]],
        [[1, 0, 0], [-SCALE * FAR, -SCALE, -SCALE * NEAR], [-SCALE * FAR, SCALE, -SCALE * NEAR],
         [SCALE * NEAR, SCALE, SCALE * FAR], [SCALE * NEAR, -SCALE, SCALE * FAR], [0, 0, 1]],
        [[1, FAR, FAR, NEAR, NEAR, 0], [0, 1, -1, 1, -1, 0], [0, NEAR, NEAR, FAR, FAR, 0],
         [0, N2, -N2, F2, -F2, 1]]),
}


def to_f32(x):
    return x.astype(np.float32).astype(np.float64)


def to_bf16(x):
    bits = x.astype(np.float32).view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)
    return rounded.astype(np.uint32).view(np.float32).astype(np.float64)


def both_ways(matrix, x):
    return np.einsum("pi,...ij,qj->...pq", np.array(matrix, float), x, np.array(matrix, float))


def plain(x, w, rows, columns):
    y = np.zeros((len(x), len(w), rows, columns))
    for u in range(3):
        for v in range(3):
            y += np.einsum("tcij,oc->toij", x[:, :, u:u + rows, v:v + columns], w[:, :, u, v])
    return y


def off(y, exact):
    return np.sqrt(np.mean((y - exact) ** 2) / np.mean(exact ** 2))


def main():
    channels = int(sys.argv[1]) if len(sys.argv) > 1 else 16
    rng = np.random.default_rng(1)
    print(f"{channels} channels: error, root mean square over that of the result")
    for name, rounded in (("f32", to_f32), ("bf16", to_bf16)):
        for m, (inputs, weights, outputs) in TRANSFORMS.items():
            x = rounded(rng.uniform(-2, 2, (512, channels, m + 2, m + 2)))
            w = to_f32(rng.uniform(-0.5, 0.5, (16, channels, 3, 3)))
            products = np.einsum("tcpq,ocpq->topq", rounded(both_ways(inputs, x)), rounded(both_ways(weights, w)))
            print(f"  {name:4}  F({m}×{m}, 3×3)  {off(both_ways(outputs, products), plain(x, w, m, m)):.1e}")
            # A row of outputs, of three rows of inputs (backends/cpu/winograd_rows-inl.h).
            x = x[:, :, :3]
            products = np.einsum("tcuq,ocuq->toq", rounded(x @ np.array(inputs).T), rounded(w @ np.array(weights).T))
            print(f"  {name:4}  F({m}, 3) a row  {off(products @ np.array(outputs).T, plain(x, w, 1, m)[:, :, 0]):.1e}")


if __name__ == "__main__":
    main()
