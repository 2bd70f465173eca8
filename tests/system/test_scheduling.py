#!/usr/bin/env python3
"""Many clients of one server, from outside, with a tiny random model: clients that vanish at random moments, streams
that are taken up again, keys and tenants, time limits.

Usage: test_scheduling.py [HOLDFAST]   (or HOLDFAST_BIN); HOLDFAST_VANISHING: how many clients vanish (default 100)
"""
import http.client
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time

import cases
from test_serve import BINARY, CHAT, MODEL, SLOW, Server, endless, question

VANISHING = int(os.environ.get("HOLDFAST_VANISHING", "100"))
WORDS = "hello ask why count loop name text one two three four five six".split()


def idle(s, seconds=20):
    """Nothing runs or waits, and no block of the cache is held."""
    for name in ("holdfast_running_requests", "holdfast_queue_depth", 'holdfast_kv_blocks{state="used"}'):
        assert s.wait_metric(name, lambda n: n == 0, seconds * SLOW), f"{name} is {s.metric(name)}"


def vanish(s, seed):
    """Asks, and leaves: before the first byte, among the first ones, or later."""
    draw = random.Random(seed)
    text = " ".join(draw.choice(WORDS) for _ in range(draw.choice([1, 20, 400, 1500])))
    connection = s.connect()
    try:
        connection.request("POST", CHAT, json.dumps(question(text, max_tokens=draw.choice([5, 500, 2000]), stream=draw.random() < 0.7)))
        wait = draw.choice([0, 0, 0.005, 0.05, 0.3]) * SLOW
        if wait:
            connection.sock.settimeout(wait)
            try:
                connection.sock.recv(draw.choice([1, 300, 5000]))
            except TimeoutError:
                pass
    except OSError:
        pass
    connection.close()


