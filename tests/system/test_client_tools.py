#!/usr/bin/env python3
"""Calls of functions by the pulled qwen2.5-coder:0.5b, through every official client (test_clients.py), from the
question over the call and its result to the answer.

Usage: test_client_tools.py [HOLDFAST]   (or HOLDFAST_BIN)
"""
import json
import os
import sys

import test_clients
from test_clients import GREEDY, anthropic_client, client_of, ollama_client, openai_client, server

PATH = os.path.join(test_clients.MODELS, "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf")
test_clients.extra_models[:] = [PATH]
WEATHER = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
ASK = "What is the weather in Paris? Use the function."


def coder():
    """The real model's name, or None and a note."""
    if os.path.exists(PATH):
        ids = [m["id"] for m in server().call("GET", "/v1/models")[2]["data"]]
        return next(i for i in ids if "coder" in i)
    test_clients.skipped.append(f"{sys._getframe(1).f_code.co_name}: no {PATH} (holdfast pull qwen2.5-coder:0.5b)")
    return None


def test_openai_tools():
    if not (openai := client_of("openai")) or not (model := coder()):
        return
    client = openai_client(openai)
    tool = {"name": "get_weather", "description": "Current weather of a city", "parameters": WEATHER}
    common = dict(model=model, messages=[{"role": "user", "content": ASK}], temperature=0, max_tokens=60,
                  tools=[{"type": "function", "function": tool}])
    whole = client.chat.completions.create(**common).choices[0]
    assert whole.finish_reason == "tool_calls", whole
    call = whole.message.tool_calls[0]
    assert call.function.name == "get_weather" and "Paris" in json.loads(call.function.arguments)["city"]
    reply = client.responses.create(model=model, input=ASK, temperature=0, max_output_tokens=60,
                                    tools=[{"type": "function", **tool}])
    made = next(i for i in reply.output if i.type == "function_call")
    assert made.arguments == call.function.arguments, made
    events = list(client.responses.create(model=model, input=ASK, temperature=0, max_output_tokens=60,
                                          stream=True, tools=[{"type": "function", **tool}]))
    streamed = "".join(e.delta for e in events if e.type == "response.function_call_arguments.delta")
    assert events[-1].type == "response.completed", events[-1]
    assert streamed == made.arguments, (streamed, made)
    history = [{"role": "user", "content": ASK}, made.to_dict(),
               {"type": "function_call_output", "call_id": made.call_id, "output": "17 degrees, rain"}]
    last = client.responses.create(model=model, input=history, temperature=0, max_output_tokens=40)
    assert "17" in last.output_text, last.output_text


def test_anthropic_tools():
    if not (anthropic := client_of("anthropic")) or not (model := coder()):
        return
    client = anthropic_client(anthropic)
    common = dict(model=model, max_tokens=60, messages=[{"role": "user", "content": ASK}],
                  tools=[{"name": "get_weather", "description": "Current weather of a city",
                          "input_schema": WEATHER}], **GREEDY)
    whole = client.messages.create(**common)
    use = next(b for b in whole.content if b.type == "tool_use")
    assert whole.stop_reason == "tool_use" and use.name == "get_weather" and "Paris" in use.input["city"]
    with client.messages.stream(**common) as stream:
        final = stream.get_final_message()
    again = next(b for b in final.content if b.type == "tool_use")
    assert again.input == use.input and final.stop_reason == "tool_use"
    history = common["messages"] + [
        {"role": "assistant", "content": [b.to_dict() for b in whole.content]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": use.id, "content": "17 degrees, rain"}]}]
    last = client.messages.create(**{**{k: v for k, v in common.items() if k != "tools"}, "messages": history})
    assert "17" in last.content[0].text, last


def test_ollama_tools():
    if not (ollama := client_of("ollama")) or not (model := coder()):
        return
    client = ollama_client(ollama)
    tool = {"type": "function", "function": {"name": "get_weather", "description": "Current weather of a city",
                                             "parameters": WEATHER}}
    asked = [{"role": "user", "content": ASK}]
    options = {"temperature": 0, "num_predict": 60}
    whole = client.chat(model=model, messages=asked, tools=[tool], options=options)
    call = whole.message.tool_calls[0]
    assert call.function.name == "get_weather" and "Paris" in call.function.arguments["city"]
    parts = list(client.chat(model=model, messages=asked, tools=[tool], options=options, stream=True))
    streamed = [c for p in parts for c in p.message.tool_calls or []]
    assert streamed[0].function.arguments == call.function.arguments
    history = asked + [whole.message, {"role": "tool", "tool_name": "get_weather", "content": "17 degrees, rain"}]
    last = client.chat(model=model, messages=history, options=options)
    assert "17" in last.message.content, last.message.content


if __name__ == "__main__":
    sys.exit(test_clients.main(globals()))
