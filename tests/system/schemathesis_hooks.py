"""Loaded by schemathesis (SCHEMATHESIS_HOOKS): most requests for text, vectors and bases are made acceptable, so that what
is behind the checks of fields is reached too. The rest stays as it was made up, valid by the schema or not.

A body keeps its plain values as they were generated; what can be wrong in ways that no schema says (models that are not
loaded, messages without a text, grammars, calls, a limit of hours) is replaced.
"""
import json
import os
import zlib

import schemathesis

DROPPED = {"grammar", "response_format", "logit_bias", "tools", "tool_choice", "functions", "knowledge_base", "suffix", "thinking", "format",
           "chat_template_kwargs", "output_config", "reasoning", "text", "include", "background", "previous_response_id", "conversation",
           "prompt_cache_key", "max_tool_calls", "images", "context", "template", "stream_options", "modalities", "think", "best_of",
           "logprobs", "top_logprobs", "dimensions", "stop", "stop_sequences", "options", "instructions", "max_thinking_tokens"}
TEXTS = ["hello", "why?", "name\ntwo", "数一数", "\u0000 and \U0001f600", " ", "count " * 12]


def words(n):
    return TEXTS[n % len(TEXTS)]


def messages(n):
    turns = [{"role": "user", "content": words(n)}]
    if n % 3 == 1:
        turns += [{"role": "assistant", "content": words(n + 1)}, {"role": "user", "content": words(n + 2)}]
    return turns


def limits(n):
    return {"max_tokens": 1 + n % 7, "stream": False}


FIXES = {
    "/v1/chat/completions": lambda n: {"messages": messages(n), "max_completion_tokens": 1 + n % 5, **limits(n), "n": 1 + n % 2, **(
        {"logprobs": True, "top_logprobs": n % 5} if n % 4 == 0 else {})},
    "/v1/completions": lambda n: {"prompt": words(n), **limits(n), "n": 1 + n % 2, **({"logprobs": n % 5} if n % 4 == 0 else {})},
    "/v1/responses": lambda n: {"input": messages(n) if n % 2 else words(n), "max_output_tokens": 16 + n % 4, "stream": False},
    "/v1/messages": lambda n: {"messages": messages(n), **limits(n)},
    "/v1/messages/count_tokens": lambda n: {"messages": messages(n)},
    "/api/chat": lambda n: {"messages": messages(n), "options": {"num_predict": 1 + n % 7}, "stream": False},
    "/api/generate": lambda n: {"prompt": words(n), "options": {"num_predict": 1 + n % 7}, "stream": False, "raw": n % 2 == 0},
    "/api/embed": lambda n: {"input": [words(n), "two"] if n % 2 else words(n)},
    "/v1/embeddings": lambda n: {"input": [words(n), "two"] if n % 2 else words(n)},
    "/v1/rerank": lambda n: {"query": words(n), "documents": [words(n + 1), {"text": words(n + 2)}], "top_n": 1 + n % 3},
    "/api/show": lambda n: {"model": "qwen2-tied"},
    "/tokenize": lambda n: {"content": words(n)},
    "/detokenize": lambda n: {"tokens": [n % 200, 7]},
    "/v1/knowledge_bases": lambda n: {"name": f"base{n}"},
}
ENDS = {"/tokenize": {"prompt", "text"}, "/api/show": {"name"}}  # other names of the same field


with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../share/openapi.json"), encoding="utf-8") as f:
    PATHS = json.load(f)["paths"]


def properties(path):
    return PATHS[path]["post"]["requestBody"]["content"]["application/json"]["schema"]["properties"]


@schemathesis.hook
def map_body(context, body):
    path = context.operation.path
    if not isinstance(body, dict) or path not in FIXES:
        return body
    n = zlib.crc32(json.dumps(body, sort_keys=True, default=repr).encode("utf-8", "replace"))
    if n % 4 == 0:
        return body
    known = properties(path)
    kept = {k: v for k, v in body.items() if k in known and k not in DROPPED and k not in ENDS.get(path, ()) and k != "model"}
    return {**kept, **FIXES[path](n // 4)}
