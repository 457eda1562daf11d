#!/usr/bin/env python3
"""Reads every #include of the repository's C++ files and fails on an arrow that points the wrong way.

The folders are layers of the house: each may include itself and what RULES allows. Besides:
- files of ours are included by their path from the root, in quotes; everything else in angle brackets;
- nlohmann/json.hpp is included in .cpp files only (headers take nlohmann/json_fwd.hpp);
- no preprocessor condition asks for a backend (CUDA, oneDNN) outside of backends/;
- every header begins with #pragma once, but for Highway's -inl.h files, which are made to be read many times.

    tests/house/check_includes.py [ROOT]
    tests/house/check_includes.py --self-test
"""
import argparse
import os
import pathlib
import re
import sys

ALL = ("",)  # a prefix of everything
INTERFACE = "backends/backend.h"
RULES = {  # folder: the prefixes of what it may include beside itself
    "core": (),
    "backends": ("core/",),
    "autograd": ("core/", INTERFACE),
    "layers": ("core/", INTERFACE, "autograd/"),
    "models": ("core/", INTERFACE, "autograd/", "layers/"),
    "data": ("core/",),
    "train": ("core/", "backends/", "autograd/", "layers/", "models/", "data/"),
    "apps": ALL,
    "tests": ALL,
    "bench": ALL,
    "docs": ALL,
}
HEADERS = {".h", ".hpp", ".cuh", ".inl"}
SOURCES = {".cpp", ".cc", ".cxx", ".cu"}
BACKEND_TEST = re.compile(r"cuda|cudnn|cublas|nccl|dnnl|mkldnn", re.I)
CONDITION = re.compile(r"#\s*(?:if|ifdef|ifndef|elif|elifdef|elifndef)\b")
INCLUDE = re.compile(r'#\s*(?:include|include_next|import)\s*(?:"([^"]*)"|<([^>]*)>|(\S.*))')

TOKEN = re.compile(
    r'(?P<comment>//(?:\\\n|[^\n])*|/\*.*?\*/)'
    r'|(?P<raw>(?:u8|u|U|L)?R"(?P<mark>[^ ()\\\t\n]*)\(.*?\)(?P=mark)")'
    r'|(?P<text>"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\')', re.S)


def directives(text):
    """The preprocessor's lines as (line number, text), without comments; continued lines are joined."""

    def blank(match):
        if match["text"] is not None:
            return match[0]  # the name of an include is one
        return " " + "\n" * match[0].count("\n")

    lines = TOKEN.sub(blank, text).split("\n")
    i = 0
    while i < len(lines):
        first, line = i, lines[i]
        while line.endswith("\\") and i + 1 < len(lines):
            i += 1
            line = line[:-1] + " " + lines[i]
        i += 1
        if line.lstrip().startswith("#"):
            yield first + 1, line.strip()


def faults_of(path, text, ours):
    """Faults as (line, message). `path` is the file's, from the root; `ours` tells whether a path is one of our files."""
    folder = path.split("/")[0] if "/" in path else ""
    header = pathlib.PurePosixPath(path).suffix in HEADERS
    if folder not in RULES:
        yield 1, f"the house has no folder \"{folder}\"; RULES of tests/house/check_includes.py says which there are"
        return

    once = False
    for line, directive in directives(text):
        once |= re.match(r"#\s*pragma\s+once\b", directive) is not None
        if CONDITION.match(directive) and BACKEND_TEST.search(directive) and folder != "backends":
            yield line, f"\"{directive}\": no test for a backend outside of backends/; ask the Backend at run time"
        include = INCLUDE.match(directive)
        if not include:
            continue
        quoted, angled, macro = include.groups()
        if macro is not None:
            yield line, f"\"{directive}\": an include names its file, or nobody can check it"
            continue
        name = quoted if quoted is not None else angled
        if re.fullmatch(r"(.*/)?json\.hpp", name) and header:
            yield line, f"{path} -> {name}: json.hpp is included in .cpp files only; take nlohmann/json_fwd.hpp"
        if quoted is None:
            if ours(name):
                yield line, f"{path} -> {name}: files of ours are included in quotes"
            continue
        if not ours(name):
            yield line, f"{path} -> {name}: includes in quotes are files of ours, written from the root"
            continue
        target = name.split("/")[0]
        if target != folder and not any(name.startswith(prefix) for prefix in RULES[folder]):
            allowed = ", ".join(p if p != "" else "all" for p in RULES[folder]) or "nothing of ours"
            yield line, f"{path} -> {name}: {folder}/ may include itself and {allowed}"
    if header and not once and not (path.endswith("-inl.h") and "HWY_TARGET_TOGGLE" in text):
        yield 1, f"{path}: a header begins with #pragma once"


