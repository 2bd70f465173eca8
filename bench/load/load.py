#!/usr/bin/env python3
"""Load on servers that speak OpenAI's API: an open-loop (Poisson) generator, N clients that never pause, and a second
turn of a long conversation; with --peer against llama-server, on the same file in the same run.

Usage: load.py BASE [--clients 1,16] [--seconds 20] [--rate R] [--second-turn WORDS] [--tokens 256]
       load.py --ours HOLDFAST --peer LLAMA_SERVER --model FILE [--clients 1,16] [--rounds 2] [--threads N] [--markdown FILE]
BASE: http://127.0.0.1:8080. Prints one JSON object. Open loop: arrivals do not wait for answers, so a slow server is not
spared; a request's time counts from its arrival. Clients that never pause are counted while all of them are at work: tokens
that arrive in the window of --seconds that begins after a short warm-up; what they are at then is cut.
With --peer both servers are started (the peer with -np 16 -cb) and take turns, round by round; --markdown puts the table
of the model into FILE, in place of the one that is there.
"""
import argparse
import datetime
import http.client
import json
import os
import random
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse

QUESTIONS = ["Write a function that reverses a list.", "What does a hash table do?", "Explain binary search shortly.",
             "Name three sorting algorithms.", "Write a loop that sums the squares up to n.", "What is a race condition?"]


class Client:
    def __init__(self, base):
        self.address = urllib.parse.urlsplit(base).netloc

    def stream(self, messages, tokens, begun=None, on_piece=None):
        """(seconds to the first token, gaps between tokens, tokens, usage, text); on_piece(now) returns True to leave."""
        begun = begun or time.perf_counter()
        connection = http.client.HTTPConnection(self.address, timeout=600)
        body = {"messages": messages, "temperature": 0, "max_tokens": tokens, "stream": True, "stream_options": {"include_usage": True}}
        connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
        reply = connection.getresponse()
        if reply.status != 200:
            raise OSError(f"status {reply.status}: {reply.read(200)}")
        times, usage, text = [], None, []
        for line in reply:
            if not line.startswith(b"data: {"):
                continue
            now, data = time.perf_counter(), json.loads(line[6:])
            usage = data.get("usage") or usage
            piece = data["choices"][0]["delta"].get("content") if data.get("choices") else None
            if piece:
                times.append(now)
                text.append(piece)
                if on_piece and on_piece(now):
                    break
        connection.close()
        gaps = [b - a for a, b in zip(times, times[1:])]
        return (times[0] - begun if times else None), gaps, usage["completion_tokens"] if usage else len(times), usage, "".join(text)


def quantile(values, q):
    values = sorted(values)
    return values[min(len(values) - 1, int(q * len(values)))] if values else None


def summary(results, seconds, n_token=None):
    gaps = [g for r in results for g in r[1]]
    firsts = [r[0] for r in results if r[0] is not None]
    mean = sum(gaps) / len(gaps) if gaps else None
    n_token = sum(r[2] for r in results) if n_token is None else n_token
    return {"requests": len(results), "tokens_per_s": round(n_token / seconds, 2),
            "ttft_s": {"p50": quantile(firsts, 0.5), "p99": quantile(firsts, 0.99)},
            "between_tokens_s": {"mean": mean, "p50": quantile(gaps, 0.5), "p99": quantile(gaps, 0.99)}}


def messages_of(draw):
    return [{"role": "user", "content": f"{draw.choice(QUESTIONS)} (variant {draw.randrange(10 ** 6)})"}]


def closed(base, n, seconds, tokens, warm_up=2.0):
    results, lock, begun = [], threading.Lock(), time.perf_counter() + warm_up
    counted, failures = [0], []

    def piece(now):
        with lock:
            counted[0] += begun <= now < begun + seconds
        return now >= begun + seconds

    def work(seed):
        draw, client = random.Random(seed), Client(base)
        try:
            while time.perf_counter() < begun + seconds:
                r = client.stream(messages_of(draw), tokens, on_piece=piece)
                with lock:
                    results.append(r)
        except OSError as e:
            failures.append(str(e))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(n)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    if failures:
        raise OSError(f"{len(failures)} of {n} clients: {failures[0]}")
    return summary(results, seconds, counted[0])


