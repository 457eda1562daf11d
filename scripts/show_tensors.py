#!/usr/bin/env python3
"""Lists the tensors of a safetensors file: name, type, shape, mean and largest absolute value.

    scripts/show_tensors.py FILE [PREFIX]

With PREFIX only the names that begin with it. Python's standard library is enough.
"""
import array
import json
import math
import signal
import struct
import sys

CODES = {"F32": "f", "F64": "d", "I64": "q", "U8": "B"}


def main():
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `| head` ends it quietly
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    prefix = sys.argv[2] if len(sys.argv) == 3 else ""
    data = open(sys.argv[1], "rb").read()
    size = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:8 + size])
    names = [n for n in header if n != "__metadata__" and n.startswith(prefix)]
    wide = max(map(len, names), default=0)
    for name in names:
        t = header[name]
        begin, end = t["data_offsets"]
        figures = ""
        if t["dtype"] in CODES and end > begin:
            values = array.array(CODES[t["dtype"]], data[8 + size + begin:8 + size + end])
            if sys.byteorder == "big":
                values.byteswap()
            figures = f"mean {math.fsum(values) / len(values):>12.5g}   largest {max(map(abs, values)):>11.5g}"
        print(f"{name:<{wide}}  {t['dtype']:<4} {str(tuple(t['shape'])):<20} {figures}")


if __name__ == "__main__":
    main()
