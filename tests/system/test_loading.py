#!/usr/bin/env python3
"""Loading from outside: progress and readiness of `serve`, memory at rest, --preload, a control group's limit, and
files that stop early — with tiny models of the repository, and with real ones where they are
(HOLDFAST_TEST_MODELS, else ~/.local/share/holdfast/models). The truncated one is pulled as r1-7b-head, with the
catalogue tests/data/catalogue.json.

Usage: test_loading.py [HOLDFAST]   (or HOLDFAST_BIN)
"""
import glob
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request

import cases

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BINARY = os.path.abspath(sys.argv[1] if len(sys.argv) > 1 else os.environ["HOLDFAST_BIN"])
TINY = os.path.join(ROOT, "tests/golden/models/qwen2-tied.gguf")
FOLDER = os.path.join(ROOT, "tests/golden/models/qwen2-tied")
MODELS = os.environ.get("HOLDFAST_TEST_MODELS") or os.path.expanduser("~/.local/share/holdfast/models")
REAL = [os.path.join(MODELS, f"qwen2.5-coder-{size}-instruct-q4_k_m.gguf") for size in ("0.5b", "1.5b")]
TRUNCATED = os.path.join(MODELS, "deepseek-r1-distill-qwen-7b-q4_k_m.first-95mb.gguf")
LONG = os.environ.get("HOLDFAST_LONG") == "1"
SLOW = float(os.environ.get("HOLDFAST_TEST_SLOW", "1"))
MB = 1 << 20
skipped = []


def clean_environment():
    return {k: v for k, v in os.environ.items() if not k.startswith("HOLDFAST_")}


def run(*arguments, text="", fails=False):
    """Standard output; with fails: standard error of a run that must fail and print nothing."""
    done = subprocess.run([BINARY, *arguments], input=text, capture_output=True, text=True, timeout=60 * SLOW,
                          env=clean_environment())
    if not fails:
        assert done.returncode == 0, done.stderr
        return done.stdout
    assert done.returncode == 1, (done.returncode, done.stdout, done.stderr)
    assert done.stdout == "", done.stdout
    assert done.stderr.startswith("holdfast: ") and done.stderr.count("\n") == 1, done.stderr
    return done.stderr


class Server:
    def __init__(self, model, *options, wrap=()):
        self.home = tempfile.TemporaryDirectory()
        self.process = subprocess.Popen(
            [*wrap, BINARY, "serve", "--json", "--port", "0", "--home", self.home.name, "-m", model, *options],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=clean_environment())
        line = self.process.stdout.readline()
        self.port = json.loads(line)["port"] if line else None

    def call(self, path, body=None):
        data = json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data,
                                         {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=60 * SLOW) as reply:
                return reply.status, json.load(reply)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def progress(self):
        return self.call("/startupz")[1]["models"][0]

    def wait_loaded(self):
        end = time.time() + 60 * SLOW
        while not self.progress()["loaded"]:
            assert time.time() < end, "loading does not end"
            time.sleep(0.02)
        return self.progress()

    def rss(self):
        with open(f"/proc/{self.process.pid}/status") as f:
            return int(re.search(r"VmRSS:\s+(\d+) kB", f.read()).group(1)) * 1024

    def complete(self, prompt, n):
        status, reply = self.call("/v1/completions", {"prompt": prompt, "max_tokens": n, "temperature": 0})
        assert status == 200, reply
        return reply["choices"][0]["text"]

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(60 * SLOW) == 0, self.process.stderr.read()
        self.process.stdout.close()
        self.process.stderr.close()
        self.home.cleanup()

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        if self.process.poll() is None:
            if kind:
                self.process.kill()
                self.process.wait()
            else:
                self.stop()


def test_progress_is_told():
    with Server(TINY) as s:
        model = s.wait_loaded()
        assert model["bytes"] == model["bytes_total"] > 0 and model["percent"] == 100 and model["eta_seconds"] == 0
        status, all_of_it = s.call("/startupz")
        assert status == 200 and all_of_it["status"] == "ready" and all_of_it["stage"] == "ready", all_of_it
        assert all_of_it["bytes"] == model["bytes"] and all_of_it["percent"] == 100
        assert s.call("/readyz") == (200, {"status": "ready", "models": 1})


def test_every_preload_gives_the_same_text():
    texts = set()
    for how in ("mmap", "shm", "shm", "memfd", "none"):
        with Server(TINY, "--preload", how) as s:
            texts.add(s.complete("hello", 12))
            s.wait_loaded()
            texts.add(s.complete("hello", 12))
    assert len(texts) == 1, texts
    assert "none of mmap, shm, memfd, none" in subprocess.run(
        [BINARY, "generate", "-m", TINY, "-p", "x", "--preload", "disk"], capture_output=True, text=True).stderr


def shared_copies():
    return set(glob.glob("/dev/shm/holdfast-*"))


