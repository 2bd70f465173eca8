#!/usr/bin/env python3
"""The official clients of the APIs that the server speaks, unchanged: openai (Python, Node), anthropic, ollama.

Packages are looked for where Python and Node look (tools/check.py brings them); a test whose client is
absent is skipped. Here forms are checked, with a tiny random model and the pulled encoder minilm;
test_client_tools.py has calls of functions by a real model.

Usage: test_clients.py [HOLDFAST]   (or HOLDFAST_BIN)
"""
import importlib
import json
import os
import subprocess
import sys

import cases
import test_serve

ROOT = test_serve.ROOT
TINY, ENCODER = "qwen2-tied", "all-minilm-l6-v2"
MODELS = os.environ.get("HOLDFAST_TEST_MODELS", os.path.expanduser("~/.local/share/holdfast/models"))
KEY = "k3y"
skipped = []
extra_models = [os.path.join(MODELS, ENCODER)]
_server = []


def server():
    """One server for all tests, with a key, so that every client must send it."""
    if not _server:
        more = [option for path in extra_models if os.path.exists(path) for option in ("-m", path)]
        _server.append(test_serve.Server(*more, env={"HOLDFAST_API_KEY": KEY}))
        _server[0].headers = {"Authorization": "Bearer " + KEY}
        _server[0].url = f"http://127.0.0.1:{_server[0].port}"
    return _server[0]


def client_of(name):
    """The package, or None and a note."""
    try:
        return importlib.import_module(name)
    except ImportError:
        skipped.append(f"{sys._getframe(1).f_code.co_name}: no Python package {name} here (pip install {name})")
        return None


def has_encoder():
    if os.path.exists(extra_models[0]):
        return True
    skipped.append(f"{sys._getframe(1).f_code.co_name}: no {extra_models[0]} (holdfast pull minilm)")
    return False


def raises(kind, call, **checks):
    try:
        call()
    except kind as error:
        for name, value in checks.items():
            assert getattr(error, name) == value, (name, getattr(error, name))
        return error
    raise AssertionError(f"no {kind.__name__}")


HELLO = [{"role": "user", "content": "hello"}]


def openai_client(openai, key=KEY):
    return openai.OpenAI(base_url=server().url + "/v1", api_key=key, max_retries=0)


def test_openai_chat():
    if not (openai := client_of("openai")):
        return
    client = openai_client(openai)
    common = dict(model=TINY, messages=HELLO, temperature=0, max_tokens=12)
    whole = client.chat.completions.create(**common)
    assert whole.choices[0].finish_reason == "length" and whole.usage.completion_tokens == 12
    chunks = list(client.chat.completions.create(stream=True, stream_options={"include_usage": True}, **common))
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == whole.choices[0].message.content
    assert chunks[-1].usage.completion_tokens == 12
    plain = client.completions.create(model=TINY, prompt="hello", max_tokens=3, temperature=0)
    assert plain.choices[0].finish_reason == "length"
    assert TINY in {m.id for m in client.models.list()}


def test_openai_embeddings():
    if not (openai := client_of("openai")) or not has_encoder():
        return
    client = openai_client(openai)
    a = client.embeddings.create(model=ENCODER, input=["one", "two"])  # the client asks for base64
    b = client.embeddings.create(model=ENCODER, input="one", encoding_format="float")
    assert len(a.data) == 2 and len(a.data[0].embedding) == len(b.data[0].embedding) > 0
    assert max(abs(x - y) for x, y in zip(a.data[0].embedding, b.data[0].embedding)) < 1e-6


def test_openai_errors():
    if not (openai := client_of("openai")):
        return
    client = openai_client(openai)
    chat = client.chat.completions.create
    raises(openai.NotFoundError, lambda: chat(model="absent", messages=HELLO), code="model_not_found")
    raises(openai.BadRequestError, lambda: chat(model=TINY, messages=HELLO, extra_body={"surprise": 1}),
           param="surprise")
    raises(openai.AuthenticationError, lambda: openai_client(openai, "wrong").models.list())
    respond = client.responses.create
    raises(openai.BadRequestError, lambda: respond(model=TINY, input="x", previous_response_id="resp_1"),
           param="previous_response_id")
    raises(openai.BadRequestError, lambda: respond(model=TINY, input="x", tools=[{"type": "web_search"}]),
           param="tools[0].type")


