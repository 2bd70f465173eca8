#!/usr/bin/env python3
"""Compares `holdfast logits --mtp` with the reference of the multi-token-prediction layer.

    tests/golden/check_mtp.py PATH/TO/holdfast [--kernels ref]

tests/golden/mtp/*.json hold the draft's log-probabilities of tiny models (tools/golden/mtp.py). Every file is asked with
all ids as prompt and with the second half one by one, which takes the absorbed form of attention. A checkpoint without
the layer, although its config.json promises it, must run as before and refuse --mtp with a sentence. Standard library
only.
"""
import argparse
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

import check_logits
import table_rows

HERE = pathlib.Path(__file__).resolve().parent


def logits(args, model, tokens, rows, top, *more):
    cmd = [args.binary, "logits", "-m", str(model), "--kernels", args.kernels, "--tokens", ",".join(map(str, tokens)),
           "--at", ",".join(rows), "--top", str(top), *more]
    run = subprocess.run(cmd, capture_output=True, text=True, timeout=120)
    if run.returncode:
        raise ValueError(f"exit {run.returncode}: {run.stderr.strip() or run.stdout.strip()}")
    return json.loads(run.stdout)


def compare(args, ref, file, prompt, form):
    """(what is wrong or '', largest difference)"""
    tokens, rows = prompt["tokens"], prompt["rows"]
    more = ["--prefill", str(len(tokens) // 2)] if form == "absorbed" else []
    got = logits(args, HERE / "models" / file, tokens, list(rows), 2 * max(map(len, rows.values())), "--mtp", *more)
    worst, at = check_logits.worst_difference(got["rows"], rows)
    table_rows.add(check_logits.file_format(ref, file), ref["architecture"], "tiny random model, log-probabilities of the "
                   f"MTP layer's draft: our PyTorch module in F64 and transformers' MtpModel; {form}, kernels {args.kernels}",
                   worst, ref["tolerance"])
    return (at if worst > ref["tolerance"] else ""), worst


def check_absent(args):
    """A folder whose config.json speaks of the layer and whose weights lack it; and an architecture without one."""
    lines = []
    with tempfile.TemporaryDirectory() as tmp:
        folder = pathlib.Path(tmp) / "without"
        shutil.copytree(HERE / "models" / "deepseek-v3", folder)
        config = json.loads((folder / "config.json").read_text())
        config["num_nextn_predict_layers"] = 1
        (folder / "config.json").write_text(json.dumps(config))
        same = [logits(args, m, [5, 6, 7], ["2"], 5)["rows"] for m in (HERE / "models" / "deepseek-v3", folder)]
        lines.append((same[0] == same[1], "promised but absent: the model runs without it"))
        for model in (folder, HERE / "models" / "llama3.gguf"):
            try:
                logits(args, model, [5, 6, 7], ["1"], 5, "--mtp")
                said = "nothing"
            except ValueError as e:
                said = str(e)
            lines.append(("no multi-token-prediction layer" in said, f"{model.name}: --mtp says: {said[:160]}"))
    return lines


def check_next(args, ref):
    """--next gives the log-probability of the id that the draft is about."""
    tokens = ref["prompts"][0]["tokens"]
    got = logits(args, HERE / "models" / ref["files"][0], tokens, ["0", str(len(tokens) - 2)], 320, "--mtp", "--next")
    want = {"0": dict(got["rows"]["0"])[tokens[2]]}
    return got["next"] == want, f"--next: {got['next']}"


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("binary")
    p.add_argument("--kernels", default="ref")
    args = p.parse_args()
    results = check_absent(args)
    for path in sorted(HERE.glob("mtp/*.json")):
        ref = json.loads(path.read_text())
        results.append(check_next(args, ref))
        for file in ref["files"]:
            for prompt in ref["prompts"]:
                for form in ("expanded", "absorbed"):
                    try:
                        wrong, worst = compare(args, ref, file, prompt, form)
                    except (ValueError, KeyError, OSError, subprocess.TimeoutExpired) as e:
                        wrong, worst = str(e), float("inf")
                    results.append((not wrong, f"{file}, {len(prompt['tokens'])} ids, {form}: largest difference {worst:.1e} {wrong}"))
    for ok, text in results:
        print(("ok    " if ok else "FAIL  ") + text)
    passed = sum(ok for ok, _ in results)
    print(f"{passed} passed, {len(results) - passed} failed")
    return 0 if passed == len(results) and len(results) > 4 else 1


if __name__ == "__main__":
    sys.exit(main())