def open_loop(base, rate, seconds, tokens):
    results, refused, lock, draw, threads = [], [0], threading.Lock(), random.Random(18), []
    begun = at = time.perf_counter()

    def one(when, messages):
        try:
            r = Client(base).stream(messages, tokens, when)
            with lock:
                results.append(r)
        except OSError:
            with lock:
                refused[0] += 1

    while at - begun < seconds:
        at += draw.expovariate(rate)
        time.sleep(max(0, at - time.perf_counter()))
        threads.append(threading.Thread(target=one, args=(at, messages_of(draw))))
        threads[-1].start()
    for t in threads:
        t.join()
    return {"rate": rate, "refused": refused[0], **summary(results, time.perf_counter() - begun)}


def metric(base, name):
    connection = http.client.HTTPConnection(urllib.parse.urlsplit(base).netloc, timeout=60)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    return next((float(line.split()[-1]) for line in text.splitlines() if line.startswith(name + " ")), 0)


def second_turn(base, n_token):
    client, draw = Client(base), random.Random(7)
    words = "alpha beta gamma delta value table index loop count queue".split()
    text = "Remember these words: " + " ".join(draw.choice(words) for _ in range(n_token))
    history = [{"role": "user", "content": text}]
    first = client.stream(history, 24)
    history += [{"role": "assistant", "content": first[4]}, {"role": "user", "content": "Which word came first?"}]
    last, end = -1, time.time() + 120
    while time.time() < end:  # the server is idle and has prepared what comes next
        now = metric(base, 'holdfast_ahead_tokens_total{kind="computed"}')
        if now == last:
            break
        last = now
        time.sleep(1)
    second = client.stream(history, 8)
    return {"first_s": first[0], "second_s": second[0], "ratio": second[0] / first[0], "first_prompt": first[3]["prompt_tokens"],
            "second_prompt": second[3]["prompt_tokens"], "second_cached": second[3]["prompt_tokens_details"]["cached_tokens"]}


# --- beside a peer -------------------------------------------------------------------------------


class Server:
    """A server of a program that is started here and ended with the block."""

    def __init__(self, command, port):
        self.command, self.base = command, f"http://127.0.0.1:{port}"

    def __enter__(self):
        self.log = tempfile.TemporaryFile()
        self.process = subprocess.Popen(self.command, stdout=self.log, stderr=self.log)
        path = "/readyz" if "serve" in self.command else "/health"
        for _ in range(1200):
            try:
                connection = http.client.HTTPConnection(self.base[7:], timeout=5)
                connection.request("GET", path)
                if connection.getresponse().status == 200:
                    return self
            except OSError:
                pass
            if self.process.poll() is not None:
                break
            time.sleep(0.1)
        self.__exit__()
        self.log.seek(0)
        raise OSError(f"{self.command[0]} did not start: {self.log.read()[-400:]}")

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def commands(a, home):
    port = [free_port(), free_port()]
    threads = a.threads or len(os.sched_getaffinity(0))
    n = max(a.clients)
    return {"holdfast": Server([a.ours, "serve", "--home", home, "--port", str(port[0]), "-m", a.model, "-t", str(threads),
                                "--max-sequences", str(n), "--max-queue", str(n)], port[0]),
            "llama-server": Server([a.peer, "-m", a.model, "-np", str(n), "-cb", "-c", str(n * 2048), "-t", str(threads),
                                    "--host", "127.0.0.1", "--port", str(port[1])], port[1])}


def beside_peer(a):
    rates = {}
    with tempfile.TemporaryDirectory() as home:
        servers = commands(a, home)
        with servers["holdfast"], servers["llama-server"]:
            for name in servers:
                closed(servers[name].base, max(a.clients), 2, a.tokens)  # everything is warm
            for _ in range(a.rounds):
                for n in a.clients:
                    for name in servers:
                        r = closed(servers[name].base, n, a.seconds, a.tokens)
                        rates.setdefault(name, {}).setdefault(n, []).append(r)
    return rates


