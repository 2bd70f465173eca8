#!/usr/bin/env python3
"""Load on a server that speaks OpenAI's API: an open-loop (Poisson) generator, N clients that never pause, and a second
turn of a long conversation.

Usage: load.py BASE [--clients 1,16] [--seconds 20] [--rate R] [--second-turn TOKENS] [--tokens 48]
BASE: http://127.0.0.1:8080. Prints one JSON object. Open loop: arrivals do not wait for answers, so a slow server is not
spared; a request's time counts from its arrival.
"""
import argparse
import http.client
import json
import random
import threading
import time
import urllib.parse

QUESTIONS = ["Write a function that reverses a list.", "What does a hash table do?", "Explain binary search shortly.",
             "Name three sorting algorithms.", "Write a loop that sums the squares up to n.", "What is a race condition?"]


class Client:
    def __init__(self, base):
        self.address = urllib.parse.urlsplit(base).netloc

    def stream(self, messages, tokens, begun=None):
        """(seconds to the first token, gaps between tokens, tokens, usage)"""
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
        connection.close()
        gaps = [b - a for a, b in zip(times, times[1:])]
        return (times[0] - begun if times else None), gaps, usage["completion_tokens"] if usage else len(times), usage, "".join(text)


def quantile(values, q):
    values = sorted(values)
    return values[min(len(values) - 1, int(q * len(values)))] if values else None


def summary(results, seconds):
    gaps = [g for r in results for g in r[1]]
    firsts = [r[0] for r in results if r[0] is not None]
    mean = sum(gaps) / len(gaps) if gaps else None
    return {"requests": len(results), "tokens_per_s": round(sum(r[2] for r in results) / seconds, 2),
            "ttft_s": {"p50": quantile(firsts, 0.5), "p99": quantile(firsts, 0.99)},
            "between_tokens_s": {"mean": mean, "p50": quantile(gaps, 0.5), "p99": quantile(gaps, 0.99)}}


def messages_of(draw):
    return [{"role": "user", "content": f"{draw.choice(QUESTIONS)} (variant {draw.randrange(10 ** 6)})"}]


def closed(base, n, seconds, tokens):
    results, lock, begun = [], threading.Lock(), time.perf_counter()

    def work(seed):
        draw, client = random.Random(seed), Client(base)
        while time.perf_counter() - begun < seconds:
            r = client.stream(messages_of(draw), tokens)
            with lock:
                results.append(r)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(n)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    return summary(results, time.perf_counter() - begun)


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


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("base")
    p.add_argument("--clients", default="")
    p.add_argument("--seconds", type=float, default=20)
    p.add_argument("--rate", type=float, default=0, help="requests per second, open loop")
    p.add_argument("--second-turn", type=int, default=0, metavar="WORDS")
    p.add_argument("--tokens", type=int, default=48)
    a = p.parse_args()
    out = {}
    if a.second_turn:
        out["second_turn"] = second_turn(a.base, a.second_turn)
    for n in [int(x) for x in a.clients.split(",") if x]:
        out[f"clients_{n}"] = closed(a.base, n, a.seconds, a.tokens)
    if a.rate:
        out["open_loop"] = open_loop(a.base, a.rate, a.seconds, a.tokens)
    print(json.dumps(out, indent=1))


if __name__ == "__main__":
    main()
