"""scripts/results.py on networks of a second: what is trained, skipped, gone on with, and written."""
import importlib.util
import json
import math
import os
import pathlib
import statistics

from mgic_cli import MGIC, SOURCE, CliTest, unittest

TINY = {
    "device": "cpu",
    "model": {"type": "resnet", "in_channels": 1, "classes": 3, "channels": [16], "blocks": [1], "strides": [2],
              "block": {"type": "mgic", "group_size": 4, "coarsest_width": 4}},
    "data": {"type": "shapes", "image_size": 12, "channels": 1, "classes": 3, "train_size": 48, "test_size": 30, "batch_size": 16},
    "optimizer": {"type": "sgd", "lr": 0.05},
    "train": {"epochs": 2},
}


class Results(CliTest):
    def setUp(self):
        super().setUp()
        spec = importlib.util.spec_from_file_location("results", os.path.join(SOURCE, "scripts", "results.py"))
        self.results = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(self.results)
        task = self.results.Task(self.write("tiny.json", TINY), "model.block", "basic", "accuracy", "test accuracy")
        self.results.TASKS = {"tiny": task}
        self.results.MGIC = MGIC
        self.results.DOCS = pathlib.Path(self.write("results.md", "<!-- results:machine begin -->\n<!-- results:machine end -->\n"
                                                    "<!-- results:tiny begin -->\nold\n<!-- results:tiny end -->\nkept\n"))
        self.results.PLOT = pathlib.Path(self.path("score.svg"))
        self.runs = self.results.plan(None, pathlib.Path(self.path("runs")), ())

    def test_trains_once_and_writes_the_table(self):
        self.assertEqual(len(self.runs), 10)
        self.assertEqual([r.variant for r in self.runs[:4]], list(self.results.VARIANTS))  # every network once first
        seconds = self.results.left(self.runs)
        self.assertEqual(seconds, 10 * self.results.GUESS)
        first = self.runs[0]
        self.assertNotIn("--resume", first.command())
        self.results.train_all(self.runs)
        self.assertIn("--resume", first.command())
        notes = {r.name: os.stat(r.folder / "result.json").st_mtime_ns for r in self.runs}
        self.results.train_all(self.runs)
        self.assertEqual(notes, {r.name: os.stat(r.folder / "result.json").st_mtime_ns for r in self.runs})
        self.assertEqual(self.results.left(self.runs), 0)

        rows = self.results.rows_of("tiny", self.runs)
        config = json.loads((self.runs[0].folder / "config.json").read_text())
        self.assertEqual(config["model"]["block"], {"type": "basic"})
        own = TINY["model"]["block"]
        halves = json.loads((self.runs[2].folder / "config.json").read_text())["model"]["block"]
        self.assertEqual(halves["coarsest_width"], own["coarsest_width"] // 2)
        self.assertLess(rows["grouped16"].parameters, rows["mgic16"].parameters)
        self.assertLess(rows["mgic16"].parameters, rows["dense"].parameters)
        scores = [r.score() for r in self.runs if r.variant == "mgic16"]
        self.assertEqual(rows["mgic16"].mean, statistics.mean(scores))
        self.assertAlmostEqual(rows["mgic16"].error, statistics.stdev(scores) / math.sqrt(3))
        self.assertTrue(math.isnan(rows["mgic8"].error))

        self.results.report(pathlib.Path(self.path("runs")), (), True)
        text = self.results.DOCS.read_text()
        self.assertNotIn("\nold\n", text)
        self.assertIn("kept", text)
        self.assertIn(f"| MGIC, s_g = 16 | {rows['mgic16'].parameters:,} |", text)
        self.assertIn("10 of 10 runs", text)
        self.assertEqual(text.count("hold"), 2)

    def test_claims_are_judged(self):
        def row(variant, parameters, scores):
            return self.results.Row(variant, parameters, 1, 1, 1, 0, scores)

        rows = {"dense": row("dense", 100, [90, 91, 92]), "mgic16": row("mgic16", 50, [90, 90, 90.6]),
                "grouped16": row("grouped16", 20, [80, 81, 82])}
        near, above = self.results.claims(rows)
        self.assertIn("-0.80 points with 0.50 of the parameters, holds.", near)
        self.assertIn("+9.20 points, standard error 0.61, holds.", above)
        rows["mgic16"].parameters = 51
        rows["grouped16"].scores = [89, 89, 90]
        near, above = self.results.claims(rows)
        self.assertIn("**does not hold.**", near)
        self.assertIn("+0.87 points, standard error 0.39, holds.", above)
        rows["grouped16"].scores = [88, 89, 91]
        self.assertIn("**does not hold.**", self.results.claims(rows)[1])


if __name__ == "__main__":
    unittest.main()
