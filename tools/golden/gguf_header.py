"""Reads the key/value part of a GGUF file; the rest of the file may be missing."""
import struct

FORMAT = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}


def read(path):
    with open(path, "rb") as f:
        def number(fmt):
            return struct.unpack("<" + fmt, f.read(struct.calcsize("<" + fmt)))[0]

        def string():
            return f.read(number("Q")).decode()

        def value(kind):
            if kind == 8:
                return string()
            if kind == 9:
                item, n = number("I"), number("Q")
                return [value(item) for _ in range(n)]
            return number(FORMAT[kind])

        if f.read(4) != b"GGUF":
            raise ValueError(f"{path}: not a GGUF file")
        number("I"), number("Q")
        pairs = {}
        for _ in range(number("Q")):
            key = string()
            pairs[key] = value(number("I"))
        return pairs
