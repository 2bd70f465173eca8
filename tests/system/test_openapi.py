#!/usr/bin/env python3
"""GET /openapi.json: it is the repository's file, and requests made from it by schemathesis, valid and not, never
get a 5xx. A fixed seed and a bounded number of examples.

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
RUN = [sys.executable, "-c", "from schemathesis.cli import schemathesis; schemathesis()", "run"]


def test_served():
    with open(os.path.join(test_serve.ROOT, "share/openapi.json"), encoding="utf-8") as f:
        ours = json.load(f)
    with test_serve.Server(env={"HOLDFAST_API_KEY": "k3y"}) as s:
        status, headers, served = s.call("GET", "/openapi.json")
        assert status == 200 and headers["Content-Type"] == "application/json"
        assert served == ours


def test_never_5xx():
    if subprocess.run([sys.executable, "-c", "import schemathesis"], capture_output=True).returncode:
        skipped.append("test_never_5xx: no Python package schemathesis here (pip install schemathesis)")
        return
    with test_serve.Server("--ctx", "256") as s, tempfile.TemporaryDirectory() as folder:
        done = subprocess.run([*RUN, f"http://127.0.0.1:{s.port}/openapi.json", "--checks", "not_a_server_error",
                               "--phases", "coverage,fuzzing", "--max-examples", "4", "--seed", "1",
                               "--max-time", str(SECONDS), "--request-timeout", "10", "--continue-on-failure"],
                              capture_output=True, text=True, timeout=SECONDS + 40, cwd=folder,
                              env={**os.environ, "NO_COLOR": "1"})
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-500:]
        tried = set(re.findall(r'^holdfast_http_requests_total{route="([^"]+)"', s.call("GET", "/metrics")[2], re.M))
        assert len(tried) > 20, f"only {tried} were tried"
        assert s.chat(max_tokens=2)[0] == 200, "the server did not survive"


if __name__ == "__main__":
    sys.exit(cases.run(globals(), skipped))
