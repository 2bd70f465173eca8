#!/usr/bin/env python3
"""`holdfast serve` from outside, with a tiny random model of the repository: streams, several
clients, bad requests, clients that leave, full queues, keys, knowledge bases, the end.

Usage: test_serve.py [HOLDFAST]   (or HOLDFAST_BIN)
"""
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time

import cases

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BINARY = os.path.abspath(sys.argv[1] if len(sys.argv) > 1 else os.environ["HOLDFAST_BIN"])
MODEL = os.path.join(ROOT, "tests/golden/models/qwen2-tied.gguf")
CHAT = "/v1/chat/completions"
LONG = 3900  # tokens, almost the model's context: the longest that a request can run
# A build with a sanitizer is many times slower.
SLOW = float(os.environ.get("HOLDFAST_TEST_SLOW", "1"))


class Server:
    def __init__(self, *options, env=None, model=MODEL):
        self.home = tempfile.TemporaryDirectory()
        clean = {k: v for k, v in os.environ.items() if not k.startswith("HOLDFAST_")}
        self.err = tempfile.TemporaryFile()
        arguments = [BINARY, "serve", "--json", "--port", "0", "--home", self.home.name]
        arguments += (["-m", model] if model else []) + list(options)
        self.process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=self.err,
                                        env={**clean, **(env or {})})
        line = self.process.stdout.readline()
        assert line, "no start: " + self.errors()
        self.port = json.loads(line)["port"]
        self.headers = {}
        self.timeout = 60 * SLOW

    def errors(self):
        self.err.seek(0)
        return self.err.read().decode(errors="replace")

    def connect(self):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=self.timeout)

    def wait_ready(self, seconds=120):
        """Until no prompt has to wait for the disk: a model of some size may not be in memory at once."""
        end = time.time() + seconds * SLOW
        while self.call("GET", "/readyz")[0] != 200:
            assert time.time() < end, f"not ready after {seconds} s"
            time.sleep(0.05)

    def call(self, method, path, body=None, headers=None):
        """(status, headers, parsed body or text)"""
        connection = self.connect()
        if isinstance(body, (dict, list)):
            body = json.dumps(body)
        connection.request(method, path, body, {**self.headers, **(headers or {})})
        reply = connection.getresponse()
        text = reply.read().decode()
        connection.close()
        is_json = "json" in (reply.getheader("Content-Type") or "")
        return reply.status, reply.headers, json.loads(text) if is_json else text

    def chat(self, text="hello", **fields):
        return self.call("POST", CHAT, question(text, **fields))

    def stream(self, text="hello", **fields):
        connection = self.connect()
        body = json.dumps(question(text, stream=True, **fields))
        connection.request("POST", CHAT, body, self.headers)
        reply = connection.getresponse()
        assert reply.status == 200, reply.read()
        return connection, reply

    def metric(self, name):
        text = self.call("GET", "/metrics")[2]
        found = re.search("^" + re.escape(name) + r" (\S+)$", text, re.M)
        return float(found.group(1)) if found else 0.0

    def wait_metric(self, name, test, seconds):
        end = time.time() + seconds
        while time.time() < end:
            if test(self.metric(name)):
                return True
            time.sleep(0.02)
        return False

    def stop(self, how=signal.SIGTERM):
        self.process.send_signal(how)
        status = self.process.wait(60 * SLOW)
        self.process.stdout.close()
        self.home.cleanup()
        assert status == 0, f"exit {status}: {self.errors()}"

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        if self.process.poll() is None:
            if kind:
                self.process.kill()
                self.process.wait()
                self.process.stdout.close()
            else:
                self.stop()


_endless = []


def endless():
    """A question on which the random model, being greedy, goes round in circles to the end of its context."""
    if not _endless:
        with Server() as s:
            for word in "hello ask why count loop name text one two three four five six".split():
                choice = s.chat(word, max_tokens=3000)[2]["choices"][0]
                if choice["finish_reason"] == "length":
                    _endless.append(word)
                    break
    return _endless[0]


def question(text="hello", **fields):
    """Random weights repeat themselves: the guard against loops would end what must last."""
    return {"messages": [{"role": "user", "content": text}], "temperature": 0, "loop_detection": False, **fields}


def events(reply):
    """The data of each event; checks that the ids count from 0."""
    n = 0
    for line in reply:
        line = line.decode().rstrip("\n")
        if line.startswith("id: "):
            assert line == f"id: {n}", line
            n += 1
        elif line.startswith("data: "):
            if line == "data: [DONE]":
                return
            yield json.loads(line[6:])
    raise AssertionError("the stream ended without [DONE]")


def text_of(chunks):
    return "".join(c["choices"][0]["delta"].get("content", "") for c in chunks if c["choices"])