def files_of(root):
    """Every C++ file below root, but for hidden folders and trees that were built there."""
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(
            f for f in folders
            if not f.startswith(".") and f != "build" and not os.path.exists(os.path.join(folder, f, "CMakeCache.txt")))
        for name in sorted(names):
            if pathlib.PurePath(name).suffix in HEADERS | SOURCES:
                yield (pathlib.Path(folder) / name).relative_to(root).as_posix()


def check(root):
    paths = list(files_of(root))
    known = set(paths)
    faults = 0
    for path in paths:
        text = (root / path).read_text(encoding="utf-8")
        for line, message in faults_of(path, text, known.__contains__):
            print(f"{path}:{line}: {message}")
            faults += 1
    if not paths:
        print(f"{root}: there is no C++ file here")
        return 1
    print(f"{len(paths)} files, {faults} faults")
    return 1 if faults else 0


def self_test():
    files = {"core/a.h", "core/b.h", "backends/backend.h", "backends/cpu/cpu.h", "autograd/v.h", "layers/l.h",
             "models/m.h", "data/d.h", "train/t.h", "apps/x.h", "tests/t.h"}
    once = "#pragma once\n"
    cases = [  # path, text, the lines with a fault
        ("core/a.cpp", '#include "core/b.h"\n#include <vector>\n', []),
        ("core/a.cpp", '#include "backends/backend.h"\n', [1]),
        ("core/a.cpp", '\n\n#include "autograd/v.h"\n', [3]),
        ("backends/cpu/cpu.cpp", '#include "core/b.h"\n#include "backends/backend.h"\n', []),
        ("backends/cpu/cpu.cpp", '#include "autograd/v.h"\n', [1]),
        ("autograd/v.cpp", '#include "core/a.h"\n#include "backends/backend.h"\n', []),
        ("autograd/v.cpp", '#include "backends/cpu/cpu.h"\n', [1]),
        ("autograd/v.cpp", '#include "layers/l.h"\n', [1]),
        ("layers/l.cpp", '#include "autograd/v.h"\n#include "core/a.h"\n#include "backends/backend.h"\n', []),
        ("layers/l.cpp", '#include "backends/cpu/cpu.h"\n#include "models/m.h"\n#include "data/d.h"\n', [1, 2, 3]),
        ("models/m.cpp", '#include "layers/l.h"\n#include "autograd/v.h"\n', []),
        ("models/m.cpp", '#include "train/t.h"\n', [1]),
        ("data/d.cpp", '#include "core/a.h"\n#include "data/d.h"\n', []),
        ("data/d.cpp", '#include "backends/backend.h"\n#include "autograd/v.h"\n', [1, 2]),
        ("train/t.cpp", '#include "data/d.h"\n#include "models/m.h"\n#include "backends/cpu/cpu.h"\n', []),
        ("train/t.cpp", '#include "apps/x.h"\n#include "tests/t.h"\n', [1, 2]),
        ("apps/mgic/main.cpp", '#include "train/t.h"\n#include "core/a.h"\n', []),
        ("tests/core/t.cpp", '#include "tests/t.h"\n#include "backends/cpu/cpu.h"\n', []),
        ("plugins/p.cpp", '#include "core/a.h"\n', [1]),
        ("main.cpp", "", [1]),
        # Written from the root, in the right brackets.
        ("core/a.cpp", '#include "a.h"\n', [1]),
        ("core/a.cpp", '#include "../core/a.h"\n', [1]),
        ("core/a.cpp", '#include "core/none.h"\n', [1]),
        ("core/a.cpp", "#include <core/a.h>\n", [1]),
        ("core/a.cpp", "#  include<core/a.h>\n", [1]),
        ("core/a.cpp", "#include MGIC_HEADER\n", [1]),
        ("core/a.cpp", '#inc\\\nlude "autograd/v.h"\n', []),  # a split word: nobody writes it, nothing breaks
        # What is no include.
        ("core/a.cpp", '// #include "autograd/v.h"\n/* #include "layers/l.h"\n#include "layers/l.h"\n*/\n', []),
        ("core/a.cpp", 'auto s = R"x(\n#include "layers/l.h"\n)x";\n', []),
        ("core/a.cpp", 'auto s = "//";\n#include "layers/l.h"\n', [2]),
        ("core/a.cpp", "auto c = '\"';\n#include \"layers/l.h\"\n", [2]),
        ("core/a.cpp", '/* a */ #include /* b */ "layers/l.h"  // c\n', [1]),
        # json.hpp
        ("core/f.cpp", "#include <nlohmann/json.hpp>\n", []),
        ("core/f.h", once + "#include <nlohmann/json.hpp>\n", [2]),
        ("core/f.h", once + "#include <json.hpp>\n", [2]),
        ("core/f.h", once + "#include <nlohmann/json_fwd.hpp>\n", []),
        # Conditions that ask for a backend.
        ("core/a.cpp", "#ifdef MGIC_CUDA\n#endif\n", [1]),
        ("layers/l.cpp", "#if defined(__CUDACC__) || 1\n#endif\n", [1]),
        ("train/t.cpp", "#if 1 && \\\n  DNNL_VERSION_MAJOR >= 3\n#elif MGIC_WITH_CUDNN\n#endif\n", [1, 3]),
        ("tests/t.cpp", "#if __has_include(<cuda.h>)\n#endif\n", [1]),
        ("backends/cuda/stub.cpp", "#ifndef MGIC_CUDA\n#endif\n", []),
        ("core/a.cpp", "#ifdef __linux__  // not CUDA\n#endif\nbool cuda = true;\n", []),
        # #pragma once
        ("core/f.h", "// what it is\n#pragma once\n", []),
        ("core/f.h", "// #pragma once\n", [1]),
        ("core/f.h", "#ifndef F_H\n#define F_H\n#endif\n", [1]),
        ("backends/cpu/simd-inl.h", "#if defined(A) == defined(HWY_TARGET_TOGGLE)\n#endif\n", []),
        ("backends/cpu/simd-inl.h", "#ifdef A\n#endif\n", [1]),
        ("core/f.cpp", "", []),
    ]
    wrong = 0
    for path, text, expected in cases:
        found = list(faults_of(path, text, files.__contains__))
        if [line for line, _ in found] != expected:
            print(f"self-test: {path} with {text!r}: faults at lines {expected} were expected, found {found}")
            wrong += 1
    for folder, allowed in RULES.items():  # no rule may allow a circle
        for prefix in allowed:
            other = prefix.split("/")[0]
            if other in RULES and any(p.split("/")[0] == folder for p in RULES[other] if p):
                print(f"self-test: {folder}/ and {other}/ may include each other")
                wrong += 1
    print(f"self-test: {len(cases)} cases, {wrong} wrong")
    return 1 if wrong else 0


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("root", nargs="?", default=pathlib.Path(__file__).resolve().parents[2], type=pathlib.Path)
    p.add_argument("--self-test", action="store_true", help="check the rules on made-up snippets")
    a = p.parse_args()
    return self_test() if a.self_test else check(a.root.resolve())


if __name__ == "__main__":
    sys.exit(main())