def test_a_shared_copy_outlives_its_process():
    before = shared_copies()
    with Server(TINY, "--preload", "shm") as s:
        s.wait_loaded()
    new = shared_copies() - before
    assert len(new) == 1, new
    assert os.stat(new.pop()).st_mode & 0o777 == 0o600
    # a changed file has another name, and the copy of the old one goes
    with tempfile.TemporaryDirectory() as folder:
        copy = os.path.join(folder, "m.gguf")
        shutil.copy(TINY, copy)
        start = shared_copies()
        for _ in range(2):
            os.utime(copy)
            with Server(copy, "--preload", "shm") as s:
                s.wait_loaded()
            assert len(shared_copies() - start) == 1
        run("generate", "-m", copy, "-p", "x", "-n", "1", "--preload", "none")
        assert shared_copies() == start
    run("generate", "-m", TINY, "-p", "x", "-n", "1", "--preload", "none")
    assert shared_copies() == before


def cached(home):
    return glob.glob(os.path.join(home, "cache/repack/*.repack"))


def test_repacked_weights_on_disk():
    """Made once, used by the next; whatever is done to the file or its writer, the text stays."""
    with tempfile.TemporaryDirectory() as home:
        def text(how):
            return run("generate", "-m", TINY, "-p", "hello", "-n", "12", "--home", home, "--repack", how)

        want = text("off")
        assert not cached(home)
        for i in range(12):  # killed at any moment, while it writes too
            writer = subprocess.Popen([BINARY, "serve", "--port", "0", "--home", home, "-m", TINY, "--repack", "cache"],
                                      stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=clean_environment())
            time.sleep(0.02 + 0.01 * i)
            writer.kill()
            writer.wait()
            assert text("auto") == want
        with Server(TINY, "--home", home, "--repack", "cache") as s:
            end = time.time() + 60 * SLOW
            while not cached(home) and time.time() < end:
                time.sleep(0.01)
            files = cached(home)
            if not files:
                return skipped.append("repacked weights: nothing was kept (no vector kernels here?)")
            assert len(files) == 1 and os.stat(files[0]).st_mode & 0o777 == 0o600
            assert text("cache") == want  # two processes, one file
        kept = json.loads(run("doctor", "--json", "--home", home))["repacked"]
        assert [k["source"] for k in kept] == [TINY] and kept[0]["bytes"] >= 100000, kept
        with open(files[0], "r+b") as f:  # rot in the data, which begins at 2 MiB
            f.seek(2 << 20)
            f.write(b"rot" * 400)
        assert text("cache") == want
        with open(files[0], "r+b") as f:
            f.truncate(100000)
        assert text("cache") == want
        assert not glob.glob(os.path.join(home, "cache/repack/*.tmp")), "a leftover"
    error = subprocess.run([BINARY, "generate", "-m", TINY, "-p", "x", "--repack", "always"], capture_output=True,
                           text=True).stderr
    assert "none of auto, off, cache" in error, error


def test_memory_at_rest():
    """One copy of the weights, the KV in use, and 64 MB."""
    there = [path for path in REAL if os.path.exists(path)]
    if not there:
        return skipped.append("memory at rest: no qwen2.5-coder in " + MODELS)
    path = there[0]
    weights = json.loads(run("inspect", path, "--json"))["file_bytes"]
    with Server(path, "--ctx", "2048") as s:
        copied = s.wait_loaded()["bytes_total"]
        assert copied <= weights * 1.03
        assert s.rss() <= copied + 64 * MB, (s.rss() - copied) / MB
        s.complete("The quick brown fox jumps over the lazy dog and then", 8)
        kv = 64 * 2 * 2 * 128 * 28 * 2  # one block of 64 tokens of the larger one
        assert s.rss() <= copied + kv + 64 * MB, (s.rss() - copied) / MB


def kv_bytes(path, n_token):
    """Of the blocks of 64 that hold n_token: keys and values of every layer in 16 bits."""
    about = json.loads(run("inspect", path, "--json"))["metadata"]
    q = {key: about["qwen2." + key] for key in
         ("block_count", "embedding_length", "attention.head_count", "attention.head_count_kv")}
    per_head = q["embedding_length"] // q["attention.head_count"]
    return (n_token + 63) // 64 * 64 * q["block_count"] * q["attention.head_count_kv"] * per_head * 2 * 2


def test_memory_during_a_long_prompt():
    """The same bound while 2,000 tokens are read, watched every few milliseconds."""
    there = [path for path in REAL if os.path.exists(path)]
    if not there:
        return skipped.append("memory during a prompt: no qwen2.5-coder in " + MODELS)
    for path in there if LONG else there[:1]:
        with Server(path, "--ctx", "4096") as s:
            copied, peak, reply = s.wait_loaded()["bytes_total"], 0, {}
            body = {"prompt": "one two three four five six seven eight nine ten " * 200, "max_tokens": 4}
            reader = threading.Thread(target=lambda: reply.update(zip(("status", "body"), s.call("/v1/completions", body))))
            reader.start()
            while reader.is_alive():
                peak = max(peak, s.rss())
                time.sleep(0.005)
            assert reply["status"] == 200, reply
            n_token = reply["body"]["usage"]["total_tokens"]
            assert n_token >= 2000, n_token
            besides = (peak - copied - kv_bytes(path, n_token)) / MB
            print(f"{os.path.basename(path)}: {n_token} tokens, beside weights and KV at most {besides:.0f} MB")
            assert besides <= 64, besides