def test_openai_responses():
    if not (openai := client_of("openai")):
        return
    client = openai_client(openai)
    common = dict(model=TINY, instructions="Be brief.", temperature=0, max_output_tokens=12)
    whole = client.responses.create(input="hello", **common)
    assert whole.status == "incomplete" and whole.incomplete_details.reason == "max_output_tokens"
    assert whole.usage.output_tokens == 12 and whole.instructions == "Be brief."
    events = list(client.responses.create(input="hello", stream=True, **common))
    assert [e.sequence_number for e in events] == list(range(len(events)))
    kinds = [e.type for e in events if e.type != "response.output_text.delta"]
    assert kinds == ["response.created", "response.in_progress", "response.output_item.added",
                     "response.content_part.added", "response.output_text.done", "response.content_part.done",
                     "response.output_item.done", "response.incomplete"], kinds
    text = "".join(e.delta for e in events if e.type == "response.output_text.delta")
    assert text == whole.output_text == events[-1].response.output_text
    items = [{"role": "user", "content": [{"type": "input_text", "text": "hello"}]},
             {"type": "reasoning", "id": "rs_1", "summary": []},
             {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "hi",
                                                                   "annotations": []}]},
             {"role": "user", "content": "again"}]
    again = client.responses.create(input=items, **common)
    assert again.usage.input_tokens > whole.usage.input_tokens
    with client.responses.stream(input="hello", **common) as stream:  # the client's own accumulator
        final = [e for e in stream][-1]
    assert final.response.output_text == text


def test_openai_node():
    try:
        found = subprocess.run(["node", "-e", "require('openai')"], capture_output=True).returncode == 0
    except OSError:
        found = False
    if not found:
        skipped.append("test_openai_node: no Node package openai here (npm install openai; NODE_PATH names its folder)")
        return
    encoder = ENCODER if has_encoder() else ""
    script = os.path.join(ROOT, "tests/clients/openai_node.cjs")
    done = subprocess.run(["node", script, server().url, TINY, encoder], capture_output=True, text=True, timeout=50)
    assert done.returncode == 0, done.stderr[-1500:]


GREEDY = {"extra_body": {"temperature": 0}}  # not a parameter of every version's client


CITY = {"type": "object", "properties": {"name": {"type": "string", "maxLength": 8}, "big": {"type": "boolean"}},
        "required": ["name", "big"], "additionalProperties": False}


def is_city(text):
    value = json.loads(text)
    return set(value) == {"name", "big"} and isinstance(value["name"], str) and isinstance(value["big"], bool)


def test_schemas():
    """The same JSON schema in every client's words; a random model obeys it too."""
    if openai := client_of("openai"):
        client = openai_client(openai)
        made = client.chat.completions.create(model=TINY, messages=HELLO, max_tokens=80, temperature=0, response_format={
            "type": "json_schema", "json_schema": {"name": "city", "schema": CITY, "strict": True}})
        assert is_city(made.choices[0].message.content), made
        made = client.responses.create(model=TINY, input="hello", max_output_tokens=80, temperature=0, text={
            "format": {"type": "json_schema", "name": "city", "schema": CITY, "strict": True}})
        assert is_city(made.output_text), made
    if anthropic := client_of("anthropic"):
        made = anthropic_client(anthropic).messages.create(model=TINY, messages=HELLO, max_tokens=80, extra_body={
            "temperature": 0, "output_config": {"format": {"type": "json_schema", "schema": CITY}}})
        assert is_city(made.content[0].text), made
    if ollama := client_of("ollama"):
        made = ollama_client(ollama).chat(model=TINY, messages=HELLO, format=CITY,
                                          options={"temperature": 0, "num_predict": 80})
        assert is_city(made.message.content), made


def anthropic_client(anthropic, key=KEY):
    return anthropic.Anthropic(base_url=server().url, api_key=key, max_retries=0)


def test_anthropic_messages():
    if not (anthropic := client_of("anthropic")):
        return
    client = anthropic_client(anthropic)
    common = dict(model=TINY, messages=HELLO, system="Be brief.", max_tokens=12, **GREEDY)
    whole = client.messages.create(**common)
    assert whole.stop_reason == "max_tokens" and whole.usage.output_tokens == 12 and whole.role == "assistant"
    with client.messages.stream(**common) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text == whole.content[0].text == final.content[0].text
    assert final.stop_reason == "max_tokens" and final.usage.output_tokens == 12
    assert final.usage.input_tokens + (final.usage.cache_read_input_tokens or 0) > 0
    events = [e.type for e in client.messages.create(stream=True, **common)]
    seen = [t for i, t in enumerate(events) if i == 0 or events[i - 1] != t]
    seen = [t for t in seen if t != "ping"]
    assert seen == ["message_start", "content_block_start", "content_block_delta", "content_block_stop",
                    "message_delta", "message_stop"], seen
    blocks = [{"role": "user", "content": [{"type": "text", "text": "hello"}]}]
    count = client.messages.count_tokens(model=TINY, messages=blocks, system="Be brief.").input_tokens
    assert count == whole.usage.input_tokens + whole.usage.cache_read_input_tokens
    stops = client.messages.create(**{**common, "stop_sequences": [text[:6][-2:]]})
    assert stops.content[0].text == text[:text.index(text[:6][-2:])]
    assert (stops.stop_reason, stops.stop_sequence) == ("stop_sequence", text[:6][-2:])


