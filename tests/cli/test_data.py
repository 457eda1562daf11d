"""mgic data, and the file formats of CIFAR, Cityscapes, CamVid, ModelNet and image folders.

The files are written here, from the formats' public descriptions, and read back by mgic data stats --json, which shows
pixels, labels and masks as they are and a checksum over all of them.
"""
import base64
import json
import os
import shutil
import struct
import subprocess
import zlib

from mgic_cli import MGIC, CliTest, read_safetensors, tiny, unittest

# Written by h5py as ModelNet40's HDF5 files are: data (N, 16, 3) f32 and label (N, 1) u8, both with gzip. Point p of
# cloud i, counted from train to test, is (i + p/64, -p/32, i p/128).
HDF5 = {
    "ply_data_train0.h5":
    "eNrr9HBx4+WS4mIAAQ4OBhYGAQZk8B8KhOVQ+TD5BCjNCKU7oPQKJpg4I1hOAiouCDUfXV1IkKsrSPV/NACzx4AFQqO6bhSMFODh6hgAoiOg"
    "fFh6OsGEqi4lsSQRROckJqXmIKVLBzLtZWRgg5jBCONbQGhmiAAzA2q6ZEajMcUlwEYJKsgzQJK0AoM4B4N4PVSelYEDLM/EzAS2gBsoD2Iw"
    "wu3nAOeolNS0nMSSVKgZwKwLVAc2n4mlghVhpQCUZkH4yIKieAj283dhZGAC2gcBCsz41cP8f0BoNA0jA1B5x4ilvONgJE7/DkFUPq70xjIa"
    "1KNgFIyCUTAKRsEoGAWjYBQMeVAR53vxv+fhAJGjH8PXfg1fK6uobNHw7J6gjKJySYuCklJQ0xQlpUuCuxpA/L4LglV8zxue9X8T9vi07/3d"
    "oH/xb23r6mo/N1RbPzyY9/DSaekdm9gt3treubH0mPU3mXdvuO7dKP9wza9ig/zDuXcPVFczyr8x+3L+dWea+rePMq+ez4tz+sv851T6Dz2p"
    "+05/Rf/IvXoeN33hP7Z3P+bG/f7H8bX8g9aV88YR7b+2f1C//qpULn7hP9k/sq+e3/zT8ou/4OT+f4Jvn03+8vPxzMsh9reP1RyzTV9ZZ+YT"
    "9Dfmu83V81v1fsi+26731OjqecuYpb8s21+H2D83eBq191nB5FfPZdJW1p17aHZ1/4r+JWVpvzD75xoQmgm1f86I1i9C8AXAbAG4GAeF/XAJ"
    "aD+c+YIwwkpGhJURA9Kv5Cagj0MOe3+SEY0eBaNgFIyCUTAKRsEoGAXDpT/xOCAdSGcyGAAAbYr2qw==",
    "ply_data_test0.h5":
    "eNrr9HBx4+WS4mIAAQ4OBhYGAQZk8B8Krsii8mHyCVCaEUp3QOkVTDBxRrCcBFRcEGo+urqQIFdXkOr/aABmjwELhEZ13SgYKcDD1TEAREdA"
    "+bD0dIIJVV1KYkkiiM5JTErNQUqXDmTay8jABjGDEca3gNDMEAGY9bB0yQylcYkzA10O0imoIM8ASdIKDOIcDOL1UHlWBg6wPBMzE9gCbqA8"
    "iMEIt58DnKNSUtNyEktSoWYAsy5QHdh8JpYKVoQTBKBWsyB8ZEFRPAT7+bswAo3mgPIVmPGrh/m/SWg0DSMDUHnHiKW8O0Wk/h2CqHxc6Y1l"
    "NKhHwSgYBaNgFIyCUTAKRsEoGPKgIs723G7BJgcRt4fRTaoCUS0G179HBzt7bWgJDQzmMjAwMTG4upDFawGL14c/73qka+9EvpMzLv89f98f"
    "s9VVacwyG5anOcc8FOoveX7YXO4xy/aKJtlyo82a5wrFz29ht573WOj9B6b7H+X0PwqLVyzdXtB5fccx8z0Heese6OZ95Gb/ekS4btnlF5YV"
    "b/hXskb+zbJ7xfc/Ks0xrP7QvMnH66ya1/ybU7nQ1sJg+tX12zYf/2ddHPnX/5n43lbtZ5t+ZT8L7//LCxTJ/cb6PDfkG2YPWwNCM6H2sBnR"
    "ejqM8J6OAJgtABfjoLAnLQHtSTNPEkZYyYiwMmJAeoZcBPSdksXeI2REo0fBKBgFo2AUjIJRMApGwXDpESQ/BVIiDHwAoq/Faw==",
}
HDF5_LABELS = {"ply_data_train0.h5": [8, 39, 0], "ply_data_test0.h5": [5, 8]}

