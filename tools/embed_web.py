#!/usr/bin/env python3
"""Writes the web page's files into a C source: embed_web.py OUT.c FILE..."""
import os
import sys

TYPES = {".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8",
         ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml",
         ".json": "application/json"}


def main():
    out, files = sys.argv[1], sys.argv[2:]
    parts = ['#include "embedded.h"\n']
    rows = []
    for i, path in enumerate(sorted(files)):
        with open(path, "rb") as f:
            data = f.read()
        body = ",".join(str(b) for b in data)
        parts.append(f"static const unsigned char file_{i}[] = {{{body or '0'}}};\n")
        name, kind = os.path.basename(path), TYPES.get(os.path.splitext(path)[1])
        if not kind:
            sys.exit(f"{path}: no content type for this kind of file")
        rows.append(f'    {{"{name}", "{kind}", file_{i}, {len(data)}}},\n')
    parts.append("const struct hd_embedded hd_embedded_files[] = {\n" + "".join(rows)
                 + "    {0, 0, 0, 0},\n};\n")
    with open(out, "w") as f:
        f.write("".join(parts))


if __name__ == "__main__":
    main()
