#!/usr/bin/env python3
"""Encoders from outside: `holdfast embed`, /v1/embeddings and /v1/rerank, with the tiny random models of the repository.

Usage: test_embed.py [HOLDFAST]   (or HOLDFAST_BIN)
"""
import base64
import http.client
import json
import math
import os
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time

import cases

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BINARY = os.path.abspath(sys.argv[1] if len(sys.argv) > 1 else os.environ["HOLDFAST_BIN"])
MODELS = os.path.join(ROOT, "tests/golden/models")
SLOW = float(os.environ.get("HOLDFAST_TEST_SLOW", "1"))


class Server:
    def __init__(self, *models, options=()):
        self.home = tempfile.TemporaryDirectory()
        clean = {k: v for k, v in os.environ.items() if not k.startswith("HOLDFAST_")}
        self.err = tempfile.TemporaryFile()
        arguments = [BINARY, "serve", "--json", "--port", "0", "--home", self.home.name, *options]
        for model in models:
            arguments += ["-m", os.path.join(MODELS, model)]
        self.process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=self.err, env=clean)
        line = self.process.stdout.readline()
        self.err.seek(0)
        assert line, "no start: " + self.err.read().decode()
        self.port = json.loads(line)["port"]
        self.wait_ready()

    def wait_ready(self):
        end = time.time() + 30 * SLOW
        while self.call("GET", "/readyz")[0] != 200 and time.time() < end:
            time.sleep(0.02)

    def call(self, method, path, body=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60 * SLOW)
        connection.request(method, path, None if body is None else json.dumps(body))
        reply = connection.getresponse()
        text = reply.read().decode()
        connection.close()
        return reply.status, json.loads(text) if "json" in (reply.getheader("Content-Type") or "") else text

    def embeddings(self, **fields):
        return self.call("POST", "/v1/embeddings", fields)

    def rerank(self, **fields):
        return self.call("POST", "/v1/rerank", fields)

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(60 * SLOW)
        self.process.stdout.close()
        self.home.cleanup()
        assert kind or status == 0, f"exit {status}"


def embed(lines, *options, model="enc-bert", status=0):
    run = subprocess.run([BINARY, "embed", "-m", os.path.join(MODELS, model), *options], input=lines,
                         capture_output=True, text=True, timeout=60 * SLOW)
    assert run.returncode == status, f"exit {run.returncode}: {run.stderr}"
    return [json.loads(line) for line in run.stdout.splitlines()], run.stderr


def vectors(reply):
    status, body = reply
    assert status == 200, body
    assert [d["index"] for d in body["data"]] == list(range(len(body["data"])))
    return [d["embedding"] for d in body["data"]]


def refused(reply, status, param, word=""):
    got, body = reply
    assert got == status and body["error"]["param"] == param and word in body["error"]["message"], (got, body)


# ---- the command -------------------------------------------------------------------------------------

def test_lines_in_arrays_out():
    out, err = embed("two words\n\na\ntwo words\nlast without a line break")
    assert len(out) == 5 and all(len(v) == 24 for v in out) and not err
    assert out[0] == out[3] != out[2]
    assert all(abs(math.sqrt(sum(x * x for x in v)) - 1) < 1e-6 for v in out)
    assert embed("")[0] == []


def test_prefixes():
    assert embed("two\n", "--as", "query")[0] == embed("ask: two\n")[0]
    assert embed("two\n", "--as", "passage")[0] == embed("text: two\n")[0]
    ids = [[5, 6, 7]]
    assert embed(json.dumps(ids[0]) + "\n", "--ids", "--as", "query", status=2)[1]


def test_answers_line_by_line():
    """A conversation through pipes: each line is answered before the next one is sent."""
    p = subprocess.Popen([BINARY, "embed", "-m", os.path.join(MODELS, "enc-bert")], stdin=subprocess.PIPE,
                         stdout=subprocess.PIPE, text=True)
    for text in ("a", "two words", "a"):
        p.stdin.write(text + "\n")
        p.stdin.flush()
        assert len(json.loads(p.stdout.readline())) == 24
    p.stdin.close()
    assert p.wait(30 * SLOW) == 0
    p.stdout.close()


def test_cut_is_said():
    out, err = embed("a\n" + "b " * 200 + "\n")
    assert len(out) == 2 and "line 2: cut to 76 tokens" in err, err


