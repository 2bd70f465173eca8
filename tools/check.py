#!/usr/bin/env python3
"""Builds everything and runs every test; ./check calls it after installing packages.

  ./check              everything, about 15 minutes on 2 cores
  ./check --quick      release build and tests only
  ./check --long       also the stated sizes of each figure; results go to bench/results/
  ./check --only TEXT  only steps whose name contains TEXT

A test that cannot run here says why in one line and counts as skipped;
CHECK_REQUIRE_ALL=1 turns skips into failures. The last line is `N passed, N failed, N skipped`.
"""
import argparse
import glob
import os
import re
import shutil
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
LOGS = "build/check"
SKIP_STATUS = 77
# Under ThreadSanitizer: what has threads of its own and ends quickly there, and many clients of the server.
TSAN_TESTS = ["test_base_pool", "test_engine_embed", "test_http_server", "test_api_server"]
TSAN_CLIENTS = {"HOLDFAST_VANISHING": "150", "HOLDFAST_TEST_SLOW": "10"}
FUZZ_SECONDS = 60          # shared by all targets
MODELS = ["qwen2.5-coder:0.5b", "qwen2.5-coder:1.5b", "smollm2", "e5-small", "minilm",
          "r1-7b-head"]    # the last one from the tests' own catalogue
PYTHON_PACKAGES = ["gguf", "openai", "anthropic", "ollama", "schemathesis"]
NODE_PACKAGES = ["openai"]


class Report:
    def __init__(self, only):
        self.only = only
        self.rows = []  # (name, seconds, "passed" | "failed" | "skipped")

    def add(self, name, seconds, outcome, detail=""):
        if outcome == "skipped" and os.environ.get("CHECK_REQUIRE_ALL") == "1":
            outcome = "failed"
        self.rows.append((name, seconds, outcome))
        mark = {"passed": "ok  ", "failed": "FAIL", "skipped": "skip"}[outcome]
        print(f"{mark} {seconds:7.1f} s  {name}{'  ' + detail if detail else ''}", flush=True)

    def wanted(self, name):
        return not self.only or self.only in name

    def count(self, outcome):
        return sum(row[2] == outcome for row in self.rows)


def last_line(text):
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].strip() if lines else ""


def step(report, name, command, timeout, env=None, cwd=None):
    """Runs a command with its output in a log file; returns whether it passed (or was skipped)."""
    if not report.wanted(name):
        return True
    os.makedirs(LOGS, exist_ok=True)
    log = os.path.join(LOGS, re.sub(r"[^a-z0-9.]+", "-", name.lower()) + ".log")
    begin = time.time()
    try:
        with open(log, "wb") as out:
            status = subprocess.run(command, stdout=out, stderr=subprocess.STDOUT, timeout=timeout,
                                    env={**os.environ, **(env or {})}, cwd=cwd,
                                    stdin=subprocess.DEVNULL).returncode
    except subprocess.TimeoutExpired:
        status = f"no end after {timeout} s"
    with open(log, encoding="utf-8", errors="replace") as f:
        text = f.read()
    if status == SKIP_STATUS:
        report.add(name, time.time() - begin, "skipped", last_line(text))
    elif status == 0:
        report.add(name, time.time() - begin, "passed", last_line(text)[:120])
    else:
        report.add(name, time.time() - begin, "failed", f"({status}; {log})")
        print("\n".join("    | " + line for line in text.splitlines()[-40:]), flush=True)
    return status in (0, SKIP_STATUS)


def ctest(report, preset, timeout, extra=()):
    """Runs a build's tests and takes each one's result from ctest's own report."""
    name = f"tests ({preset})"
    if not report.wanted(name):
        return
    os.makedirs(LOGS, exist_ok=True)
    xml = os.path.abspath(os.path.join(LOGS, f"{preset}.xml"))
    if os.path.exists(xml):
        os.remove(xml)
    command = ["ctest", "--test-dir", f"build/{preset}", "--output-on-failure", "--no-tests=error",
               "--output-junit", xml, *extra]
    try:
        with open(os.path.join(LOGS, f"{preset}-ctest.log"), "wb") as out:
            subprocess.run(command, stdout=out, stderr=subprocess.STDOUT, timeout=timeout)
    except subprocess.TimeoutExpired:
        report.add(name, timeout, "failed", "no end")
    if not os.path.exists(xml):
        report.add(name, 0, "failed", f"ctest gave no report (build/check/{preset}-ctest.log)")
        return
    for case in ElementTree.parse(xml).getroot().iter("testcase"):
        outcome = {"run": "passed", "fail": "failed"}.get(case.get("status"), "skipped")
        text = (case.findtext("system-out") or "")
        report.add(f"{preset}: {case.get('name')}", float(case.get("time") or 0), outcome,
                   "" if outcome == "passed" else last_line(text)[:160])
        if outcome == "failed":
            print("\n".join("    | " + line for line in text.splitlines()[-40:]), flush=True)


def build(report, preset, targets=()):
    name = f"build ({preset})"
    tests = [] if preset == "fuzz" else ["-DHOLDFAST_TESTS=ON"]
    if not step(report, f"configure ({preset})", ["cmake", "--preset", preset, *tests], 300):
        return False
    command = ["cmake", "--build", f"build/{preset}"]
    return step(report, name, command + (["--target", *targets] if targets else []), 1200)


