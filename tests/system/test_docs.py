#!/usr/bin/env python3
"""The pages agree with the program: options, commands named in the guides, links between pages."""
import glob
import os
import re
import subprocess
import sys

BINARY = sys.argv[1] if len(sys.argv) > 1 else os.environ["HOLDFAST_BIN"]
failures = []


def check(what, good, detail=""):
    if not good:
        failures.append(what)
        print(f"FAIL {what}: {detail}")
    return good


def main():
    n = 0
    reference = subprocess.run([BINARY, "help", "options"], capture_output=True, text=True).stdout
    with open("docs/options.md", encoding="utf-8") as f:
        n += 1
        check("docs/options.md is what `holdfast help options` prints", f.read() == reference,
              "write it anew: build/release/holdfast help options > docs/options.md")
    n += 1
    of_serve = [subprocess.run([BINARY, *words], capture_output=True, text=True).stdout
                for words in (["help", "serve"], ["serve", "--help"])]
    check("holdfast help serve is what holdfast serve --help prints", of_serve[0] == of_serve[1] and "--port" in of_serve[0])
    commands = set(re.findall(r"^  holdfast (\S+)", subprocess.run([BINARY, "help"],
                   capture_output=True, text=True).stdout, re.M))
    options = set(re.findall(r"`--([a-z0-9-]+)`", reference))
    pages = ["README.md", "CONTRIBUTING.md", *glob.glob("docs/*.md"), *glob.glob("examples/guide/*.md")]
    for page in pages:
        with open(page, encoding="utf-8") as f:
            text = f.read()
        for command in set(re.findall(r"(?:^|`|/)holdfast ([a-z]+)\b", text, re.M)):
            n += 1
            check(f"{page}: holdfast {command}", command in commands | {"help"}, "no such command")
        for line in re.findall(r"holdfast (?:%s)\b[^`\n#]*" % "|".join(commands), text):
            for option in re.findall(r"--([a-z][a-z0-9-]+)", line):
                n += 1
                check(f"{page}: --{option} in \"{line.strip()[:60]}\"", option in options,
                      "no such option")
        for target in re.findall(r"`((?:docs|examples|bench|tests|tools|src|app|web)/[\w./-]*)`", text):
            if re.search(r"\b(NAME|ROOM|WHAT)\b|_(NAME|WHAT)", target):
                continue  # a pattern, not a file
            n += 1
            check(f"{page}: {target}", os.path.exists(target) or glob.glob(target + "*"),
                  "no such file")
    print(f"{n - len(failures)} passed, {len(failures)} failed")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