def test_heads():
    ids = json.dumps([5, 9, 9, 40, 2]) + "\n"
    sparse, = embed(ids, "--ids", "--head", "sparse", model="enc-m3")[0]
    assert set(sparse) <= {"5", "9", "40", "2"} and all(w > 0 for w in sparse.values())
    colbert, = embed(ids, "--ids", "--head", "colbert", model="enc-m3")[0]
    assert len(colbert) == 4 and all(len(v) == 24 for v in colbert)
    score, = embed('["what is it", "it is"]\n', "--head", "score", model="enc-cross")[0]
    assert abs(score["score"] - 1 / (1 + math.exp(-score["logit"]))) < 1e-6


def test_wrong_usage():
    assert "neither query nor passage" in embed("a\n", "--as", "title", status=2)[1]
    assert "none of dense" in embed("a\n", "--head", "deep", status=2)[1]
    assert "line 1: must be a JSON array of token ids" in embed("a\n", "--ids", status=1)[1]
    assert "line 2: must be a JSON array of two strings" in embed('["a","b"]\n["a"]\n', "--head", "score",
                                                                  model="enc-cross", status=1)[1]
    assert "no sparse head" in embed("a\n", "--head", "sparse", status=1)[1]
    assert "is a language model" in embed("a\n", model="qwen2-tied.gguf", status=1)[1]
    run = subprocess.run([BINARY, "generate", "-m", os.path.join(MODELS, "enc-bert"), "-p", "x"],
                         capture_output=True, text=True, timeout=60 * SLOW)
    assert run.returncode == 1 and "is an encoder" in run.stderr, run.stderr


# ---- the server --------------------------------------------------------------------------------------

def test_embeddings():
    with Server("qwen2-tied.gguf", "enc-bert") as s:
        models = {m["id"]: m for m in s.call("GET", "/v1/models")[1]["data"]}
        assert models["enc-bert"]["type"] == "encoder" and models["enc-bert"]["dimensions"] == 24
        assert models["qwen2-tied"]["type"] == "language"
        one = vectors(s.embeddings(input="two words"))[0]
        assert one == vectors(s.embeddings(input=["a", "two words"], model="enc-bert"))[1]
        assert [round(x, 6) for x in one] == [round(x, 6) for x in embed("two words\n")[0][0]]
        raw = base64.b64decode(vectors(s.embeddings(input="two words", encoding_format="base64"))[0])
        assert struct.unpack("<24f", raw) == struct.unpack("<24f", struct.pack("<24f", *one))
        ids = s.call("POST", "/tokenize", {"model": "enc-bert", "content": "two words"})[1]["tokens"]
        assert vectors(s.embeddings(input=ids, dimensions=24))[0] == one
        assert vectors(s.embeddings(input=[ids, ids[:1]]))[0] == one
        assert vectors(s.embeddings(input="two", input_type="query")) == vectors(s.embeddings(input="ask: two"))
        assert vectors(s.embeddings(input="two", input_type="search_document")) == vectors(
            s.embeddings(input="text: two"))
        body = s.embeddings(input=["a", "b " * 200])[1]
        assert body["usage"] == {"prompt_tokens": 79, "total_tokens": 79} and body["model"] == "enc-bert"
        assert "truncated" not in body["data"][0] and body["data"][1]["truncated"] is True
        metrics = s.call("GET", "/metrics")[1]
        assert 'holdfast_embed_texts_total{kind="truncated"} 1' in metrics