def formatting(report):
    files = [f for pattern in ("src/**/*.[ch]", "app/*.[ch]", "include/**/*.h", "tests/**/*.[ch]")
             for f in glob.glob(pattern, recursive=True)]
    step(report, "formatting", ["clang-format-14", "--dry-run", "-Werror", *files], 120)
    step(report, "includes", ["python3", "tools/check_includes.py"], 60)
    step(report, "types of the page", ["tsc", "--noEmit", "-p", "web"], 120)


def clang_build(report):
    name = "build (clang)"
    if not report.wanted(name):
        return
    folder = "build/clang"
    if not os.path.exists(f"{folder}/build.ninja"):
        step(report, "configure (clang)", ["cmake", "-S", ".", "-B", folder, "-G", "Ninja",
             "-DCMAKE_C_COMPILER=clang-14", "-DCMAKE_BUILD_TYPE=Release"], 300)
    step(report, name, ["cmake", "--build", folder], 1200)


def threads(report):
    """Races: any report of ThreadSanitizer is a failure (exit status 66)."""
    if not build(report, "tsan", ["holdfast", *TSAN_TESTS]):
        return
    for test in TSAN_TESTS:
        step(report, f"tsan: {test.removeprefix('test_')}", [f"build/tsan/{test}"], 120)
    step(report, "tsan: vanishing clients", ["python3", "tests/system/test_scheduling.py", os.path.abspath("build/tsan/holdfast"),
         "test_vanishing_clients_leave_nothing_behind"], 180, TSAN_CLIENTS)


def fuzz(report):
    if not build(report, "fuzz"):
        return
    targets = sorted(t for t in glob.glob("build/fuzz/fuzz_*") if os.access(t, os.X_OK)
                     and os.path.isfile(t))
    seconds = max(4, FUZZ_SECONDS // max(1, len(targets)))
    for target in targets:
        what = os.path.basename(target)
        work = f"{LOGS}/corpus/{what}"
        shutil.rmtree(work, ignore_errors=True)
        os.makedirs(work)
        seeds = [folder for folder in (f"tests/fuzz/corpus/{what}",
                                       f"tests/fuzz/corpus/{what.removeprefix('fuzz_')}")
                 if os.path.isdir(folder)]
        step(report, f"fuzz: {what}", [target, work, *seeds,
              f"-max_total_time={seconds}", "-timeout=10", "-rss_limit_mb=2048", "-verbosity=0",
              "-print_final_stats=1", "-error_exitcode=1"], seconds + 120)  # its own, 77, would read as a skip


def python_packages(report):
    """What golden tests compare with, in a folder of its own; without it they are skipped and say so."""
    name, folder = f"python packages: {', '.join(PYTHON_PACKAGES)}", os.path.abspath(f"{LOGS}/python")
    os.environ["PYTHONPATH"] = folder
    if all(os.path.isdir(f"{folder}/{package}") for package in PYTHON_PACKAGES) or not report.wanted(name):
        return
    os.makedirs(LOGS, exist_ok=True)
    shutil.rmtree(folder + ".part", ignore_errors=True)
    if step(report, name, [sys.executable, "-m", "pip", "install", "-q", "--target", folder + ".part",
                           *PYTHON_PACKAGES], 600):
        shutil.rmtree(folder, ignore_errors=True)
        os.rename(folder + ".part", folder)


def node_packages(report):
    """The same for Node."""
    name, folder = f"node packages: {', '.join(NODE_PACKAGES)}", os.path.abspath(f"{LOGS}/node")
    os.environ["NODE_PATH"] = f"{folder}/node_modules"
    if os.path.isdir(folder) or not report.wanted(name):
        return
    os.makedirs(LOGS, exist_ok=True)
    shutil.rmtree(folder + ".part", ignore_errors=True)
    if step(report, name, ["npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", folder + ".part",
                           *NODE_PACKAGES], 600):
        os.rename(folder + ".part", folder)


def pull_models(report):
    for model in MODELS:
        step(report, f"pull: {model}", ["build/release/holdfast", "pull", model, "--catalogue",
                                        "tests/data/catalogue.json"], 900)


def long_results(report):
    """The figures at their stated size; each script resumes where it stopped."""
    for script in sorted(glob.glob("bench/*.long.sh")):
        step(report, f"long: {os.path.basename(script)}", ["bash", script], 6 * 3600)


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--long", action="store_true")
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    os.chdir(ROOT)
    begin = time.time()
    report = Report(options.only)
    if build(report, "release"):
        if not options.quick:
            pull_models(report)
        python_packages(report)
        node_packages(report)
        ctest(report, "release", 1500)
    if not options.quick:
        formatting(report)
        clang_build(report)
        if build(report, "asan"):
            ctest(report, "asan", 900, ["-L", "unit"])
        threads(report)
        fuzz(report)
    if options.long:
        long_results(report)
    print("\nslowest:")
    for name, seconds, _ in sorted(report.rows, key=lambda row: -row[1])[:10]:
        print(f"  {seconds:7.1f} s  {name}")
    print(f"{time.time() - begin:.0f} s in all")
    failed, passed, skipped = map(report.count, ("failed", "passed", "skipped"))
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
