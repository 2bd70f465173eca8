#!/usr/bin/env python3
"""Answers of a given form over HTTP: whatever a random model writes under a schema is valid, whatever it writes under a
grammar is in its language; the same with a real model, where one is installed; refusals by name; log-probabilities.

Usage: test_constrained.py [HOLDFAST]   (or HOLDFAST_BIN)
"""
import glob
import json
import math
import os
import re
import sys

import cases
from test_serve import CHAT, Server, events, question

TEXT = "/v1/completions"
STR = {"type": "string", "maxLength": 8}
TREE = {"$ref": "#/$defs/node", "$defs": {"node": {
    "type": "object", "properties": {"v": {"enum": [1, "two", None]},
                                     "next": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/node"}]}},
    "required": ["v", "next"], "additionalProperties": False}}}
SCHEMAS = [
    {"type": "object", "properties": {"a": {"type": "integer"}, "b": STR, "c": {"type": "boolean"}},
     "required": ["a", "c"], "additionalProperties": False},
    {"type": "object", "properties": {"abc": {"type": "null"}, "abd": {"type": "integer", "minimum": -7, "maximum": 130}},
     "required": ["abd"], "additionalProperties": {"type": "boolean"}},
    {"type": "array", "prefixItems": [{"type": "integer"}, STR], "items": {"type": "boolean"}, "minItems": 1, "maxItems": 4},
    {"type": "array", "items": {"type": "number", "minimum": 0.5, "exclusiveMaximum": 12}, "minItems": 2, "maxItems": 5},
    {"anyOf": [{"type": "string", "pattern": "^[A-Z]{2,3}-[0-9]{1,4}$"}, {"const": {"k": [1, "中\"\\"]}}]},
    {"oneOf": [{"type": "object", "properties": {"t": {"const": "x"}, "n": {"type": "integer"}}, "required": ["t", "n"]},
               {"type": "object", "properties": {"t": {"const": "y"}}, "required": ["t"]}]},
    {"allOf": [{"type": "object", "properties": {"p": {"type": "integer", "minimum": 3}}, "required": ["p"]},
               {"properties": {"p": {"type": "integer", "maximum": 40}, "q": {"type": ["null", "boolean"]}},
                "required": ["q"]}]},
    {"type": "string", "format": "date-time"},
    {"type": "string", "minLength": 3, "maxLength": 5},
    TREE,
]
GRAMMARS = [
    (r'root ::= ("yes" | "no") " "? [0-9]{2}', r"(yes|no) ?[0-9]{2}"),
    ("root ::= [一-丿]{1,3} [^\\x00-\\x7f] \"。\"", r"[一-丿]{1,3}[^\x00-\x7f]。"),
    ('root ::= item ("," item){0,3}\nitem ::= "(" ( [a-c]{1,2} | "é" )? ")"', r"\(([a-c]{1,2}|é)?\)(,\(([a-c]{1,2}|é)?\)){0,3}"),
]


# --- what a schema means, for where the package jsonschema is not installed ------------------------------------------

def target(schema, root):
    while isinstance(schema, dict) and "$ref" in schema:
        found = root
        for part in schema["$ref"].split("/")[1:]:
            found = found[part]
        schema = found
    return schema


def is_type(value, name):
    if name == "number":
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if name == "integer":
        return isinstance(value, int) and not isinstance(value, bool)
    kinds = {"string": str, "boolean": bool, "array": list, "object": dict, "null": type(None)}
    return isinstance(value, kinds[name])


def same(a, b):
    return json.dumps(a, sort_keys=True) == json.dumps(b, sort_keys=True)


def valid(value, schema, root):
    schema = target(schema, root)
    if isinstance(schema, bool):
        return schema
    names = schema.get("type")
    if names and not any(is_type(value, n) for n in ([names] if isinstance(names, str) else names)):
        return False
    if "enum" in schema and not any(same(value, v) for v in schema["enum"]):
        return False
    if "const" in schema and not same(value, schema["const"]):
        return False
    if not all(valid(value, s, root) for s in schema.get("allOf", [])):
        return False
    if "anyOf" in schema and not any(valid(value, s, root) for s in schema["anyOf"]):
        return False
    if "oneOf" in schema and sum(valid(value, s, root) for s in schema["oneOf"]) != 1:
        return False
    if isinstance(value, str):
        return (schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", math.inf)
                and bool(re.search(schema.get("pattern", ""), value)))
    if is_type(value, "number"):
        return (schema.get("minimum", -math.inf) <= value <= schema.get("maximum", math.inf)
                and schema.get("exclusiveMinimum", -math.inf) < value < schema.get("exclusiveMaximum", math.inf))
    if isinstance(value, list):
        fixed = schema.get("prefixItems", [])
        return (schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", math.inf)
                and all(valid(v, s, root) for v, s in zip(value, fixed))
                and all(valid(v, schema.get("items", True), root) for v in value[len(fixed):]))
    if isinstance(value, dict):
        known = schema.get("properties", {})
        return (set(schema.get("required", [])) <= set(value)
                and all(valid(v, known.get(k, schema.get("additionalProperties", True)), root) for k, v in value.items()))
    return True


def check_valid(text, schema):
    value = json.loads(text)
    assert valid(value, schema, schema), f"{text} does not fit {json.dumps(schema)}"
    try:
        import jsonschema
    except ImportError:
        return value
    jsonschema.Draft202012Validator(schema).validate(value)
    return value


def form(schema):
    return {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": schema}}


def ask(server, **fields):
    status, _, reply = server.chat(**{"temperature": 1.0, "top_p": 1, "max_tokens": 400, **fields})
    assert status == 200, reply
    return reply["choices"][0]


# --- a random model ------------------------------------------------------------------------------------------------

def test_random_text_is_valid():
    whole = 0
    with Server() as s:
        for i, schema in enumerate(SCHEMAS):
            for seed in range(3):
                choice = ask(s, seed=seed, temperature=(1.0, 2.0, 0)[seed], response_format=form(schema))
                if choice["finish_reason"] == "stop":
                    check_valid(choice["message"]["content"], schema)
                    whole += 1
    assert whole >= 2 * len(SCHEMAS), f"only {whole} of {3 * len(SCHEMAS)} came to an end"


def test_random_text_follows_grammars():
    with Server() as s:
        for grammar, regex in GRAMMARS:
            for seed in range(5):
                text = ask(s, seed=seed, grammar=grammar)["message"]["content"]
                assert re.fullmatch(regex, text), (grammar, text)
                body = {"prompt": "x", "seed": seed, "temperature": 1, "max_tokens": 400, "grammar": grammar}
                text = s.call("POST", TEXT, body)[2]["choices"][0]["text"]
                assert re.fullmatch(regex, text), (grammar, text)


def test_the_same_beside_others():
    """Same request, same seed: same text, alone or among others, in a cache that makes them take turns."""
    fields = [dict(seed=n, response_format=form(SCHEMAS[n % 4]), temperature=1, top_p=1, max_tokens=300) for n in range(8)]
    with Server() as s:
        alone = [ask(s, **f)["message"]["content"] for f in fields]
    with Server("--max-sessions", "8", "--max-queue", "16") as s:
        running = [s.stream(**f) for f in fields]
        for (connection, reply), expected in zip(running, alone):
            text = "".join(c["choices"][0]["delta"].get("content", "") for c in events(reply) if c["choices"])
            connection.close()
            assert text == expected, (text, expected)


def test_calls_that_must_come():
    tools = [{"type": "function", "function": {"name": name, "parameters": {
        "type": "object", "properties": {"n": {"type": "integer"}, "s": STR}, "required": ["n"], "additionalProperties": False}}}
        for name in ("first", "second")]
    with Server() as s:
        for seed in range(4):
            for choice, names in (("required", {"first", "second"}),
                                  ({"type": "function", "function": {"name": "second"}}, {"second"})):
                for extra in ({}, {"parallel_tool_calls": False}):
                    reply = ask(s, seed=seed, tools=tools, tool_choice=choice, max_tokens=2500, **extra)
                    if reply["finish_reason"] == "length":
                        continue
                    assert reply["finish_reason"] == "tool_calls" and reply["message"]["content"] is None, reply
                    calls = reply["message"]["tool_calls"]
                    assert len(calls) == 1 or (choice == "required" and not extra), calls
                    for call in calls:
                        assert call["function"]["name"] in names
                        check_valid(call["function"]["arguments"], tools[0]["function"]["parameters"])


def test_refusals_name_their_field():
    def refused(param, path=CHAT, **fields):
        body = {**(question() if path == CHAT else {"prompt": "x"}), **fields}
        status, _, reply = s.call("POST", path, body)
        assert status == 400 and reply["error"]["param"] == param, (status, reply)
        return reply["error"]["message"]
    with Server() as s:
        assert '"not"' in refused("response_format.json_schema.schema", response_format=form({"properties": {"a": {"not": {}}}}))
        assert "line 2" in refused("grammar", grammar='root ::= x\nx ::= "a')
        refused("tool_choice", tool_choice="required")
        refused("logit_bias", logit_bias={"a": 1})
        refused("top_logprobs", top_logprobs=2)
        refused("top_logprobs", logprobs=True, top_logprobs=21)
        assert "middle" in s.call("POST", TEXT, {"prompt": "x", "suffix": "y"})[2]["error"]["message"]
        assert s.call("GET", "/healthz")[0] == 200


def test_logprobs():
    with Server() as s:
        whole = ask(s, seed=3, max_tokens=12, logprobs=True, top_logprobs=4)
        entries = whole["logprobs"]["content"]
        assert bytes(b for e in entries for b in e["bytes"]).decode(errors="replace") == whole["message"]["content"]
        for e in entries:
            top = [t["logprob"] for t in e["top_logprobs"]]
            assert len(top) == 4 and top == sorted(top, reverse=True) and e["logprob"] <= top[0] + 1e-6 <= 1e-6
        connection, reply = s.stream(seed=3, max_tokens=12, logprobs=True, top_logprobs=4, temperature=1.0, top_p=1)
        streamed = [e for c in events(reply) if c["choices"] for e in (c["choices"][0].get("logprobs") or {}).get("content", [])]
        connection.close()
        assert streamed == entries
        body = {"prompt": "x", "max_tokens": 9, "temperature": 0, "logprobs": 2}
        reply = s.call("POST", TEXT, body)[2]["choices"][0]["logprobs"]
        assert len(reply["tokens"]) == len(reply["token_logprobs"]) == len(reply["text_offset"]) == len(reply["top_logprobs"])
        assert all(abs(max(t.values()) - p) < 1e-6 for t, p in zip(reply["top_logprobs"], reply["token_logprobs"]))


def test_several_answers():
    with Server() as s:
        alone = [ask(s, seed=40 + i, max_tokens=20)["message"]["content"] for i in range(3)]
        status, _, reply = s.chat(temperature=1.0, top_p=1, max_tokens=20, seed=40, n=3, logprobs=True)
        assert status == 200 and [c["index"] for c in reply["choices"]] == [0, 1, 2], reply
        assert [c["message"]["content"] for c in reply["choices"]] == alone and len(set(alone)) == 3, reply
        assert reply["usage"]["completion_tokens"] >= sum(len(c["logprobs"]["content"]) for c in reply["choices"]) > 20
        connection, stream = s.stream(temperature=1.0, top_p=1, max_tokens=20, seed=40, n=3)
        texts, ends = ["", "", ""], []
        for chunk in events(stream):
            for choice in chunk["choices"]:
                texts[choice["index"]] += choice["delta"].get("content", "")
                ends += [choice["index"]] if choice["finish_reason"] else []
        connection.close()
        assert texts == alone and sorted(ends) == [0, 1, 2], (texts, ends)
        reply = s.call("POST", TEXT, {"prompt": "x", "n": 2, "best_of": 2, "max_tokens": 5, "seed": 1, "temperature": 1})[2]
        assert len(reply["choices"]) == 2
        assert s.call("POST", TEXT, {"prompt": "x", "n": 2, "best_of": 3})[2]["error"]["param"] == "best_of"


def test_bias_and_echo():
    with Server() as s:
        ids = s.call("POST", "/tokenize", {"content": "a"})[2]["tokens"]
        reply = s.call("POST", TEXT, {"prompt": "x", "max_tokens": 5, "temperature": 0, "logit_bias": {str(ids[0]): 100}})[2]
        assert reply["choices"][0]["text"] == "aaaaa", reply
        reply = s.call("POST", TEXT, {"prompt": "xyz", "max_tokens": 3, "temperature": 0, "echo": True})[2]
        assert reply["choices"][0]["text"].startswith("xyz"), reply


# --- a real model --------------------------------------------------------------------------------------------------

def real_model():
    folder = os.environ.get("HOLDFAST_TEST_MODELS") or os.path.expanduser("~/.local/share/holdfast/models")
    found = glob.glob(os.path.join(folder, "qwen2.5-coder-0.5b*.gguf"))
    return found[0] if found else None


skipped = []


def test_a_real_model():
    model = real_model()
    if not model:
        skipped.append("no qwen2.5-coder:0.5b is pulled (holdfast pull qwen2.5-coder:0.5b brings it)")
        return
    schema = {"type": "object", "properties": {"city": {"type": "string", "maxLength": 40}, "people": {"type": "integer", "minimum": 0},
                                               "river": {"anyOf": [STR, {"type": "null"}]}},
              "required": ["city", "people"], "additionalProperties": False}
    weather = [{"type": "function", "function": {"name": "get_weather", "description": "Weather of a city", "parameters": {
        "type": "object", "properties": {"city": {"type": "string", "maxLength": 30}}, "required": ["city"]}}}]
    with Server(model=model) as s:
        s.timeout = 240  # other programs may have the machine
        s.wait_ready()
        choice = ask(s, text="用 JSON 写出中国的一座大城市。", temperature=1.0, seed=1, max_tokens=80, response_format=form(schema))
        assert choice["finish_reason"] == "stop", choice
        check_valid(choice["message"]["content"], schema)
        choice = ask(s, text="What is the weather in Paris?", temperature=0, max_tokens=60, tools=weather,
                     tool_choice={"type": "function", "function": {"name": "get_weather"}})
        arguments = choice["message"]["tool_calls"][0]["function"]["arguments"]
        assert "Paris" in json.loads(arguments)["city"], arguments
        body = {"prompt": "def add(a, b):\n    return ", "suffix": "\n\nprint(add(1, 2))\n", "max_tokens": 12, "temperature": 0}
        assert s.call("POST", TEXT, body)[2]["choices"][0]["text"].startswith("a + b")


if __name__ == "__main__":
    sys.exit(cases.run(globals(), skipped))