def test_anthropic_errors():
    if not (anthropic := client_of("anthropic")):
        return
    client = anthropic_client(anthropic)
    create = client.messages.create
    common = dict(model=TINY, messages=HELLO, max_tokens=3)
    error = raises(anthropic.NotFoundError, lambda: create(**{**common, "model": "absent"}))
    assert error.body["type"] == "error" and error.body["error"]["type"] == "not_found_error", error.body
    error = raises(anthropic.BadRequestError, lambda: create(**common, extra_body={"surprise": 1}))
    assert "surprise" in error.body["error"]["message"], error.body
    picture = [{"role": "user", "content": [{"type": "image", "source": {}}]}]
    error = raises(anthropic.BadRequestError, lambda: create(**{**common, "messages": picture}))
    assert "messages[0].content[0]" in error.body["error"]["message"], error.body
    error = raises(anthropic.AuthenticationError, lambda: anthropic_client(anthropic, "wrong").messages.create(**common))
    assert error.body["error"]["type"] == "authentication_error"


def ollama_client(ollama, key=KEY):
    return ollama.Client(host=server().url, headers={"Authorization": "Bearer " + key})


def test_ollama():
    if not (ollama := client_of("ollama")):
        return
    client = ollama_client(ollama)
    options = {"temperature": 0, "num_predict": 12, "num_ctx": 2048}
    whole = client.chat(model=TINY, messages=HELLO, options=options)
    assert whole.done and whole.done_reason == "length" and whole.eval_count == 12
    parts = list(client.chat(model=TINY, messages=HELLO, options=options, stream=True))
    assert "".join(p.message.content for p in parts) == whole.message.content
    assert parts[-1].done and not parts[0].done and parts[-1].prompt_eval_count > 0
    one = client.generate(model=TINY + ":latest", prompt="hello", options=options)
    assert one.response == whole.message.content
    raw = client.generate(model=TINY, prompt="hello", raw=True, options=options)
    assert raw.prompt_eval_count < one.prompt_eval_count
    parts = list(client.generate(model=TINY, prompt="hello", options=options, stream=True))
    assert "".join(p.response for p in parts) == one.response
    assert TINY in {m.model for m in client.list().models}
    assert TINY in {m.model for m in client.ps().models}
    shown = client.show(TINY)
    assert "completion" in shown.capabilities and shown.modelinfo["general.architecture"] == "qwen2"
    version = server().call("GET", "/api/version")[2]["version"]
    assert version


def test_ollama_embed():
    if not (ollama := client_of("ollama")) or not has_encoder():
        return
    client = ollama_client(ollama)
    vectors = client.embed(model=ENCODER, input=["one", "two"]).embeddings
    assert len(vectors) == 2 and len(vectors[0]) == len(vectors[1]) > 0
    long = raises(ollama.ResponseError, lambda: client.embed(model=ENCODER, input="word " * 2000, truncate=False),
                  status_code=400)
    assert "longer" in long.error


def test_ollama_errors():
    if not (ollama := client_of("ollama")):
        return
    client = ollama_client(ollama)
    error = raises(ollama.ResponseError, lambda: client.chat(model="absent", messages=HELLO), status_code=404)
    assert "absent" in error.error
    error = raises(ollama.ResponseError, lambda: client.chat(model=TINY, messages=HELLO, options={"mirostat": 2}),
                   status_code=400)
    assert "options.mirostat" in error.error
    raises(ollama.ResponseError, lambda: ollama_client(ollama, "wrong").list(), status_code=401)


def main(namespace):
    status = cases.run(namespace, skipped)
    for one in _server:
        one.stop()
    if status == 0 and not _server:
        print(skipped[0])
        status = 77
    return status


if __name__ == "__main__":
    sys.exit(main(globals()))