def test_vanishing_clients_leave_nothing_behind():
    with Server("--max-sequences", "8", "--max-queue", "40", "--kv-bytes", "8000000") as s:
        todo = list(range(VANISHING))
        lock = threading.Lock()

        def work():
            while True:
                with lock:
                    if not todo:
                        return
                    seed = todo.pop()
                vanish(s, seed)

        threads = [threading.Thread(target=work) for _ in range(12)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        idle(s)
        cancelled = s.metric('holdfast_engine_requests_total{outcome="cancelled"}')
        assert cancelled > VANISHING / 10, f"only {cancelled} were cancelled: the test did not reach what it is for"
        assert s.chat("hello", max_tokens=3)[0] == 200


def test_a_vanished_client_frees_its_place_at_once():
    with Server("--max-sequences", "1", "--max-queue", "4") as s:
        connection, reply = s.stream(endless(), max_tokens=3000)
        reply.readline()
        waiting = s.connect()
        waiting.request("POST", CHAT, json.dumps(question("why", max_tokens=2)))
        assert s.wait_metric("holdfast_queue_depth", lambda n: n == 1, 10 * SLOW)
        began = time.time()
        reply.close()
        connection.close()
        assert waiting.getresponse().status == 200
        assert time.time() - began < 2 * SLOW
        waiting.close()
        idle(s)


def read_events(reply, most=None):
    """[(id, data)], at most `most` of them."""
    out, number = [], None
    while most is None or len(out) < most:
        line = reply.readline().decode()
        if not line:
            break
        if line.startswith("id: "):
            number = int(line[4:])
        elif line.startswith("data: "):
            out.append((number, line[6:].strip()))
    return out


def text_of(data):
    return "".join(json.loads(d)["choices"][0]["delta"].get("content") or "" for _, d in data if d != "[DONE]")


def take_up(s, name, last, headers=None):
    connection = s.connect()
    connection.request("GET", "/v1/streams/" + name, headers={"Last-Event-ID": str(last), **s.headers, **(headers or {})})
    return connection, connection.getresponse()


def test_streams_are_taken_up_where_they_were_left():
    with Server() as s:
        ask = dict(max_tokens=120, temperature=1, seed=5)
        connection, reply = s.stream(endless(), **ask)
        whole = read_events(reply)
        connection.close()
        assert whole[-1][1] == "[DONE]" and len(whole) > 20, whole
        # left in the middle, twice
        connection, reply = s.stream(endless(), **{**ask, "seed": 5})
        first = read_events(reply, 6)
        name = json.loads(first[0][1])["id"]
        reply.close()
        connection.close()
        idle(s)
        connection, reply = take_up(s, name, first[-1][0])
        assert reply.status == 200
        second = read_events(reply, 5)
        reply.close()
        connection.close()
        idle(s)
        connection, reply = take_up(s, name, second[-1][0])
        third = read_events(reply)
        connection.close()
        got = first + second + third
        assert [n for n, d in got if d != "[DONE]"] == list(range(len(got) - 1)), [n for n, _ in got]
        assert text_of(got) == text_of(whole)
        assert third[-1][1] == "[DONE]"
        # complete: sent again, from anywhere
        for last in (-1, 10):
            connection, reply = take_up(s, name, last)
            assert read_events(reply) == got[last + 1:]
            connection.close()
        # several answers in one stream
        ask = dict(max_tokens=40, temperature=1, seed=7, n=3)

        def texts(events):
            out = ["", "", ""]
            for _, d in events:
                for c in json.loads(d)["choices"] if d != "[DONE]" else []:
                    out[c["index"]] += c["delta"].get("content") or ""
            return out

        connection, reply = s.stream(endless(), **ask)
        whole = read_events(reply)
        connection.close()
        connection, reply = s.stream(endless(), **ask)
        got = read_events(reply, 20)
        name = json.loads(got[0][1])["id"]
        reply.close()
        connection.close()
        idle(s)
        connection, reply = take_up(s, name, got[-1][0])
        got += read_events(reply)
        connection.close()
        assert texts(got) == texts(whole) and len(set(texts(got))) == 3
        assert [n for n, d in got if d != "[DONE]"] == list(range(len(got) - 1)), [n for n, _ in got]
        # taken over from a client that still listens
        connection, reply = s.stream(endless(), max_tokens=3000)
        first = read_events(reply, 4)
        other, taken = take_up(s, json.loads(first[0][1])["id"], first[-1][0])
        second = read_events(taken, 3)
        assert second[0][0] == first[-1][0] + 1, (taken.status, first[-1][0], second)
        assert s.wait_metric("holdfast_running_requests", lambda n: n <= 1, 10 * SLOW)
        for c in (connection, other):
            c.close()
        reply.close()
        taken.close()
        idle(s)
        assert take_up(s, "chatcmpl-0", 0)[1].status == 404


def keys_file(folder, mode=0o600):
    path = os.path.join(folder, "keys")
    digest = "sha256:" + __import__("hashlib").sha256(b"the-key-of-bob-1234").hexdigest()
    with open(path, "w", encoding="utf-8") as f:
        f.write(f"# two tenants\nthe-key-of-ann-1234 acme 3 ann staff,finance\n{digest}  other\n")
    os.chmod(path, mode)
    return path


def bearer(key):
    return {"Authorization": "Bearer " + key}


def test_keys_name_tenants():
    with tempfile.TemporaryDirectory() as folder:
        path = keys_file(folder, 0o644)
        run = subprocess.run([BINARY, "serve", "--port", "0", "--home", folder, "-m", MODEL, "--keys", path], capture_output=True,
                             timeout=60 * SLOW, check=False)
        assert run.returncode == 1 and b"chmod 600" in run.stderr, run.stderr
        keys_file(folder)
        with Server("--keys", path, env={"HOLDFAST_API_KEY": "the-old-key"}) as s:
            prompt = question("one two three " * 40, max_tokens=2)
            assert s.call("POST", CHAT, prompt)[0] == 401
            assert s.call("POST", CHAT, prompt, bearer("the-key-of-eve-1234"))[0] == 401

            def cached(key):
                status, _, body = s.call("POST", CHAT, prompt, bearer(key))
                assert status == 200, body
                return body["usage"]["prompt_tokens_details"]["cached_tokens"]

            assert cached("the-key-of-ann-1234") == 0
            assert cached("the-key-of-ann-1234") > 0
            assert cached("the-key-of-bob-1234") == 0, "a tenant met another's blocks"
            assert cached("the-old-key") == 0
            # a stream is its principal's alone
            s.headers = bearer("the-key-of-ann-1234")
            connection, reply = s.stream("hello", max_tokens=5)
            name = json.loads(read_events(reply)[0][1])["id"]
            connection.close()
            assert take_up(s, name, -1, bearer("the-key-of-bob-1234"))[1].status == 404
            assert take_up(s, name, -1)[1].status == 200


def test_keys_have_scopes():
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "keys")

        def write(lines):
            with open(path, "w", encoding="utf-8") as f:
                f.write(lines)
            os.chmod(path, 0o600)

        write("the-key-of-ann-1234 acme 1 ann - chat,cook\n")
        run = subprocess.run([BINARY, "serve", "--port", "0", "--home", folder, "-m", MODEL, "--keys", path], capture_output=True,
                             timeout=60 * SLOW, check=False)
        assert run.returncode == 1 and b"scopes are" in run.stderr, run.stderr
        write("the-key-of-ann-1234 acme 1 ann - chat\nthe-key-of-bob-1234 acme 1 bob - kb:read,embed\n"
              "the-key-of-cat-1234 acme 1 cat\nthe-key-of-dan-1234 acme 1 dan - kb:write,admin\n")
        with Server("--keys", path) as s:
            bases, ask = "/v1/knowledge_bases", question("hello", max_tokens=2)
            tries = [("POST", CHAT, ask, "chat"), ("POST", "/v1/embeddings", {"input": "x"}, "embed"), ("GET", bases, None, "kb:read"),
                     ("POST", bases, {"name": "b"}, "kb:write"), ("GET", "/metrics", None, "admin"), ("GET", "/v1/models", None, None)]
            for who, scopes in (("ann", ["chat"]), ("bob", ["kb:read", "embed"]), ("cat", ["chat", "embed", "kb:read", "kb:write", "admin"]),
                                ("dan", ["kb:write", "admin"])):
                for method, path_of, body, scope in tries:
                    status, _, reply = s.call(method, path_of, body, bearer(f"the-key-of-{who}-1234"))
                    if scope is None or scope in scopes:
                        assert status not in (401, 403), (who, path_of, reply)
                    else:
                        assert status == 403 and scope in reply["error"]["message"], (who, path_of, status, reply)
            status, _, reply = s.call("POST", CHAT, dict(ask, knowledge_base="b"), bearer("the-key-of-ann-1234"))
            assert status == 403 and "kb:read" in reply["error"]["message"], reply