def expect(server, status, code, param, method, path, body=None, headers=None):
    got, reply_headers, reply = server.call(method, path, body, headers)
    assert got == status, f"{method} {path} {str(body)[:60]}: {got} {reply}"
    error = reply["error"]
    assert set(error) == {"message", "type", "param", "code"} and error["message"], error
    assert error["code"] == code and error["param"] == param, error
    return reply_headers


def test_whole_and_stream_agree():
    with Server() as s:
        status, _, whole = s.chat(max_tokens=40)
        assert status == 200 and whole["object"] == "chat.completion"
        choice, usage = whole["choices"][0], whole["usage"]
        assert choice["message"]["role"] == "assistant" and choice["finish_reason"] == "length"
        assert usage["completion_tokens"] == 40
        assert usage["total_tokens"] == usage["prompt_tokens"] + 40
        assert usage["prompt_tokens_details"]["cached_tokens"] >= 0
        connection, reply = s.stream(max_tokens=40, stream_options={"include_usage": True})
        assert reply.getheader("Content-Type").startswith("text/event-stream")
        chunks = list(events(reply))
        connection.close()
        assert len(chunks) > 10, "not streamed piece by piece"
        assert text_of(chunks) == choice["message"]["content"]
        assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
        assert chunks[-2]["choices"][0]["finish_reason"] == "length"
        assert chunks[-1]["choices"] == [] and chunks[-1]["usage"]["completion_tokens"] == 40
        a = s.chat(max_tokens=30, temperature=1, seed=5)[2]["choices"][0]["message"]["content"]
        b = s.chat(max_tokens=30, temperature=1, seed=5)[2]["choices"][0]["message"]["content"]
        assert a == b, "same seed, other text"


def test_clients_share_the_engine():
    """A short request is answered while long ones that came first still run."""
    with Server() as s:
        alone = s.chat(max_tokens=60)[2]["choices"][0]["message"]["content"]
        long = [s.stream(endless(), max_tokens=LONG) for _ in range(3)]
        first = [next(events(reply)) for _, reply in long]
        assert len({c["id"] for c in first}) == 3
        status, _, short = s.chat(max_tokens=60)
        assert status == 200
        assert s.metric("holdfast_running_requests") == 3, "the long ones had to end first"
        assert short["choices"][0]["message"]["content"] == alone, "others changed the text"
        for connection, reply in long:
            reply.close()
            connection.close()


def test_bad_requests():
    ok = question()
    with Server("--max-body", "200000", "--ctx", "4096") as s:
        for body in ("", "{", "[]", '"x"', '{"a":1,"a":2}', b'{"a":"\xff"}', "[" * 5000, "nan"):
            expect(s, 400, "invalid_json", None, "POST", CHAT, body)
        expect(s, 400, "unknown_parameter", "surprise", "POST", CHAT, {**ok, "surprise": 1})
        expect(s, 400, "invalid_type", "messages", "POST", CHAT, {"messages": "hi"})
        expect(s, 400, "invalid_value", "temperature", "POST", CHAT, {**ok, "temperature": 9})
        expect(s, 400, "invalid_type", "stream", "POST", CHAT, {**ok, "stream": 1})
        expect(s, 404, "model_not_found", "model", "POST", CHAT, {**ok, "model": "gpt-x"})
        expect(s, 404, "knowledge_base_not_found", "knowledge_base", "POST", CHAT,
               {**ok, "knowledge_base": "absent"})
        expect(s, 400, "context_length_exceeded", "messages", "POST", CHAT,
               question("many words " * 9000))
        expect(s, 413, "body_too_large", None, "POST", CHAT, question("x" * 300000))
        expect(s, 404, "not_found", None, "GET", "/v1/absent")
        headers = expect(s, 405, "method_not_allowed", None, "GET", CHAT)
        assert headers["Allow"] == "POST"
        expect(s, 403, "host_not_allowed", None, "GET", "/v1/models", None, {"Host": "evil.example"})
        expect(s, 403, "origin_not_allowed", None, "POST", CHAT, ok,
               {"Origin": "http://evil.example"})
        assert s.chat(max_tokens=2)[0] == 200, "the server did not survive"


def raw(server, data):
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as c:
        c.sendall(data)
        c.settimeout(20)
        got = b""
        try:
            while part := c.recv(65536):
                got += part
        except ConnectionResetError:
            pass
        return got


