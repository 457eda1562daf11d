#!/usr/bin/env python3
"""Takes test images out of Fashion-MNIST (or any data set in its format), for looking at and for `mgic trace`.

    scripts/sample_images.py [--root FOLDER] [--count 8] [--png FOLDER] [--batch FILE]

--png writes one PNG file an image, named by its number and its class. --batch writes a safetensors file with `input`
(N, 1, H, W), normalised as the data set fashion_mnist does, and `labels` (N). Python's standard library is enough.
"""
import argparse
import array
import gzip
import json
import pathlib
import struct
import sys
import zlib

MEAN, DEVIATION = 0.2860, 0.3530
CLASSES = ["t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle-boot"]


def read_idx(root, name):
    """(sizes, bytes) of an idx file, plain or compressed."""
    path = root / name
    data = path.read_bytes() if path.exists() else gzip.decompress((root / (name + ".gz")).read_bytes())
    rank = data[3]
    return struct.unpack(f">{rank}I", data[4:4 + 4 * rank]), data[4 + 4 * rank:]


def png(pixels, height, width):
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    rows = b"".join(b"\0" + pixels[y * width:(y + 1) * width] for y in range(height))
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">2I5B", width, height, 8, 0, 0, 0, 0)) +
            chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


def safetensors(tensors):
    """tensors: {name: (dtype, shape, bytes)}"""
    header, at = {}, 0
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(data)]}
        at += len(data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + b"".join(data for _, _, data in tensors.values())


def little_endian(values):
    if sys.byteorder == "big":
        values.byteswap()
    return values.tobytes()


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--root", default="/usr/share/datasets/fashion-mnist", type=pathlib.Path)
    p.add_argument("--count", default=8, type=int)
    p.add_argument("--png", type=pathlib.Path)
    p.add_argument("--batch", type=pathlib.Path)
    a = p.parse_args()

    (total, height, width), pixels = read_idx(a.root, "t10k-images-idx3-ubyte")
    _, labels = read_idx(a.root, "t10k-labels-idx1-ubyte")
    count, size = min(a.count, total), height * width
    if a.png:
        a.png.mkdir(parents=True, exist_ok=True)
        for i in range(count):
            name = CLASSES[labels[i]] if labels[i] < len(CLASSES) else str(labels[i])
            (a.png / f"{i:03}-{name}.png").write_bytes(png(pixels[i * size:(i + 1) * size], height, width))
    if a.batch:
        values = array.array("f", ((v / 255 - MEAN) / DEVIATION for v in pixels[:count * size]))
        a.batch.write_bytes(safetensors({
            "input": ("F32", [count, 1, height, width], little_endian(values)),
            "labels": ("I64", [count], little_endian(array.array("q", list(labels[:count]))))}))


if __name__ == "__main__":
    main()
