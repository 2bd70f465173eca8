#!/usr/bin/env python3
"""Fails on an #include that goes against the arrows of docs/architecture.md, and on banned calls."""
import os
import re
import sys

# room -> rooms whose headers it may include; "public" is include/holdfast.
ALLOWED = {
    "base": set(),
    "tensor": {"base"},
    "ops": {"base"},
    "kernels": {"tensor", "base"},
    "store": {"tensor", "base"},
    "token": {"store", "base"},
    "model": {"kernels", "store", "tensor", "base"},
    "engine": {"model", "token", "kernels", "tensor", "store", "base", "public"},
    "net": {"base"},
    "pull": {"net", "store", "base"},
    "kb": {"public", "net", "base"},
    "http": {"base"},
    "api": {"http", "public", "token", "kb", "ops", "net", "base"},
}
BANNED = re.compile(r"\b(strcpy|strcat|sprintf|vsprintf|gets|atoi|atol|strtok|system|popen)\s*\(")
EXITS = re.compile(r"\b(exit|abort|_exit)\s*\(")
# A child process ends with _exit where it cannot go on; that is its whole purpose.
EXIT_EXCEPTIONS = {"src/kb/sandbox.c", "src/pull/process.c"}


def room_of(header):
    top = header.split("/")[0]
    return "public" if top == "holdfast" else top


def check_file(path, room):
    problems = []
    with open(path, encoding="utf-8") as f:
        for number, line in enumerate(f, 1):
            match = re.match(r'\s*#\s*include\s+"([^"]+)"', line)
            if match and "/" in match.group(1):
                target = room_of(match.group(1))
                if target != room and target not in ALLOWED[room]:
                    problems.append(f"{path}:{number}: {room} may not include {match.group(1)}")
            code = re.sub(r'"(\\.|[^"\\])*"|//.*|/\*.*?\*/', "", line)
            if line.lstrip().startswith("*"):
                continue
            if BANNED.search(code):
                problems.append(f"{path}:{number}: banned call: {line.strip()}")
            if EXITS.search(code) and path not in EXIT_EXCEPTIONS:
                problems.append(f"{path}:{number}: nothing below app/ exits: {line.strip()}")
    return problems


def main():
    os.chdir(os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
    problems, n = [], 0
    for folder, _, files in os.walk("src"):
        for name in sorted(files):
            if not name.endswith((".c", ".h", ".cu", ".cuh")):
                continue
            path = os.path.join(folder, name)
            room = path.split(os.sep)[1]
            n += 1
            if room not in ALLOWED:
                problems.append(f"{path}: {room} is no room of docs/architecture.md")
            else:
                problems += check_file(path, room)
    print("\n".join(problems) if problems else f"{n} files follow the arrows")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
