#!/usr/bin/env python3
"""Thinking under control over the API, with a real model: bench/thinking.py's questions in small, and the context's end."""
import concurrent.futures
import os
import shutil
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path[:0] = [os.path.join(ROOT, "bench", "answers"), os.path.join(ROOT, "bench")]
sys.dont_write_bytecode = True
import cases  # noqa: E402
import common  # noqa: E402
import thinking  # noqa: E402

QUESTIONS = (0, 1, 2, 3, 6, 7)  # both languages, three budgets; the first one streamed too
CONTEXT = 1024
server = None


def test_thoughts_end_and_answers_come():
    with concurrent.futures.ThreadPoolExecutor(len(QUESTIONS)) as pool:
        rows = list(pool.map(lambda i: thinking.ask(server, i, i == 0), QUESTIONS))
    wrong = ["%s: %s" % (row["question"], fault) for row in rows for fault in thinking.faults(row)]
    assert not wrong, "; ".join(wrong)
    assert all(row["reasoning"].strip() for row in rows)
    assert rows[0]["streamed"]


def chat(**body):
    return server.call("POST", "/v1/chat/completions", {"temperature": 0, **body})


def test_fast_mode_does_not_think():
    body = {"messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 8}
    plain, fast = chat(**body)[1], chat(**body, reasoning_effort="none")[1]
    assert plain["choices"][0]["message"]["content"] == fast["choices"][0]["message"]["content"]
    assert "reasoning_stop" not in fast["choices"][0]
    assert fast["usage"]["completion_tokens_details"]["reasoning_tokens"] == 0
    assert "reasoning_content" not in fast["choices"][0]["message"]


def test_a_token_or_two_are_an_answer():
    for most in (1, 2, 12):
        reply = chat(messages=[{"role": "user", "content": "1+1?"}], max_tokens=most, max_thinking_tokens=50)[1]
        assert reply["choices"][0]["message"]["content"].strip(), most
        assert reply["choices"][0]["reasoning_stop"] in ("budget", "length", "closed"), reply
        assert reply["usage"]["completion_tokens"] <= most


def test_a_full_context_is_said():
    talk = []
    for i in range(30):
        talk += [{"role": "user", "content": "Tell me fact number %d about the number %d, please, in one sentence." % (i, i)},
                 {"role": "assistant", "content": "The number %d is followed by the number %d, as everybody knows." % (i, i + 1)}]
    talk.append({"role": "user", "content": "Count from 1 to 1000, with commas."})
    status, reply = chat(messages=talk, max_tokens=16)
    assert status == 400 and reply["error"]["code"] == "context_length_exceeded", reply
    status, reply = chat(messages=talk, max_tokens=16, truncation="auto")
    assert status == 200 and reply["dropped_messages"] % 2 == 0 and reply["dropped_messages"] > 0, reply
    assert reply["usage"]["prompt_tokens"] + 16 <= CONTEXT
    # a prompt that leaves a few dozen tokens: the answer ends with the context
    status, reply = chat(messages=[{"role": "user", "content": "x " * (CONTEXT - 80) + "Count from 1 to 1000."}], loop_detection=False)
    assert status == 200, reply
    choice, usage = reply["choices"][0], reply["usage"]
    if choice["finish_reason"] == "length":
        assert choice["stop_reason"] == "context" and usage["total_tokens"] == CONTEXT, reply
    else:
        assert usage["total_tokens"] < CONTEXT, reply


def main():
    global server
    binary = common.find_binary(sys.argv[1] if len(sys.argv) > 1 else None)
    model = common.find_model("qwen2.5-coder-0.5b") or common.find_model("qwen2.5-coder-1.5b")
    if not model:
        print("no pulled Qwen2.5-Coder model in %s" % common.models_folder())
        return 77
    work = tempfile.mkdtemp(prefix="holdfast-thinking-")
    try:
        with common.Server(binary, model, work, ("--ctx", str(CONTEXT))) as server:
            return cases.run(globals())
    finally:
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