def test_bad_embeddings():
    with Server("qwen2-tied.gguf", "enc-bert") as s:
        refused(s.embeddings(), 400, "input")
        for bad in ([], {}, 3, [1, "a"], ["a", 1], [[]], [[1], "a"], [-1], [1.5], [[1, None]]):
            refused(s.embeddings(input=bad), 400, "input")
        refused(s.embeddings(input=[64]), 400, "input", "token id 64")
        refused(s.embeddings(input=["a"] * 2049), 400, "input", "2048")
        refused(s.embeddings(input="a", dimensions=23), 400, "dimensions", "24")
        refused(s.embeddings(input="a", encoding_format="hex"), 400, "encoding_format")
        refused(s.embeddings(input="a", input_type="title"), 400, "input_type")
        refused(s.embeddings(input="a", surprise=1), 400, "surprise")
        refused(s.embeddings(input="a", model="nobody"), 404, "model")
        refused(s.embeddings(input="a", model="qwen2-tied"), 400, "model", "is a language model")
        chat = {"model": "enc-bert", "messages": [{"role": "user", "content": "x"}]}
        refused(s.call("POST", "/v1/chat/completions", chat), 400, "model", "is an encoder")
        chat.pop("model")  # without a name, the language model answers, wherever it stands in the list
        assert s.call("POST", "/v1/chat/completions", {**chat, "max_tokens": 2})[0] == 200
    with Server("qwen2-tied.gguf") as s:
        refused(s.embeddings(input="a"), 404, "model", "no encoder is loaded")
        refused(s.rerank(query="a", documents=["b"]), 404, "model", "no encoder is loaded")
    with Server("enc-bert") as s:
        refused(s.call("POST", "/v1/chat/completions", chat), 404, "model", "no language model")


def test_rerank():
    documents = ["b b b", "it is a pair", {"text": "two words"}, ""]
    with Server("enc-bert", "enc-cross") as s:
        body = s.rerank(query="what is it", documents=documents)[1]
        assert body["model"] == "enc-cross" and body["scoring"] == "cross_encoder", body
        scores = [r["relevance_score"] for r in body["results"]]
        assert sorted(r["index"] for r in body["results"]) == [0, 1, 2, 3]
        assert scores == sorted(scores, reverse=True) and all(0 < x < 1 for x in scores)
        two = s.rerank(query="what is it", documents=documents, top_n=2, return_documents=True)[1]["results"]
        assert [r["index"] for r in two] == [r["index"] for r in body["results"]][:2]
        texts = [d["text"] if isinstance(d, dict) else d for d in documents]
        assert all(r["document"]["text"] == texts[r["index"]] for r in two)
        cosine = s.rerank(query="two", documents=["a", "two"], model="enc-bert")[1]
        assert cosine["scoring"] == "cosine", cosine
        query, a, two = (vectors(s.embeddings(input="two", input_type="query"))
                         + vectors(s.embeddings(input=["a", "two"], input_type="passage")))
        by_hand = [sum(x * y for x, y in zip(query, v)) for v in (a, two)]
        for r in cosine["results"]:
            assert abs(r["relevance_score"] - by_hand[r["index"]]) < 1e-5, (r, by_hand)
        refused(s.embeddings(input="a", model="enc-cross"), 400, "model", "is a re-ranker")
        refused(s.rerank(documents=["a"]), 400, "query")
        refused(s.rerank(query="a"), 400, "documents")
        refused(s.rerank(query="a", documents=[]), 400, "documents")
        refused(s.rerank(query="a", documents=["a", 3]), 400, "documents", "documents[1]")
        refused(s.rerank(query="a", documents=["a"], top_n=0), 400, "top_n")


def test_many_clients_and_a_leaver():
    texts = [f"word {i} " * (1 + i % 9) for i in range(64)]
    with Server("qwen2-tied.gguf", "enc-bert", options=["--max-queue", "40"]) as s:
        want = vectors(s.embeddings(input=texts))
        got, errors = [None] * 12, []

        def ask(i):
            try:
                got[i] = vectors(s.embeddings(input=texts))
            except Exception as e:  # noqa: BLE001
                errors.append(e)
        threads = [threading.Thread(target=ask, args=(i,)) for i in range(12)]
        for t in threads:
            t.start()
        leaver = http.client.HTTPConnection("127.0.0.1", s.port, timeout=10)
        leaver.request("POST", "/v1/embeddings", json.dumps({"input": texts * 30}))
        leaver.sock.close()
        chat = {"messages": [{"role": "user", "content": "x"}], "max_tokens": 20, "temperature": 0}
        assert s.call("POST", "/v1/chat/completions", chat)[0] == 200
        for t in threads:
            t.join()
        assert not errors, errors
        assert all(g == want for g in got), "a vector depends on who else asks"
        end = time.time() + 30 * SLOW
        while "holdfast_embed_queue_depth 0" not in s.call("GET", "/metrics")[1] and time.time() < end:
            time.sleep(0.05)
        assert "holdfast_embed_queue_depth 0" in s.call("GET", "/metrics")[1]


if __name__ == "__main__":
    sys.exit(cases.run(globals()))