# 24x16 pixels, written by PIL at quality 95: left (200, 60, 30), middle (30, 90, 210), right (90, 90, 90).
JPEG = base64.b64decode(
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAAIBAQEBAQIBAQECAgICAgQDAgICAgUEBAMEBgUGBgYFBgYGBwkIBgcJBwYGCAsICQoKCgoKBggL"
    "DAsKDAkKCgr/2wBDAQICAgICAgUDAwUKBwYHCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgr/"
    "wAARCAAQABgDAREAAhEBAxEB/8QAHwAAAQUBAQEBAQEAAAAAAAAAAAECAwQFBgcICQoL/8QAtRAAAgEDAwIEAwUFBAQAAAF9AQIDAAQRBRIh"
    "MUEGE1FhByJxFDKBkaEII0KxwRVS0fAkM2JyggkKFhcYGRolJicoKSo0NTY3ODk6Q0RFRkdISUpTVFVWV1hZWmNkZWZnaGlqc3R1dnd4eXqD"
    "hIWGh4iJipKTlJWWl5iZmqKjpKWmp6ipqrKztLW2t7i5usLDxMXGx8jJytLT1NXW19jZ2uHi4+Tl5ufo6erx8vP09fb3+Pn6/8QAHwEAAwEB"
    "AQEBAQEBAQAAAAAAAAECAwQFBgcICQoL/8QAtREAAgECBAQDBAcFBAQAAQJ3AAECAxEEBSExBhJBUQdhcRMiMoEIFEKRobHBCSMzUvAVYnLR"
    "ChYkNOEl8RcYGRomJygpKjU2Nzg5OkNERUZHSElKU1RVVldYWVpjZGVmZ2hpanN0dXZ3eHl6goOEhYaHiImKkpOUlZaXmJmaoqOkpaanqKmq"
    "srO0tba3uLm6wsPExcbHyMnK0tPU1dbX2Nna4uPk5ebn6Onq8vP09fb3+Pn6/9oADAMBAAIRAxEAPwDwev5jP9IDj6/20P8AD80K/wA5z+oD"
    "oK/mM/0gOPr/AG0P8PzQr/Oc/qA//9k=")


def png(rows, channels=3, bits=8, palette=None):
    """A PNG of rows of bytes: grey, colours, or indices into a palette."""
    kind = 3 if palette else {1: 0, 3: 2}[channels]

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    width = len(rows[0]) * 8 // bits // channels
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, len(rows), bits, kind, 0, 0, 0)) +
            (chunk(b"PLTE", palette) if palette else b"") + chunk(b"IDAT", zlib.compress(b"".join(b"\0" + bytes(r) for r in rows))) +
            chunk(b"IEND", b""))


