#!/usr/bin/env python3
"""GET /openapi.json: it is the repository's file, and requests made from it by schemathesis, valid and not, never
get a 5xx; answers to those that are accepted are as it describes them, and a fair share is accepted. A fixed seed and a
bounded number of examples.

Usage: test_openapi.py [HOLDFAST]   (or HOLDFAST_BIN)
"""
import json
import os
import re
import subprocess
import sys
import tempfile

import cases
import test_serve

skipped = []
SECONDS = 15  # for schemathesis; it stops by itself, a little later
MODELS = os.path.join(test_serve.ROOT, "tests/golden/models")
# Of bodies that a route with something to compute has to take, at least: some fifth of what it gets in that time.
ACCEPTED = 5
ROUTES = {"/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages", "/v1/messages/count_tokens", "/api/chat",
          "/api/generate", "/api/embed", "/api/show", "/v1/embeddings", "/v1/rerank", "/tokenize", "/detokenize", "/v1/knowledge_bases"}
RUN = [sys.executable, "-c", "from schemathesis.cli import schemathesis; schemathesis()", "run"]


def test_served():
    with open(os.path.join(test_serve.ROOT, "share/openapi.json"), encoding="utf-8") as f:
        ours = json.load(f)
    with test_serve.Server(env={"HOLDFAST_API_KEY": "k3y"}) as s:
        status, headers, served = s.call("GET", "/openapi.json")
        assert status == 200 and headers["Content-Type"] == "application/json"
        assert served == ours


def run(port, folder, *options):
    """schemathesis, with most bodies made acceptable (schemathesis_hooks.py)."""
    return subprocess.run([*RUN, f"http://127.0.0.1:{port}/openapi.json", "--seed", "1", "--request-timeout", "10", "--continue-on-failure",
                           *options], capture_output=True, text=True, timeout=2 * SECONDS + 60, cwd=folder,
                          env={**os.environ, "NO_COLOR": "1", "SCHEMATHESIS_HOOKS": "schemathesis_hooks",
                               "PYTHONPATH": os.path.dirname(os.path.abspath(__file__)) + ":" + os.environ.get("PYTHONPATH", "")})


def accepted(s):
    """{route: bodies that were taken}"""
    found = re.findall(r'^holdfast_http_requests_total{route="([^"]+)",method="POST",code="20[01]"} (\d+)', s.call("GET", "/metrics")[2], re.M)
    return {route: int(n) for route, n in found}


def test_answers_are_as_described_and_never_5xx():
    if subprocess.run([sys.executable, "-c", "import schemathesis"], capture_output=True).returncode:
        skipped.append("test_answers…: no Python package schemathesis here (pip install schemathesis)")
        return
    others = [word for name in ("enc-bert", "enc-cross") for word in ("-m", os.path.join(MODELS, name))]
    with test_serve.Server("--ctx", "256", *others) as s, tempfile.TemporaryDirectory() as folder:
        # The second run is short and for text alone: the first may spend its time before it gets there.
        for options in (["--max-time", str(SECONDS), "--max-examples", "10", "--phases", "coverage,fuzzing"],
                        ["--max-time", str(SECONDS), "--max-examples", "25", "--phases", "fuzzing", "--include-method", "POST"]):
            done = run(s.port, folder, "--checks", "not_a_server_error,response_schema_conformance", *options)
            assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-500:]
        tried = set(re.findall(r'^holdfast_http_requests_total{route="([^"]+)"', s.call("GET", "/metrics")[2], re.M))
        assert len(tried) > 20, f"only {tried} were tried"
        taken = accepted(s)
        print("      accepted: " + ", ".join(f"{route} {taken.get(route, 0)}" for route in sorted(ROUTES)))
        few = {route: taken.get(route, 0) for route in ROUTES if taken.get(route, 0) < ACCEPTED}
        assert not few, f"hardly a body was accepted: {few}"
        assert s.chat(max_tokens=2)[0] == 200, "the server did not survive"


if __name__ == "__main__":
    sys.exit(cases.run(globals(), skipped))