def test_time_limits():
    with Server("--request-timeout", "30") as s:
        status, _, body = s.call("POST", CHAT, question(endless(), max_tokens=3500), {"X-Request-Timeout": "0.05"})
        assert status == 504 and body["error"]["code"] == "timeout", (status, body)
        assert s.call("POST", CHAT, question(), {"X-Request-Timeout": "soon"})[0] == 400
        s.headers = {"X-Request-Timeout": "0.1"}
        connection, reply = s.stream(endless(), max_tokens=3500)
        text = reply.read().decode()
        connection.close()
        assert "event: error\n" in text and '"code":"timeout"' in text.replace(" ", ""), text[-400:]
        assert text.endswith("data: [DONE]\n\n")
        idle(s)


def turn(s, history, text, **fields):
    """The answer's message and its usage; both turns become history."""
    history.append({"role": "user", "content": text})
    status, _, body = s.call("POST", CHAT, {"messages": history, "temperature": 0, "max_tokens": 60, **fields})
    assert status == 200, body
    history.append({"role": "assistant", "content": body["choices"][0]["message"]["content"]})
    return history[-1]["content"], body["usage"]


def prepared(s, least, seconds=20):
    assert s.wait_metric('holdfast_ahead_tokens_total{kind="computed"}', lambda n: n >= least, seconds * SLOW)


def still(s, seconds=20):
    """Until nothing more is computed ahead."""
    last, same, end = -1, 0, time.time() + seconds * SLOW
    while same < 5 and time.time() < end:
        now = s.metric('holdfast_ahead_tokens_total{kind="computed"}') + s.metric("holdfast_engine_steps_total")
        same = same + 1 if now == last else 0
        last = now
        time.sleep(0.04 * SLOW)
    idle(s)


def test_the_next_turn_is_prepared_while_idle():
    with Server() as s:
        history = []
        usage = turn(s, history, "one two three four five " * 60)[1]
        first = usage["prompt_tokens"]
        prepared(s, 1)
        idle(s)
        answer, usage = turn(s, history, "and then?")
        # all whole blocks of the first prompt and its answer, but for the template's words around the new message
        missing = usage["prompt_tokens"] - usage["prompt_tokens_details"]["cached_tokens"]
        assert usage["prompt_tokens_details"]["cached_tokens"] > first - 64 and missing <= 64 + 40, usage
        assert s.metric('holdfast_ahead_tokens_total{kind="used"}') > 0
        idle(s)
    with Server() as s:  # the same conversation without preparation: the same words
        assert turn(s, history[:2], "and then?")[0] == answer


