#!/usr/bin/env python3
"""Keeps the code in docs/*.md true, docs/extending.md above all. Fails where

- a block marked `<!-- file: PATH -->` does not stand verbatim in that file;
- the blocks marked `<!-- insert: PATH, before: TEXT -->`, put before the one line of PATH that begins with TEXT, do not
  compile.

    tests/docs/check_extending.py [ROOT] [--compiler g++]
"""
import argparse
import os
import pathlib
import re
import subprocess
import sys
import tempfile

BLOCK = re.compile(r"<!-- (file|insert): ([^,>]+?)(?:, before: (.+?))? -->\n```cpp\n(.*?)```\n", re.S)


def main():
    p = argparse.ArgumentParser()
    p.add_argument("root", nargs="?", default=pathlib.Path(__file__).resolve().parents[2], type=pathlib.Path)
    p.add_argument("--compiler", default=os.environ.get("CXX", "g++"))
    a = p.parse_args()
    faults, blocks = [], []

    for page in sorted((a.root / "docs").glob("*.md")):
        text = page.read_text(encoding="utf-8")
        found = BLOCK.findall(text)
        blocks += found
        if len(re.findall(r"<!-- (?:file|insert):", text)) != len(found):
            faults.append(f"{page.name}: a mark does not stand right before a cpp block")
        if text.count("```cpp\n") != len(found):
            faults.append(f"{page.name}: a cpp block has no mark; name its file, so that it stays true")

    changed = {}  # path: text with the blocks put in
    for kind, path, before, code in blocks:
        text = changed.get(path) or (a.root / path).read_text(encoding="utf-8")
        if kind == "file":
            if "\n" + code not in text:
                faults.append(f"{path} does not hold this block:\n{code}")
            continue
        lines = text.splitlines(keepends=True)
        places = [i for i, line in enumerate(lines) if line.lstrip().startswith(before)]
        if len(places) != 1:
            faults.append(f"{path}: {len(places)} lines begin with {before!r}, where one is needed")
            continue
        lines[places[0]:places[0]] = [code]
        changed[path] = "".join(lines)

    # The changed files lie before the tree in the compiler's search path.
    with tempfile.TemporaryDirectory() as overlay:
        for path, text in changed.items():
            file = pathlib.Path(overlay, path)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
        for path in changed:
            if path.endswith(".cpp"):
                command = [a.compiler, "-std=c++20", "-Wall", "-Wextra", "-Werror", "-Wno-sign-compare",
                           "-Wno-missing-field-initializers", "-fsyntax-only", f"-I{overlay}", f"-I{a.root}",
                           str(pathlib.Path(overlay, path))]
                done = subprocess.run(command, capture_output=True, text=True)
                if done.returncode:
                    faults.append(f"the changed {path} does not compile:\n{done.stderr}")

    for fault in faults:
        print(f"docs: {fault}", file=sys.stderr)
    print(f"docs: {len(blocks)} blocks of code checked, {len(faults)} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