def median(results):
    return statistics.median(r["tokens_per_s"] for r in results)


def between(results):
    gaps = [r["between_tokens_s"] for r in results]
    return statistics.median(g["mean"] for g in gaps) * 1e3, statistics.median(g["p99"] for g in gaps) * 1e3


def processor():
    with open("/proc/cpuinfo", encoding="utf-8") as f:
        name = re.search(r"model name\s*: (.*)", f.read())
    return f"{name.group(1) if name else 'unknown processor'}, {len(os.sched_getaffinity(0))} threads"


def table(a, rates):
    ours, peer, few, many = rates["holdfast"], rates["llama-server"], min(a.clients), max(a.clients)
    lines = [f"{datetime.date.today()}, {processor()}; median of {a.rounds} rounds of {a.seconds:g} s, answers of up to {a.tokens} tokens.", "",
             "| clients | holdfast tokens/s | llama-server tokens/s | ratio | ms between tokens, holdfast: mean, p99 | llama-server: mean, p99 |",
             "| --- | --- | --- | --- | --- | --- |"]
    for n in a.clients:
        x, y = between(ours[n]), between(peer[n])
        lines.append(f"| {n} | {median(ours[n]):.1f} | {median(peer[n]):.1f} | {median(ours[n]) / median(peer[n]):.2f} | "
                     f"{x[0]:.1f}, {x[1]:.1f} | {y[0]:.1f}, {y[1]:.1f} |")
    if few != many:
        lines += ["", f"{many} clients get {median(ours[many]) / median(ours[few]):.2f} times the tokens of {few} "
                      f"(llama-server: {median(peer[many]) / median(peer[few]):.2f})."]
    return "\n".join(lines) + "\n"


def write_section(path, title, text):
    """Puts a section `## title` into a Markdown file, in place of the one of that title."""
    old = ""
    if os.path.exists(path):
        with open(path, encoding="utf-8") as f:
            old = f.read()
    section, pattern = f"## {title}\n\n{text}", re.compile(rf"^## {re.escape(title)}\n.*?(?=^## |\Z)", re.M | re.S)
    new = pattern.sub(lambda _: section + "\n", old) if pattern.search(old) else old.rstrip() + ("\n\n" if old else "") + section
    with open(path, "w", encoding="utf-8") as f:
        f.write(new.rstrip() + "\n")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("base", nargs="?")
    p.add_argument("--clients", default="")
    p.add_argument("--seconds", type=float, default=20)
    p.add_argument("--rate", type=float, default=0, help="requests per second, open loop")
    p.add_argument("--second-turn", type=int, default=0, metavar="WORDS")
    p.add_argument("--tokens", type=int, default=256)
    p.add_argument("--peer", metavar="LLAMA_SERVER")
    p.add_argument("--ours", default="build/release/holdfast", metavar="HOLDFAST")
    p.add_argument("--model", metavar="FILE")
    p.add_argument("--rounds", type=int, default=2)
    p.add_argument("--threads", type=int, default=0)
    p.add_argument("--markdown", metavar="FILE")
    a = p.parse_args()
    a.clients = [int(x) for x in a.clients.split(",") if x]
    if bool(a.peer) == bool(a.base) or (a.peer and not a.model):
        p.error("either BASE, or --peer with --model")
    if a.peer:
        a.clients = a.clients or [1, 16]
        rates = beside_peer(a)
        text = table(a, rates)
        print(json.dumps(rates, indent=1))
        print(text, file=sys.stderr)
        if a.markdown:
            write_section(a.markdown, f"Beside llama-server: {os.path.basename(a.model)}", text)
        return
    out = {}
    if a.second_turn:
        out["second_turn"] = second_turn(a.base, a.second_turn)
    for n in a.clients:
        out[f"clients_{n}"] = closed(a.base, n, a.seconds, a.tokens)
    if a.rate:
        out["open_loop"] = open_loop(a.base, a.rate, a.seconds, a.tokens)
    print(json.dumps(out, indent=1))


if __name__ == "__main__":
    main()