TOOL = {"type": "function", "function": {"name": "look", "description": "Looks something up. " * 10, "parameters": {
    "type": "object", "properties": {"n": {"type": "integer", "minimum": 0, "maximum": 99}}, "required": ["n"], "additionalProperties": False}}}


def test_the_turn_after_a_call_is_prepared():
    call = {"type": "function", "function": {"name": "look"}}
    with Server() as s:
        history = [{"role": "user", "content": "one two three four five " * 20}]
        status, _, body = s.call("POST", CHAT, {"messages": history, "temperature": 0, "max_tokens": 300, "tools": [TOOL], "tool_choice": call})
        message = body["choices"][0]["message"]
        assert status == 200 and message["tool_calls"], body
        first = body["usage"]["prompt_tokens"]

        def found(history):
            """Asks on once all is prepared: the message, and how many tokens of the prompt were, and were not, found."""
            still(s)
            usage_before = s.metric('holdfast_ahead_tokens_total{kind="used"}')
            status, _, body = s.call("POST", CHAT, {"messages": history, "temperature": 0, "max_tokens": 250, "tools": [TOOL],
                                                    "loop_detection": False})
            assert status == 200, body
            assert s.metric('holdfast_ahead_tokens_total{kind="used"}') > usage_before, "nothing of it was prepared"
            usage = body["usage"]
            cached = usage["prompt_tokens_details"]["cached_tokens"]
            return body["choices"][0]["message"], cached, usage["prompt_tokens"] - cached

        # the call itself, as it was given, and its result
        history += [message, {"role": "tool", "tool_call_id": message["tool_calls"][0]["id"], "content": "it is seven"}]
        answer, cached, missing = found(history)
        assert cached > first - 64 and missing < 64 + 40, (first, cached, missing)
        # further on in a conversation that has a call in it
        if answer.get("content"):
            history += [{"role": "assistant", "content": answer["content"]}, {"role": "user", "content": "and then?"}]
            _, more, missing = found(history)
            assert more >= cached and missing < 64 + 40, (cached, more, missing)


def spilled(s, seconds=20):
    last = -1
    for _ in range(int(seconds * SLOW * 5)):
        now = s.metric('holdfast_kv_disk_blocks_total{kind="written"}')
        if now == last and now > 0:
            return now
        last = now
        time.sleep(0.2)
    raise AssertionError("nothing was written")


def restarted(home, *options):
    return Server("--home", home, "--kv-spill-bytes", "50000000", *options)


def test_blocks_survive_a_restart_and_a_kill():
    text = "count the words of this long text again and again " * 40
    with Server() as s:
        want = s.chat(text, max_tokens=40)[2]["choices"][0]["message"]["content"]
    with tempfile.TemporaryDirectory() as home:
        with restarted(home) as s:
            assert s.chat(text, max_tokens=40)[2]["choices"][0]["message"]["content"] == want
            spilled(s)
        with restarted(home) as s:
            body = s.chat(text, max_tokens=40)[2]
            assert body["choices"][0]["message"]["content"] == want
            assert body["usage"]["prompt_tokens_details"]["cached_tokens"] > 200, body["usage"]
            assert s.metric('holdfast_kv_disk_blocks_total{kind="read"}') > 3
        folder = os.path.join(home, "kv")
        assert os.stat(folder).st_mode & 0o777 == 0o700
        assert all(os.stat(os.path.join(folder, f)).st_mode & 0o777 == 0o600 for f in os.listdir(folder))
        for round in range(4):  # killed while it writes
            s = restarted(home, "--kv-bytes", "6000000")
            draw = random.Random(round)
            for _ in range(3):
                s.chat(" ".join(draw.choice(WORDS) for _ in range(800)), max_tokens=2)
            time.sleep(draw.random() * 0.05)
            s.process.kill()
            s.process.wait()
            s.process.stdout.close()
            s.home.cleanup()
            with restarted(home) as s:
                assert s.chat(text, max_tokens=40)[2]["choices"][0]["message"]["content"] == want
        # a foreign or damaged file is not believed
        files = sorted(f for f in os.listdir(folder) if f.endswith(".kv"))
        for name in files[1:]:
            with open(os.path.join(folder, files[0]), "rb") as a, open(os.path.join(folder, name), "r+b") as b:
                b.write(a.read())
        with restarted(home) as s:
            body = s.chat(text, max_tokens=40)[2]
            assert body["choices"][0]["message"]["content"] == want


if __name__ == "__main__":
    sys.exit(cases.run(globals()))
