#!/usr/bin/env python3
"""Makes tests/golden/templates: what real Jinja, set up as transformers sets it up, makes of templates.

    python tools/golden/make_template_goldens.py [--add NAME FILE.jinja|FILE.gguf BOS]...

- snippets.json: every construct that the interpreter knows, with Jinja's output, or null where Jinja refuses;
- renderings.json: conversations (template_cases.py), and per template of tests/golden/templates/*.jinja the SHA-256
  (16 digits) of what it renders, or null; templates that --add names are copied there first (see NOTICE there);
- builtin.json: the same for the templates of src/token/chat_builtin.c, with the full text.
"""
import argparse
import ast
import datetime
import hashlib
import json
import pathlib
import re
import subprocess

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.sandbox

import gguf_header
import template_cases as cases

ROOT = pathlib.Path(__file__).resolve().parents[2]
OUT = ROOT / "tests" / "golden" / "templates"
NOW = 1700000000
N_CONVERSATION = 240
BOS = "<｜begin▁of▁sentence｜>"


class Generation(jinja2.ext.Extension):
    """transformers' {% generation %}, as far as the text goes."""

    tags = {"generation"}

    def parse(self, parser):
        next(parser.stream)
        return parser.parse_statements(["name:endgeneration"], drop_needle=True)


def environment():
    env = jinja2.sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True,
                                                       extensions=["jinja2.ext.loopcontrols", Generation])

    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    def raise_exception(message):
        raise jinja2.exceptions.TemplateError(message)

    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = lambda f: datetime.datetime.fromtimestamp(NOW, datetime.timezone.utc).strftime(f)
    return env


def render(env, template, context):
    try:
        return env.from_string(template).render(**context)
    except Exception:  # whatever Jinja or Python refuses
        return None


def write(name, value):
    """One element per line, so that changes can be read."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    text = re.sub(r'(\],\[|\},\{"messages"|\},\{"conv)', lambda m: m.group(0).replace(",", ",\n", 1), text)
    (OUT / name).write_text(text + "\n")
    print(name, len(text.encode()), "bytes")


def snippets(env):
    texts = [line for line in cases.SNIPPETS.strip("\n").split("\n")]
    texts += cases.LAYOUTS[1:].split("====\n")
    texts += ["{{ a }}\r\n{% if true %}\r\nx\r\n{% endif %}\r\ny\r\n", "", "\n", "{{ a }}\n\n"]
    pairs = [[t, render(env, t, cases.CONTEXT)] for t in texts]
    refused = sum(p[1] is None for p in pairs)
    print(f"snippets: {len(pairs)}, refused by Jinja: {refused}")
    write("snippets.json", {"now": NOW, "context": cases.CONTEXT, "snippets": pairs})


def context_of(conversation, bos, **more):
    tools = cases.TOOLS[:conversation["tools"]] if "tools" in conversation else None
    return {"messages": conversation["messages"], "tools": tools, "documents": None, "add_generation_prompt": True,
            "bos_token": bos, **more}


def digest(text):
    return text if text is None else hashlib.sha256(text.encode()).hexdigest()[:16]


def renderings(env, conversations, sources):
    out = {}
    for path in sorted(OUT.glob("*.jinja")):
        template = path.read_bytes().decode()
        texts = [render(env, template, context_of(c, BOS)) for c in conversations]
        out[path.stem] = [digest(t) for t in texts]
        print(f"{path.stem}: {len(texts)}, refused: {sum(t is None for t in texts)}")
    write("renderings.json", {"bos": BOS, "tools": cases.TOOLS, "conversations": conversations, "templates": out})


def builtin_templates():
    """The templates of chat_builtin.c, as the preprocessor leaves them."""
    source = subprocess.run(["cc", "-E", "-P", "-Isrc", "-Iinclude", "src/token/chat_builtin.c"], cwd=ROOT, check=True,
                            capture_output=True, text=True).stdout
    for name, body in re.findall(r'const char (\w+)\[\]\s*=\s*((?:"(?:\\.|[^"\\])*"\s*)+);', source):
        yield name, "".join(ast.literal_eval(s) for s in re.findall(r'"(?:\\.|[^"\\])*"', body))


def with_objects(conversation):
    """Arguments parsed, as our chat layer gives them to a template."""
    out = json.loads(json.dumps(conversation))
    for message in out["messages"]:
        for one in message.get("tool_calls", []):
            if isinstance(one["function"]["arguments"], str):
                one["function"]["arguments"] = json.loads(one["function"]["arguments"])
    return out


def builtins(env, conversations):
    variables = {
        "deepseek-r1": ("deepseek", BOS, {"joins": True}),
        "deepseek-r1-distill": ("deepseek", BOS, {"joins": False}),
        "chatml": ("chatml", "", {"default_system": None}),
        "llama3": ("llama3", "<|begin_of_text|>", {"trims": True}),
    }
    templates, out = dict(builtin_templates()), {}
    for form, (name, bos, more) in variables.items():
        texts = []
        for c in map(with_objects, conversations):
            text = render(env, templates[name], context_of(c, bos, **more))
            if name == "deepseek" and text is not None:
                text += "<think>\n"
            texts.append(digest(text))
        out[form] = texts
    write("builtin.json", out)


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--add", nargs=2, action="append", default=[], metavar=("NAME", "FILE"))
    args = p.parse_args()
    OUT.mkdir(parents=True, exist_ok=True)
    for name, path in args.add:
        text = gguf_header.read(path)["tokenizer.chat_template"] if path.endswith(".gguf") else pathlib.Path(path).read_bytes().decode()
        if path.endswith(".json"):
            text = json.loads(text)["chat_template"]
        (OUT / f"{name}.jinja").write_bytes(text.encode())
    env = environment()
    conversations = [cases.conversation(seed) for seed in range(N_CONVERSATION)]
    snippets(env)
    renderings(env, conversations, args.add)
    builtins(env, conversations)


if __name__ == "__main__":
    main()