def test_a_control_group_that_is_too_small():
    """A clear refusal instead of a kill, in a real group where one can be made."""
    path = next((p for p in REAL if os.path.exists(p)), None)
    root, name = "/sys/fs/cgroup", f"holdfast-test-{os.getpid()}"
    v2 = os.path.exists(root + "/cgroup.controllers")
    group = f"{root}/{name}" if v2 else f"{root}/memory/{name}"
    limit, procs = ("memory.max" if v2 else "memory.limit_in_bytes"), "cgroup.procs"
    if not path:
        return skipped.append("control group: no qwen2.5-coder in " + MODELS)
    try:
        os.mkdir(group)
    except OSError as error:
        return skipped.append(f"control group: cannot make one ({error.strerror})")
    try:
        try:
            with open(f"{group}/{limit}", "w") as f:
                f.write(str(200 * MB))
        except OSError as error:
            return skipped.append(f"control group: no memory controller ({error.strerror})")
        shell = f'echo $$ > {group}/{procs}; exec "$@"'
        done = subprocess.run(["sh", "-c", shell, "sh", BINARY, "generate", "-m", path, "-p", "hi", "-n", "1"],
                              capture_output=True, text=True, timeout=60 * SLOW, env=clean_environment())
        assert done.returncode == 1, (done.returncode, done.stderr)
        assert re.search(r"the weights need \d+ MB of memory, the control group \S+ \(" + re.escape(limit) +
                         r"\) has \d+ MB of 210 MB left", done.stderr), done.stderr
    finally:
        end = time.time() + 10
        while os.path.isdir(group) and time.time() < end:
            try:
                os.rmdir(group)
            except OSError:
                time.sleep(0.1)


def check_truncated(path, tensor_or_none, have, need):
    """What works from the header alone, and what the rest says."""
    shown = json.loads(run("inspect", path, "--json"))
    assert shown["missing_bytes"] == need - have and shown["cut"]["have"] == have, shown["cut"]
    if tensor_or_none:
        assert shown["cut"]["tensor"] == tensor_or_none, shown["cut"]
    ids = json.loads(run("tokenize", "-m", path, text="Hello world"))
    assert run("detokenize", "-m", path, text=json.dumps(ids)).rstrip("\n") == "Hello world"
    says = (rf'the file stops early: {need - have} bytes are missing of {need}; it ends (within|before) tensor "'
            rf'{re.escape(shown["cut"]["tensor"])}" .*holdfast pull NAME.*from byte {have} on')
    for command in (["logits", "--tokens", "1,2"], ["generate", "-p", "hi"], ["bench"], ["serve", "--port", "0", "--json"]):
        error = run(command[0], "-m", path, *command[1:], fails=True)
        assert re.search(says, error), error


def test_a_file_that_stops_early():
    size = os.path.getsize(TINY)
    data = open(TINY, "rb").read()
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "cut.gguf")
        for have in (size - 1, size - 5000):
            with open(path, "wb") as f:
                f.write(data[:have])
            check_truncated(path, None, have, size)


def test_the_real_file_that_stops_early():
    if not os.path.exists(TRUNCATED):
        return skipped.append("the first 95 MB of R1-Distill-Qwen-7B: no " + TRUNCATED)
    check_truncated(TRUNCATED, "output.weight", 99614720, 4683073248)


def test_a_folder_without_a_tokenizer():
    with tempfile.TemporaryDirectory() as folder:
        for name in os.listdir(FOLDER):
            if not name.startswith("tokenizer"):
                shutil.copy(os.path.join(FOLDER, name), folder)
        rows = json.loads(run("logits", "-m", folder, "--tokens", "1,2,3", "--top", "2"))["rows"]
        assert len(rows["2"]) == 2
        assert json.loads(run("bench", "-m", folder, "-p", "16", "-n", "4", "--json"))["decode_tps"] > 0
        assert json.loads(run("inspect", folder, "--json"))["tokenizer"] is None
        for command in ("tokenize", "detokenize"):
            error = run(command, "-m", folder, text="[1]", fails=True)
            assert "no tokenizer.json in this folder" in error and "logits, bench" in error, error
        assert "carries no tokenizer" in run("generate", "-m", folder, "-p", "hi", fails=True)
        # a shard that is not there yet
        index = {"weight_map": {"model.embed_tokens.weight": "a.safetensors", "lm_head.weight": "b.safetensors"}}
        os.unlink(os.path.join(folder, "model.safetensors"))
        with open(os.path.join(folder, "model.safetensors.index.json"), "w") as f:
            json.dump(index, f)
        shown = json.loads(run("inspect", folder, "--json"))
        assert shown["missing_parts"] == ["a.safetensors", "b.safetensors"], shown
        assert "shard a.safetensors is missing, one of 2" in run("logits", "-m", folder, "--tokens", "1", fails=True)


if __name__ == "__main__":
    sys.exit(cases.run(globals(), skipped))