def test_broken_http():
    with Server() as s:
        for data in (b"nonsense\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n",
                     b"POST " + CHAT.encode() + b" HTTP/1.1\r\nHost: localhost\r\n"
                     b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
                     b"POST " + CHAT.encode() + b" HTTP/1.1\r\nHost: localhost\r\n"
                     b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n"):
            got = raw(s, data)
            assert not got or b" 400 " in got.split(b"\r\n")[0], got[:80]
        assert s.call("GET", "/healthz")[0] == 200


def test_leaving_cancels():
    with Server() as s:
        name = 'holdfast_engine_requests_total{outcome="cancelled"}'
        for n, stream in enumerate((True, False), 1):
            connection = s.connect()
            connection.request("POST", CHAT, json.dumps(question(endless(), max_tokens=LONG, stream=stream)))
            assert s.wait_metric("holdfast_running_requests", lambda v: v == 1, 10 * SLOW)
            began = time.time()
            connection.sock.shutdown(socket.SHUT_RDWR)
            connection.close()
            assert s.wait_metric(name, lambda v: v == n, 2 * SLOW), "not cancelled"
            assert time.time() - began < 1 * SLOW, f"{time.time() - began:.2f} s"
        assert s.metric("holdfast_running_requests") == 0
        assert s.metric('holdfast_kv_blocks{state="used"}') == 0


def test_full_queue():
    with Server("--max-sessions", "1", "--max-queue", "1") as s:
        running = [s.stream(endless(), max_tokens=LONG)]
        next(events(running[0][1]))
        running.append(s.stream(endless(), max_tokens=LONG))
        assert s.wait_metric("holdfast_queue_depth", lambda v: v == 1, 5 * SLOW), "not waiting"
        headers = expect(s, 429, "rate_limit_exceeded", None, "POST", CHAT, question())
        assert int(headers["Retry-After"]) >= 1
        assert s.call("GET", "/v1/models")[0] == 200
        for connection, reply in running:
            reply.close()
            connection.close()
        end = time.time() + 10 * SLOW
        while s.chat(max_tokens=1)[0] != 200:
            assert time.time() < end, "no room again"
            time.sleep(0.05)


def test_key():
    with Server(env={"HOLDFAST_API_KEY": "s3cret"}) as s:
        expect(s, 401, "invalid_api_key", None, "GET", "/v1/models")
        expect(s, 401, "invalid_api_key", None, "POST", CHAT, question())
        expect(s, 401, "invalid_api_key", None, "GET", "/metrics", None,
               {"Authorization": "Bearer s3cre"})
        assert s.call("GET", "/healthz")[0] == 200 and s.call("GET", "/")[0] == 200
        s.headers = {"Authorization": "Bearer s3cret"}
        assert s.call("GET", "/v1/models")[0] == 200
        assert s.chat(max_tokens=1)[0] == 200


def test_health_models_tokens():
    with Server() as s:
        for path in ("/healthz", "/readyz", "/startupz"):
            assert s.call("GET", path)[0] == 200
        models = s.call("GET", "/v1/models")[2]["data"]
        assert [m["id"] for m in models] == ["qwen2-tied"]
        tokens = s.call("POST", "/tokenize", {"content": "hello 世界"})[2]["tokens"]
        assert tokens and all(isinstance(t, int) for t in tokens)
        assert s.call("POST", "/detokenize", {"tokens": tokens})[2]["content"] == "hello 世界"
        half = s.call("POST", "/tokenize", {"content": "世"})[2]["tokens"][:1] + [tokens[0]]
        status, _, reply = s.call("POST", "/detokenize", {"tokens": half})
        assert status == 200 and reply["content"].startswith("\ufffd") and reply["content"].endswith("h"), reply
        status, _, body = s.call("POST", "/v1/completions", {"prompt": "hello", "max_tokens": 3})
        assert status == 200 and body["object"] == "text_completion"
        assert body["usage"]["completion_tokens"] == 3


def test_page():
    with Server() as s:
        status, headers, page = s.call("GET", "/")
        assert status == 200 and "<title>Holdfast</title>" in page
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert headers["X-Frame-Options"] == "DENY"
        assert not re.search(r"https?://", page), "the page names another host"
        for name in re.findall(r'(?:src|href)="/([\w.]+)"', page):
            assert s.call("GET", "/" + name)[0] == 200, name
        script = s.call("GET", "/app.js")[2]
        assert "innerHTML" not in script and "eval(" not in script


def test_metrics_format():
    with Server() as s:
        s.chat(max_tokens=3)
        text = s.call("GET", "/metrics")[2]
        types = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.M))
        line = re.compile(r'^([a-zA-Z_][a-zA-Z0-9_]*)(\{(\w+="[^"]*",?)+\})? \S+$')
        for row in text.splitlines():
            if row.startswith("#"):
                continue
            match = line.match(row)
            assert match, row
            base = re.sub("_(bucket|sum|count)$", "", match.group(1))
            assert match.group(1) in types or types.get(base) == "histogram", row
        assert types["holdfast_ttft_seconds"] == "histogram"
        assert s.metric("holdfast_ttft_seconds_count") == 1
        assert s.metric('holdfast_tokens_total{phase="generated"}') == 3
        assert 'route="/v1/chat/completions",method="POST",code="200"} 1' in text