def pattern(n, seed):
    """n bytes that no shift or exchange of planes leaves as they are."""
    return bytes((i * i * 7 + i * 13 + seed * 101 + i // 251) % 256 for i in range(n))


def checksum(samples):
    """Of (pixels, mask, label) as mgic data stats makes it."""
    crc = 0
    for pixels, mask, label in samples:
        crc = zlib.crc32(struct.pack("<q", label), zlib.crc32(mask, zlib.crc32(pixels, crc)))
    return f"{crc:08x}"


class DataTest(CliTest):
    def put(self, name, content):
        os.makedirs(os.path.dirname(self.path(name)), exist_ok=True)
        return self.write(name, content)

    def bytes_of(self, *names):
        with open(self.path(*names), "rb") as f:
            return f.read()

    def config(self, **data):
        return self.write("c.json", {"data": {"root": self.path("data"), "batch_size": 1, **data}})

    def stats(self, first=10, **data):
        result = self.mgic("data", "stats", self.config(**data), "--json", "--first", str(first))
        self.stderr = result.stderr
        return json.loads(result.stdout)

    def refused(self, *parts, command="stats", **data):
        result = self.mgic("data", command, self.config(**data), code=2)
        for part in parts:
            self.assertIn(part, result.stderr)
        self.assertTrue(all(l.startswith(("error: ", "warning: ")) for l in result.stderr.splitlines()), result.stderr)
        return result.stderr


class Cifar(DataTest):
    def interleaved(self, planes):
        return bytes(planes[c * 1024 + p] for p in range(1024) for c in range(3))

    def test_cifar10(self):
        images, labels = [], []
        for batch in range(1, 6):
            content = b""
            for i in range(3):
                images.append(pattern(3072, 10 * batch + i))
                labels.append((batch * 3 + i) % 10)
                content += bytes([labels[-1]]) + images[-1]
            self.put(f"data/cifar-10-batches-bin/data_batch_{batch}.bin", content)
        self.put("data/cifar-10-batches-bin/test_batch.bin", bytes([7]) + pattern(3072, 1))
        self.put("data/cifar-10-batches-bin/batches.meta.txt",
                 "airplane\nautomobile\nbird\ncat\ndeer\ndog\nfrog\nhorse\nship\ntruck\n\n")
        for root in ("data", "data/cifar-10-batches-bin"):
            s = self.stats(type="cifar10", root=self.path(root))
            self.assertEqual(s["classes"][:3] + s["classes"][-1:], ["airplane", "automobile", "bird", "truck"])
            self.assertEqual(s["train"]["samples"], 15)
            self.assertEqual(s["train"]["shape"], [3, 32, 32])
            self.assertEqual(s["train"]["checksum"], checksum((self.interleaved(x), b"", l) for x, l in zip(images, labels)))
            self.assertEqual(bytes(s["train"]["first"][4]["pixels"]), self.interleaved(images[4]))
            self.assertEqual([f["label"] for f in s["train"]["first"]], labels[:10])
            self.assertEqual(s["test"]["checksum"], checksum([(self.interleaved(pattern(3072, 1)), b"", 7)]))
            self.assertIn("hold 15 images, the official ones 50000", self.stderr)
        result = self.mgic("data", "stats", self.write("c.json", {"data": {"type": "cifar10", "batch_size": 4}}),
                           env={"MGIC_DATA": self.path("data")})
        self.assertIn("15 samples, 3x32x32", result.stdout)
        self.mgic("data", "preview", self.config(type="cifar10"), "--out", self.path("p.png"))

    def test_cifar100(self):
        records = [(3, 77), (19, 0), (0, 99)]
        self.put("data/train.bin", b"".join(bytes(r) + pattern(3072, i) for i, r in enumerate(records)))
        self.put("data/test.bin", bytes([5, 6]) + pattern(3072, 9))
        self.put("data/fine_label_names.txt", "\n".join(f"fine{i}" for i in range(100)) + "\n")
        s = self.stats(type="cifar100")
        self.assertEqual(s["train"]["checksum"],
                         checksum((self.interleaved(pattern(3072, i)), b"", r[1]) for i, r in enumerate(records)))
        self.assertEqual(s["classes"][77], "fine77")
        s = self.stats(type="cifar100", coarse=True)
        self.assertEqual([f["label"] for f in s["train"]["first"]], [3, 19, 0])
        self.assertEqual(len(s["classes"]), 20)

    def test_wrong_files(self):
        good = bytes([3]) + pattern(3072, 0)
        for batch in range(1, 6):
            self.put(f"data/data_batch_{batch}.bin", good)
        self.put("data/test_batch.bin", good)
        for content, part in ((b"", "is empty"), (good + good[:100], "is truncated: record 1 has 100 of 3073 bytes"),
                              (bytes([10]) + good[1:], "label 10 of record 0 is not below")):
            self.write("data/data_batch_4.bin", content)
            self.refused(self.path("data/data_batch_4.bin"), part, type="cifar10")
        os.remove(self.path("data/data_batch_4.bin"))
        self.refused("data_batch_4.bin: no such file", type="cifar10")
        self.refused("nowhere: no such folder", type="cifar10", root=self.path("nowhere"))


class ImageFolder(DataTest):
    def setUp(self):
        super().setUp()
        self.files = {}
        for part in ("train", "val"):
            for c, name in enumerate(("zebra", "ant", "moth")):
                for i in range(3):
                    h, w = 10 + c, 12 + i
                    pixels = pattern(h * w * 3, 7 * c + i + (part == "val"))
                    self.files[part, name, i] = (h, w, pixels)
                    self.put(f"data/{part}/{name}/{i}.png", png([pixels[y * w * 3:(y + 1) * w * 3] for y in range(h)]))

    def test_images_come_as_they_are(self):
        s = self.stats(type="image_folder", image_size=8)
        self.assertEqual(s["classes"], ["ant", "moth", "zebra"])
        for part in ("train", "val"):
            j = s["train" if part == "train" else "test"]
            samples = [(self.files[part, name, i], c) for c, name in enumerate(s["classes"]) for i in range(3)]
            self.assertEqual(j["checksum"], checksum((pixels, b"", c) for (_, _, pixels), c in samples))
            self.assertEqual([(f["height"], f["width"]) for f in j["first"]], [(h, w) for (h, w, _), c in samples])
        self.mgic("data", "preview", self.config(type="image_folder", image_size=8, augment=[{"type": "random_resized_crop"}]),
                  "--samples", "5", "--out", self.path("p.png"))
        self.mgic("data", "preview", self.config(type="image_folder", image_size=32), "--part", "test", "--out", self.path("p.png"))
        bench = json.loads(self.mgic("data", "bench", self.config(type="image_folder", image_size=8), "--json", "--seconds",
                                     "0.1").stdout)
        self.assertGreater(bench["images_per_second"], 0)

    def test_jpeg(self):
        self.put("data/train/ant/0.png", JPEG)  # the contents count, not the name
        self.put("data/train/ant/1.JPG", JPEG)
        s = self.stats(type="image_folder")["train"]["first"]
        for f in (s[0], s[1]):
            self.assertEqual((f["height"], f["width"]), (16, 24))
            for x, color in ((4, (200, 60, 30)), (12, (30, 90, 210)), (20, (90, 90, 90))):
                for c in range(3):
                    self.assertAlmostEqual(f["pixels"][(8 * 24 + x) * 3 + c], color[c], delta=3)

    def test_evaluation_resizes_as_pil_does(self):
        try:
            from PIL import Image
        except ImportError:
            self.skipTest("needs PIL")
        # The middle of a picture, its whole shorter side, reduced: compared with PIL's resize of the same box.
        h, w = 90, 131
        pixels = bytes((40 + x + (y * y) // 70 + 30 * c) % 256 if c else min(255, 2 * y + x // 2) for y in range(h) for x in range(w)
                       for c in range(3))
        shutil.rmtree(self.path("data"))
        for part in ("train", "val"):
            self.put(f"data/{part}/a/0.png", png([pixels[y * w * 3:(y + 1) * w * 3] for y in range(h)]))
        self.mgic("data", "preview", self.config(type="image_folder", image_size=100, keep=1), "--part", "test", "--out",
                  self.path("up.png"))
        self.mgic("data", "preview", self.config(type="image_folder", image_size=128, keep=0.5), "--part", "test", "--out",
                  self.path("half.png"))
        picture = Image.frombytes("RGB", (w, h), pixels)
        for name, size, side in (("up.png", 100, 90), ("half.png", 128, 45)):
            left, top = (w - side) / 2, (h - side) / 2
            expected = picture.resize((size, size), Image.BILINEAR, box=(left, top, left + side, top + side))
            # The tile lies behind the gap of 6 pixels and the caption of 12.
            tile = Image.open(self.path(name)).convert("RGB").crop((6, 18, 6 + size, 18 + size))
            worst = max(abs(a - b) for a, b in zip(expected.tobytes(), tile.tobytes()))
            self.assertLessEqual(worst, 2, name)  # PIL rounds to bytes between its two passes, and the sheet once more

    def test_damaged_files(self):
        whole = self.bytes_of("data/train/moth/0.png")
        self.write("data/train/moth/0.png", b"")
        self.write("data/train/moth/1.png", whole[:60])
        self.write("data/train/zebra/2.png", b"this is a text, no image")
        self.put("data/train/zebra/notes.txt", "hello")
        names = [self.path("data/train", n) for n in ("moth/0.png", "moth/1.png", "zebra/2.png")]
        self.refused(names[0] + ": is empty; set data.max_corrupt", type="image_folder")
        self.refused(names[2], "damaged file number 3, and data.max_corrupt is 2", type="image_folder", max_corrupt=2)
        s = self.stats(type="image_folder", max_corrupt=3)
        self.assertEqual((s["train"]["samples"], s["train"]["damaged"], s["test"]["damaged"]), (6, 3, 0))
        for i, name in enumerate(names):
            self.assertIn(f"warning: {name}: ", self.stderr)
            self.assertIn(f"damaged file {i + 1} of at most 3", self.stderr)
        self.assertIn("1 files are left out, since their names are no images'; the first is zebra/notes.txt", self.stderr)
        # The loader skips them too, in both of its ways.
        for part in ("train", "test"):
            result = self.mgic("data", "bench", self.config(type="image_folder", max_corrupt=3, image_size=8), "--part", part,
                               "--seconds", "0.1")
            self.assertIn("samples/s", result.stdout)
        self.refused("is empty", command="bench", type="image_folder", image_size=8)

    def test_wrong_folders(self):
        os.mkdir(self.path("data/train/empty"))
        self.refused("train/empty: has no JPEG, PNG or BMP file", type="image_folder", test="train")
        self.refused("has 3 classes, but", type="image_folder")
        os.rmdir(self.path("data/train/empty"))
        self.refused("has 3 folders, but data.classes is 4", type="image_folder", classes=4)
        os.rename(self.path("data/val/moth"), self.path("data/val/fly"))
        self.refused("has the class fly, which", type="image_folder")
        self.refused("lost: cannot be listed", type="image_folder", test="lost")


class Cityscapes(DataTest):
    TRAIN_IDS = {7: 0, 8: 1, 11: 2, 12: 3, 13: 4, 17: 5, 19: 6, 20: 7, 21: 8, 22: 9, 23: 10, 24: 11, 25: 12, 26: 13, 27: 14,
                 28: 15, 31: 16, 32: 17, 33: 18}
    NAMES = ["road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation", "terrain",
             "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle"]

    def scene(self, part, city, number, seed):
        h, w = 12, 20
        pixels, ids = pattern(h * w * 3, seed), bytes((y * w + x + seed) % 34 if x else 255 for y in range(h) for x in range(w))
        stem = f"{city}_{number:06}_000019"
        self.put(f"data/leftImg8bit/{part}/{city}/{stem}_leftImg8bit.png", png([pixels[y * 60:y * 60 + 60] for y in range(h)]))
        self.put(f"data/gtFine/{part}/{city}/{stem}_gtFine_labelIds.png", png([ids[y * 20:y * 20 + 20] for y in range(h)], 1))
        self.put(f"data/gtFine/{part}/{city}/{stem}_gtFine_color.png", b"not looked at")
        return pixels, bytes(self.TRAIN_IDS.get(i, 255) for i in ids), 0

    def test_exact(self):
        train = [self.scene("train", "aachen", i, i) for i in range(2)] + [self.scene("train", "ulm", 5, 9)]
        test = [self.scene("val", "lindau", 7, 4)]
        s = self.stats(type="cityscapes", image_size=[12, 20])
        self.assertEqual(s["classes"], self.NAMES)
        self.assertTrue(s["segmentation"])
        self.assertEqual(s["train"]["checksum"], checksum(train))
        self.assertEqual(s["test"]["checksum"], checksum(test))
        self.assertEqual(bytes(s["train"]["first"][2]["mask"]), train[2][1])
        counts = [sum(m.count(c) for _, m, _ in train) for c in range(19)]
        self.assertEqual(s["train"]["per_class"], counts)
        self.assertEqual(s["train"]["ignored"], 3 * 12 * 20 - sum(counts))
        # Half the size: every second class id, none in between; crops change the shape of training alone.
        s = self.stats(type="cityscapes", image_size=[6, 10], crop_size=[4, 5])
        mask = train[0][1]
        self.assertEqual(s["train"]["first"][0]["mask"], [mask[(2 * y + 1) * 20 + 2 * x + 1] for y in range(6) for x in range(10)])
        self.assertEqual((s["train"]["shape"], s["test"]["shape"]), ([3, 4, 5], [3, 6, 10]))
        self.mgic("data", "preview", self.config(type="cityscapes", image_size=[12, 20], crop_size=[8, 8], augment=[
            {"type": "random_scale_crop"}, {"type": "random_flip"}]), "--out", self.path("p.png"))

    def test_wrong_files(self):
        self.scene("train", "aachen", 0, 0)
        self.scene("train", "aachen", 1, 0)
        self.scene("val", "lindau", 7, 4)
        label = self.path("data/gtFine/train/aachen/aachen_000001_000019_gtFine_labelIds.png")
        rows = [[7] * 20 for _ in range(12)]
        table = [
            (png([[7] * 20] * 11 + [[7] * 19 + [34]], 1), "34 is no class's id, at row 11, column 19"),
            (png(rows[:11], 1), "has 11x20 pixels, but its image"),
            (png([[7, 7, 7] * 20] * 12), "is in colours"),
            (png(rows, 1, palette=bytes(768)), "has a palette"),
            (png([[0x77] * 10] * 12, 1, bits=4), "has 4 bits"),
            (png(rows, 1)[:50], "damaged"),
            (b"", "is empty"),
            (JPEG, "is no PNG file"),
        ]
        for content, part in table:
            with self.subTest(part):
                self.write(os.path.relpath(label, self.folder), content)
                self.refused(label, part, type="cityscapes", image_size=[12, 20])
                s = self.stats(type="cityscapes", image_size=[12, 20], max_corrupt=1)
                self.assertEqual((s["train"]["samples"], s["train"]["damaged"]), (1, 1))
                self.assertIn(label, self.stderr)
        os.remove(label)
        self.refused(label + ": no such file", type="cityscapes", image_size=[12, 20])
        self.refused("image_size: expects two sizes", type="cityscapes", image_size=[12])
        self.refused("leftImg8bit/test: cannot be listed", type="cityscapes", test="test")


class CamVid(DataTest):
    # label_colors.txt of the data set.
    COLORS = """64 128 64 Animal
192 0 128 Archway
0 128 192 Bicyclist
0 128 64 Bridge
128 0 0 Building
64 0 128 Car
64 0 192 CartLuggagePram
192 128 64 Child
192 192 128 Column_Pole
64 64 128 Fence
128 0 192 LaneMkgsDriv
192 0 64 LaneMkgsNonDriv
128 128 64 Misc_Text
192 0 192 MotorcycleScooter
128 64 64 OtherMoving
64 192 128 ParkingBlock
64 64 0 Pedestrian
128 64 128 Road
128 128 192 RoadShoulder
0 0 192 Sidewalk
192 128 128 SignSymbol
128 128 128 Sky
64 128 192 SUVPickupTruck
0 0 64 TrafficCone
0 64 64 TrafficLight
192 64 128 Train
128 128 0 Tree
192 128 192 Truck_Bus
64 0 64 Tunnel
192 192 0 VegetationMisc
0 0 0 Void
64 192 0 Wall"""
    GROUPS = {"Sky": ["Sky"], "Building": ["Archway", "Bridge", "Building", "Tunnel", "Wall"],
              "Pole": ["Column_Pole", "TrafficCone"], "Road": ["LaneMkgsDriv", "LaneMkgsNonDriv", "Road"],
              "Pavement": ["ParkingBlock", "RoadShoulder", "Sidewalk"], "Tree": ["Tree", "VegetationMisc"],
              "SignSymbol": ["Misc_Text", "SignSymbol", "TrafficLight"], "Fence": ["Fence"],
              "Car": ["Car", "OtherMoving", "SUVPickupTruck", "Train", "Truck_Bus"],
              "Pedestrian": ["Animal", "CartLuggagePram", "Child", "Pedestrian"],
              "Bicyclist": ["Bicyclist", "MotorcycleScooter"]}

    def setUp(self):
        super().setUp()
        lines = [line.split() for line in self.COLORS.splitlines()]
        self.colors = [bytes(map(int, line[:3])) for line in lines]
        self.names = [line[3] for line in lines]

    def frame(self, folder, labels, stem, seed):
        h, w = 9, 16
        pixels, kinds = pattern(h * w * 3, seed), [(y * w + x + seed) % 32 for y in range(h) for x in range(w)]
        self.put(f"data/{folder}/{stem}.png", png([pixels[y * 48:y * 48 + 48] for y in range(h)]))
        self.put(f"data/{labels}/{stem}_L.png",
                 png([b"".join(self.colors[k] for k in kinds[y * w:(y + 1) * w]) for y in range(h)]))
        return pixels, kinds

    def test_exact(self):
        train = [self.frame("train", "train_labels", f"0001TP_{i:06}", i) for i in range(3)]
        test = [self.frame("test", "test_labels", "Seq05VD_f00000", 7)]
        s = self.stats(type="camvid", image_size=[9, 16])
        self.assertEqual(s["classes"], list(self.GROUPS))
        group = {name: g for g, names in enumerate(self.GROUPS.values()) for name in names}
        mask = lambda kinds: bytes(group.get(self.names[k], 255) for k in kinds)  # noqa: E731
        self.assertEqual(s["train"]["checksum"], checksum((p, mask(k), 0) for p, k in train))
        self.assertEqual(s["test"]["checksum"], checksum((p, mask(k), 0) for p, k in test))
        s = self.stats(type="camvid", image_size=[9, 16], classes=32)
        self.assertEqual(s["classes"], self.names)
        self.assertEqual(bytes(s["test"]["first"][0]["mask"]),
                         bytes(255 if self.names[k] == "Void" else k for k in test[0][1]))

    def test_one_folder_with_lists(self):
        frames = [self.frame("701_StillsRaw_full", "LabeledApproved_full", f"f{i}", i) for i in range(4)]
        self.write("data/train.txt", "f0.png\n701_StillsRaw_full/f3.png LabeledApproved_full/f3_L.png\n")
        self.write("data/test.txt", "f2\n")
        keys = {f"{p}_{k}": v for p in ("train", "test") for k, v in
                (("images", "701_StillsRaw_full"), ("labels", "LabeledApproved_full"), ("list", p + ".txt"))}
        s = self.stats(type="camvid", image_size=[9, 16], **keys)
        self.assertEqual([bytes(f["pixels"]) for f in s["train"]["first"]], [frames[0][0], frames[3][0]])
        self.assertEqual([bytes(f["pixels"]) for f in s["test"]["first"]], [frames[2][0]])
        self.write("data/test.txt", "f2\nf9\n")
        self.refused("test.txt: names 1 images that", "the first is f9", type="camvid", image_size=[9, 16], **keys)

    def test_wrong_files(self):
        self.frame("train", "train_labels", "a", 0)
        self.frame("test", "test_labels", "b", 0)
        self.write("data/train_labels/a_L.png", png([bytes([0, 0, 1]) * 16] * 9))
        self.refused("a_L.png: (0, 0, 1) is no class's colour, at row 0, column 0", type="camvid", image_size=[9, 16])
        self.refused("classes: must be 11 or 32, not 12", type="camvid", classes=12)


class SegmentationFolder(DataTest):
    def test_ids_and_voc_colours(self):
        # PASCAL VOC's palette: 0 black, 1 (128,0,0), 2 (0,128,0), 8 (64,0,0), 20 (0,64,128), and (224,224,192) for 255.
        voc = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 8: (64, 0, 0), 20: (0, 64, 128), 255: (224, 224, 192)}
        ids = [list(voc)[(3 * y + x) % 6] for y in range(8) for x in range(8)]
        pixels = pattern(192, 3)
        for part in ("train", "val"):
            self.put(f"data/{part}/images/x.png", png([pixels[y * 24:y * 24 + 24] for y in range(8)]))
            self.put(f"data/{part}/labels/x.png", png([ids[y * 8:y * 8 + 8] for y in range(8)], 1))
            self.put(f"data/{part}/colours/x.png", png([b"".join(bytes(voc[i]) for i in ids[y * 8:y * 8 + 8]) for y in range(8)]))
            self.put(f"data/{part}/palette/x.png", png([[list(voc).index(i) for i in ids[y * 8:y * 8 + 8]] for y in range(8)], 1,
                                                       palette=b"".join(bytes(c) for c in voc.values())))
        for labels, folder in (("ids", "labels"), ("voc", "colours"), ("voc", "palette")):
            s = self.stats(type="segmentation_folder", image_size=[8, 8], labels=labels, train_labels="train/" + folder,
                           test_labels="val/" + folder)
            for part in ("train", "test"):
                self.assertEqual(s[part]["first"][0]["mask"], ids)
        self.refused("20 is no class's id", type="segmentation_folder", image_size=[8, 8], classes=20)


OFF_CUBE = "8 12 0\n" + "".join(f"{x} {y} {z}\n" for x in (0, 2) for y in (0, 2) for z in (0, 2)) + "".join(
    f"3 {a} {b} {c}\n" for a, b, c in ((0, 1, 3), (0, 3, 2), (4, 5, 7), (4, 7, 6), (0, 1, 5), (0, 5, 4), (2, 3, 7), (2, 7, 6),
                                        (0, 2, 6), (0, 6, 4), (1, 3, 7), (1, 7, 5)))
# A flat rectangle, 3 wide and 1 high, as one face of four corners, and comments and a colour that files may have.
OFF_FLAT = "OFF # a comment\n# another\n4 1 4\n0 0 5\n3 0 5\n3 1 5\n0 1 5\n4 0 1 2 3 255 0 0\n"


class ModelNet(DataTest):
    def meshes(self):
        for part, n in (("train", 3), ("test", 1)):
            for i in range(n):
                self.put(f"data/ModelNet10/desk/{part}/desk_{i:04}.off", "OFF" + OFF_CUBE)  # as some files of ModelNet
                self.put(f"data/ModelNet10/bathtub/{part}/bathtub_{i:04}.off", OFF_FLAT)

    def test_meshes(self):
        self.meshes()
        s = self.stats(type="modelnet10", points=400)
        self.assertEqual(s["classes"], ["bathtub", "bed", "chair", "desk", "dresser", "monitor", "night_stand", "sofa", "table",
                                        "toilet"])
        self.assertEqual((s["train"]["samples"], s["train"]["shape"], s["test"]["samples"]), (6, [400, 3], 2))
        self.assertEqual([f["label"] for f in s["train"]["first"]], [0, 0, 0, 3, 3, 3])
        self.assertIn("8 of 10 classes have no folder; the first is bed", self.stderr)
        for f in s["train"]["first"]:
            points = [f["pixels"][3 * i:3 * i + 3] for i in range(400)]
            self.assertAlmostEqual(max(sum(v * v for v in p) for p in points), 1, places=5)
            for k in range(3):
                self.assertAlmostEqual(sum(p[k] for p in points) / 400, 0, places=5)
            low, high = [min(p[k] for p in points) for k in range(3)], [max(p[k] for p in points) for k in range(3)]
            if f["label"] == 0:  # 3 wide, 1 high, flat
                self.assertAlmostEqual((high[0] - low[0]) / (high[1] - low[1]), 3, delta=0.1)
                self.assertLess(high[2] - low[2], 1e-6)
                self.assertAlmostEqual(sum(p[0] > (low[0] + high[0]) / 2 for p in points) / 400, 0.5, delta=0.1)
            else:  # on the faces of a cube: each has a sixth of the points
                for k in range(3):
                    for side in (low[k], high[k]):
                        self.assertAlmostEqual(sum(abs(p[k] - side) < 1e-5 for p in points) / 400, 1 / 6, delta=0.08)
        # Each mesh has a draw of its own, which its name alone decides.
        self.assertNotEqual(s["train"]["first"][3]["pixels"], s["train"]["first"][4]["pixels"])
        self.mgic("data", "preview", self.config(type="modelnet10", points=64, augment=[
            {"type": t} for t in ("point_scale", "point_shift", "point_rotate", "point_jitter", "point_dropout")]), "--out",
            self.path("p.png"))

    def test_cache(self):
        self.meshes()
        first = self.stats(type="modelnet10", points=50)
        cache = self.path("data/ModelNet10/mgic_train_10x50.safetensors")
        tensors, _ = read_safetensors(cache)
        self.assertEqual(len(tensors), 6)
        size = os.path.getsize(self.path("data/ModelNet10/desk/train/desk_0001.off"))
        kind, shape, values = tensors[f"desk/train/desk_0001.off {size}"]
        self.assertEqual((kind, shape), ("F32", [50, 3]))
        self.assertEqual(list(struct.unpack("<150f", values)), [struct.unpack("<f", struct.pack("<f", v))[0] for v in
                                                                first["train"]["first"][4]["pixels"]])
        # What is in the cache is not parsed: a file of the same name and size may hold anything.
        self.write("data/ModelNet10/desk/train/desk_0001.off", "x" * size)
        self.assertEqual(self.stats(type="modelnet10", points=50), first)
        # A damaged cache is said and made again; a file of another size is parsed.
        self.write("data/ModelNet10/desk/train/desk_0001.off", "OFF" + OFF_CUBE)
        self.write("data/ModelNet10/mgic_train_10x50.safetensors", self.bytes_of(cache)[:-7])
        self.assertEqual(self.stats(type="modelnet10", points=50), first)
        self.assertIn("the clouds are drawn from the meshes again", self.stderr)
        self.write("data/ModelNet10/desk/train/desk_0001.off", OFF_FLAT + "\n\n\n")
        changed = self.stats(type="modelnet10", points=50)
        self.assertNotEqual(changed["train"]["checksum"], first["train"]["checksum"])
        self.assertEqual(changed["train"]["first"][3], first["train"]["first"][3])
        # Another folder for it.
        os.mkdir(self.path("cache"))
        self.stats(type="modelnet10", points=40, cache=self.path("cache"))
        self.assertEqual(sorted(os.listdir(self.path("cache"))),
                         ["mgic_test_10x40.safetensors", "mgic_train_10x40.safetensors"])
        self.stats(type="modelnet10", points=40, cache=self.path("nowhere"))
        self.assertIn("unless data.cache names a folder that can be written", self.stderr)

    def test_damaged_meshes(self):
        self.meshes()
        name = self.path("data/ModelNet10/desk/train/desk_0002.off")
        table = [
            ("", "is no OFF file"), ("COFF\n1 2 3\n", "is no OFF file"), ("OFF\n8 12 0\n0 0", "is truncated"),
            ("OFF\n8 x 0\n", "line 2: the number of faces is expected"), ("OFF\n-1 4 0\n", "header is wrong"),
            ("OFF\n4000000000000 4 0\n", "header is wrong"),
            ("OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 3\n", "line 6: vertex 3 does not exist; there are 3"),
            ("OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 nan\n3 0 1 2\n", "a coordinate is not finite"),
            ("OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n2 0 1\n", "a face of 2 corners"),
            ("OFF\n3 1 0\n0 0 0\n1 0 0\n2 0 0\n3 0 1 2\n", "the mesh has no area"),
        ]
        for content, part in table:
            with self.subTest(part):
                self.write(os.path.relpath(name, self.folder), content)
                self.refused(name, part, "set data.max_corrupt", type="modelnet10", points=16)
        for _ in range(2):  # without a cache, and with one: a damaged file is named every time
            s = self.stats(type="modelnet10", points=16, max_corrupt=1)
            self.assertEqual(s["train"]["samples"], 5)
            self.assertIn(f"warning: {name}: the mesh has no area", self.stderr)
        os.mkdir(self.path("data/ModelNet10/spaceship"))
        self.refused("spaceship: is no class of ModelNet10", type="modelnet10")
        self.refused("has none of the folders airplane", type="modelnet40")

    def test_hdf5(self):
        folder = "data/modelnet40_ply_hdf5_2048/"
        for name, content in HDF5.items():
            self.put(folder + name, zlib.decompress(base64.b64decode(content)))
        for part in ("train", "test"):
            self.write(folder + part + "_files.txt", f"data/modelnet40_ply_hdf5_2048/ply_data_{part}0.h5\n")
        config = self.config(type="modelnet40", points=8, format="hdf5")
        if subprocess.run([MGIC, "data", "stats", config], capture_output=True).returncode == 2:
            for form in ("hdf5", "auto"):
                said = self.refused("mgic was built without libhdf5", type="modelnet40", points=8, format=form)
                self.assertNotIn("max_corrupt", said)
            self.skipTest("built without libhdf5, which is said")
        s = self.stats(type="modelnet40", points=8, format="hdf5")
        i = 0
        for part in ("train", "test"):
            self.assertEqual([f["label"] for f in s[part]["first"]], HDF5_LABELS[f"ply_data_{part}0.h5"])
            for f in s[part]["first"]:
                self.assertEqual(f["pixels"], [v for p in range(8) for v in (i + p / 64, -p / 32, i * p / 128)])
                i += 1
        self.assertEqual(self.stats(type="modelnet40", points=8)["train"], s["train"])
        self.refused("have 16 points, fewer than data.points", type="modelnet40", points=17)
        self.refused("the HDF5 files are of ModelNet40", type="modelnet10", format="hdf5")
        whole = self.bytes_of(folder + "ply_data_train0.h5")
        for content, part in ((b"", "is no HDF5 file"), (whole[:2000], "truncated"), (b"text", "is no HDF5 file")):
            self.write(folder + "ply_data_train0.h5", content)
            self.refused("ply_data_train0.h5", part, type="modelnet40", points=8)
        os.remove(self.path(folder + "ply_data_train0.h5"))
        self.refused("ply_data_train0.h5: no such file", type="modelnet40", points=8)


class Command(DataTest):
    def test_preview_of_the_sets_without_files(self):
        for data in ({"type": "shapes", "mix": {"mixup": 1, "cutmix": 1}}, {"type": "random", "shape": [1, 5, 300]},
                     {"type": "solids", "train_size": 64, "test_size": 8}):
            config = self.write("c.json", {"name": "it", "data": {"batch_size": 8, **data}})
            self.assertEqual(self.mgic("data", "preview", config, "--samples", "11").stdout, "it_train.png\n")
            self.assertTrue(self.bytes_of("it_train.png").startswith(b"\x89PNG"))
            # The same epoch is the same picture, whatever the threads do; another one is not.
            pictures = []
            for more in (["--set", "data.threads=0"], ["--set", "data.threads=5"], ["--epoch", "1"]):
                self.mgic("data", "preview", config, "--out", self.path("p.png"), "--samples", "11", *more)
                pictures.append(self.bytes_of("p.png"))
            self.assertEqual(pictures[0], pictures[1])
            self.assertNotEqual(pictures[0], pictures[2])

    def test_bench(self):
        config = self.write("c.json", {"data": {"type": "solids", "batch_size": 8, "train_size": 64}})
        b = json.loads(self.mgic("data", "bench", config, "--json", "--seconds", "0.2").stdout)
        self.assertEqual(b["samples"] % 8, 0)
        self.assertAlmostEqual(b["images_per_second"], b["samples"] / b["seconds"], places=3)
        self.assertNotIn("ratio", b)  # there is no network in the file
        self.assertIn("samples/s", self.mgic("data", "bench", config, "--seconds", "0.1", "--part", "test").stdout)
        both = json.loads(self.mgic("data", "bench", self.write("t.json", tiny()), "--json", "--seconds", "0.1").stdout)
        self.assertAlmostEqual(both["ratio"], both["images_per_second"] / both["network_images_per_second"])
        self.assertIn("times as fast", self.mgic("data", "bench", self.path("t.json"), "--seconds", "0.1").stdout)

    def test_wrong_input(self):
        def refused(arguments, *parts):
            result = self.mgic(*arguments, code=2)
            for part in parts:
                self.assertIn(part, result.stderr)

        config = self.write("c.json", {"data": {"type": "solids", "mix": {"mixup": 1}, "augment": [{"type": "cutout"}]}})
        refused(["data"], "subcommand")
        refused(["data", "preview"], "CONFIG")
        refused(["data", "preview", config], "data.mix: mixes images with one label each",
                "data.augment[0]: cutout: is for images, but the data are clouds of points")
        refused(["data", "bench", config, "--part", "middle"], "--part")
        config = self.write("c.json", {"data": {"type": "shapes", "augment": [{"type": "point_shift"}]}})
        refused(["data", "stats", config], "point_shift: is for clouds of points, but the data are images")
        refused(["data", "stats", self.write("c.json", {"seed": 1})], "data: is missing")
        config = self.write("c.json", {"data": {"type": "shapes", "train_size": 200}})
        refused(["data", "preview", config, "--out", self.path("no", "where.png")], "where.png")


unittest.main(verbosity=2)