def test_knowledge_base():
    base = "/v1/knowledge_bases/house"
    with Server(model="none") as s:
        assert s.call("POST", "/v1/knowledge_bases", {"name": "house"})[0] == 201
        expect(s, 409, "already_exists", None, "POST", "/v1/knowledge_bases", {"name": "house"})
        text = "# Rules\n\nThe blue gate closes at nine in the evening.\n\n蓝色大门晚上九点关闭。\n"
        status, _, added = s.call("POST", base + "/documents", {"name": "rules.md", "text": text})
        assert status == 201, added
        number = added["data"][0]["id"]
        body = ("--B\r\nContent-Disposition: form-data; name=\"file\"; filename=\"tea.txt\"\r\n\r\n"
                "Tea is served in the yellow room at four o'clock.\r\n--B--\r\n")
        status, _, added = s.call("POST", base + "/documents", body,
                                  {"Content-Type": "multipart/form-data; boundary=B"})
        assert status == 201, added
        found = s.call("POST", base + "/search", {"query": "When does the blue gate close?"})[2]
        assert found["results"][0]["document"]["name"] == "rules.md", found
        for model, extra in ((None, {"knowledge_base": "house"}), ("none@house", {})):
            fields = {**extra, **({"model": model} if model else {})}
            status, _, answer = s.chat("When does the blue gate close?", **fields)
            assert status == 200 and answer["found"] and answer["quoted"], answer
            content = answer["choices"][0]["message"]["content"]
            assert "nine" in content and "[citation:1]" in content, content
            citation = answer["citations"][0]
            assert citation["document"]["name"] == "rules.md" and "nine" in citation["quote"]
            b, e = citation["span"]
            stored = s.call("GET", f"{base}/documents/{number}")[2]["text"]
            assert stored[b:e] == citation["quote"], (stored[b:e], citation["quote"])
        connection, reply = s.stream(model="none@house", stream_options={"include_usage": True},
                                     text="蓝色大门几点关闭？")
        chunks = list(events(reply))
        connection.close()
        assert "citations" in chunks[-2] and "usage" in chunks[-1], chunks[-2:]
        assert "九点" in text_of(chunks)
        expect(s, 404, "model_not_found", "model", "POST", CHAT, question())
        assert s.call("DELETE", f"{base}/documents/{number}")[0] == 200
        expect(s, 404, "not_found", None, "DELETE", f"{base}/documents/{number}")
        found = s.call("POST", base + "/search", {"query": "blue gate"})[2]
        assert not any(r["document"]["name"] == "rules.md" for r in found["results"])
        assert s.call("DELETE", base)[0] == 200
        assert s.call("GET", "/v1/knowledge_bases")[2]["data"] == []


def test_drain():
    with Server() as s:
        connection, reply = s.stream(endless(), max_tokens=LONG)
        stream = events(reply)
        next(stream)
        s.process.send_signal(signal.SIGTERM)
        end = time.time() + 5 * SLOW
        while s.call("GET", "/readyz")[0] != 503:
            assert time.time() < end, "still ready"
        expect(s, 503, "draining", None, "POST", CHAT, question())
        assert s.call("GET", "/healthz")[0] == 200, "draining is not dead"
        last = list(stream)[-1]
        connection.close()
        assert last["choices"][0]["finish_reason"] == "length", "the running request was cut"
        assert s.process.wait(20 * SLOW) == 0
        s.process.stdout.close()


def test_drain_has_a_limit():
    with Server("--drain", "0") as s:
        connection, reply = s.stream(endless(), max_tokens=LONG)
        stream = events(reply)
        next(stream)
        s.stop()
        try:
            cut = list(stream)
            assert cut[-1]["choices"][0]["finish_reason"] is None, "it was waited for"
        except (AssertionError, http.client.HTTPException, ConnectionError, ValueError) as error:
            assert "waited" not in str(error), error
        connection.close()
        assert "cut off" in s.errors()


def test_configuration():
    def run(*options):
        return subprocess.run([BINARY, "serve", *options], capture_output=True, text=True,
                              timeout=60)
    good = run("--check-config", "-m", MODEL)
    assert good.returncode == 0, good.stderr
    bad = run("--check-config", "--prot", "1")
    assert bad.returncode == 2 and "--port" in bad.stderr, bad.stderr
    missing = run("--check-config", "-m", "/nonexistent.gguf")
    assert missing.returncode == 1 and "/nonexistent.gguf" in missing.stderr
    shown = run("--print-config", "--port", "7", "--api-key", "hidden")
    assert "port = 7" in shown.stdout and "hidden" not in shown.stdout
    with Server() as s:
        taken = run("-m", MODEL, "--port", str(s.port))
        assert taken.returncode == 1 and "cannot listen" in taken.stderr, taken.stderr


if __name__ == "__main__":
    sys.exit(cases.run(globals()))
