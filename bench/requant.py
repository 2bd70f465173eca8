#!/usr/bin/env python3
"""Requantises a real Qwen2.5-Coder GGUF to other types and compares what holdfast computes with each.

    python bench/requant.py BINARY MODEL.gguf [--tools DIR] [--work DIR] [--types Q2_K,IQ3_S,…] [--out FILE.json]

--tools: the folder with llama.cpp's `llama-quantize` and `llama-imatrix` (both build from the PyPI source package
`llama-cpp-python`: cmake -S vendor/llama.cpp …, two targets). Needs the `gguf` package. For every type, one file at a
time, deleted afterwards:
  1. the file is dequantised by the `gguf` package into an F32 twin; `holdfast logits --kernels ref` on both: largest
     difference of log-probabilities over the 1,000 most probable tokens at every position of a short text (at most 1e-3);
  2. the vector kernels against `ref` on the quantised file: mean KL divergence over the texts' positions, and how often
     the most probable token agrees;
  3. `ref` on the quantised file against `ref` on MODEL itself: mean KL, which says what the type costs (this
     judges the quantiser, not holdfast);
  4. `holdfast bench`: speed and memory.
A calibration text for the importance matrix is put together from ../shared/data/qa and this repository's sources.
Results are kept in FILE.json after every type, with a page FILE.md to read, and a type that is in it is not done again;
without --tools they are only shown. A type takes some minutes and 8 GB of disk.
"""
import argparse
import datetime
import json
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests/golden"))
sys.path.insert(0, str(ROOT / "tools/golden"))
import check_real  # noqa: E402
import table_rows  # noqa: E402

TYPES = "Q2_K Q3_K_M Q4_0 Q5_K_M Q6_K Q8_0 IQ4_XS MIXED".split()  # IQ3_S and IQ2_S whole: --types, and an hour each
MAX_DIFFERENCE, MAX_KL = 1e-3, 2e-3
WITH_IMATRIX = ("IQ", "Q2_", "Q3_", "MIXED")
# MIXED: Q4_0, and every other 4-bit and code-book type in the FFN matrices of three layers each. Searching for codes
# takes an hour of two cores for a whole 1.5B, minutes for this.
MIXED = "iq1_s iq1_m iq2_xxs iq2_xs iq2_s iq3_xxs iq3_s iq4_nl iq4_xs".split()
TEXTS, LENGTH, TWIN_LENGTH = ("en-story", "zh-handbook"), 24, 12


def run(cmd, **kw):
    done = subprocess.run(list(map(str, cmd)), capture_output=True, text=True, **kw)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, cmd))[:300]}: exit {done.returncode}: {done.stderr[-800:]}")
    return done.stdout


def texts():
    """The first tokens of some of the golden texts."""
    golden = json.loads((ROOT / "tests/golden/real/qwen2.5-coder-1.5b.json").read_text())
    return [t["tokens"][:LENGTH] for t in golden["texts"] if t["name"] in TEXTS]


def logits(binary, model, kernels, tokens, top):
    out = run([binary, "logits", "-m", model, "--kernels", kernels, "--tokens", ",".join(map(str, tokens)), "--at",
               ",".join(map(str, range(len(tokens)))), "--top", top])
    rows = json.loads(out)["rows"]
    return [dict(rows[str(i)]) for i in range(len(tokens))]


def all_rows(binary, model, kernels):
    return [row for tokens in texts() for row in logits(binary, model, kernels, tokens, 20000)]


def compare(want, got):
    """Mean KL and share of equal best tokens, got against want."""
    kls = [check_real.kl(a, b) for a, b in zip(want, got)]
    same = sum(next(iter(a)) == next(iter(b)) for a, b in zip(want, got))
    return {"mean_kl": sum(kls) / len(kls), "max_kl": max(kls), "same_best": same, "positions": len(kls)}


def calibration(path):
    """Some paragraphs in English and Chinese, and code."""
    shared = pathlib.Path(os.environ.get("HOLDFAST_SHARED", ROOT.parent / "shared"))
    parts = []
    for name in ("xquad_en_24.json", "xquad_zh_24.json"):
        data = json.loads((shared / "data/qa" / name).read_text())["data"]
        parts += [p["context"] for article in data for p in article["paragraphs"]][:12]
    parts.append((ROOT / "src/store/gguf.c").read_text()[:6000])
    path.write_text("\n\n".join(parts))


def twin_difference(binary, model, twin):
    import f32_twin
    f32_twin.write(model, twin)
    tokens = texts()[0][:TWIN_LENGTH]
    ours, want = (logits(binary, m, "ref", tokens, 1000) for m in (model, twin))
    twin.unlink()
    # The thousandth place may fall differently; compare what both list, which must be nearly all.
    common = [set(a) & set(b) for a, b in zip(ours, want)]
    assert min(map(len, common)) > 980
    return max(abs(a[i] - b[i]) for a, b, ids in zip(ours, want, common) for i in ids)


def quantise(args, kind):
    """The file of the type; made under another name first, so that one that is there is whole."""
    model, part = args.work / f"{kind}.gguf", args.work / "part.gguf"
    if not model.exists():
        cmd = [args.tools / "llama-quantize", "--allow-requantize"]
        if kind.startswith(WITH_IMATRIX):
            cmd += ["--imatrix", args.work / "imatrix.gguf"]
        if kind == "MIXED":
            for i, name in enumerate(MIXED):
                layers = "|".join(str(3 * i + n) for n in range(3))
                cmd += ["--tensor-type", rf"blk\.({layers})\.ffn_(up|down)={name}"]
        run(cmd + [args.model, part, "Q4_0" if kind == "MIXED" else kind, "2"])
        part.rename(model)
    return model


def source_rows(args):
    """The model's own rows under ref: alike for all types, so kept beside the work."""
    kept = args.work / "source.json"
    if not kept.exists():
        kept.write_text(json.dumps(all_rows(args.binary, args.model, "ref")))
    return [{int(i): v for i, v in row.items()} for row in json.loads(kept.read_text())]


def one_type(args, kind, source):
    model = quantise(args, kind)
    inspect = json.loads(run([args.binary, "inspect", model, "--json"]))
    ref = all_rows(args.binary, model, "ref")
    result = {
        "date": datetime.date.today().isoformat(), "bytes": model.stat().st_size,
        "imatrix": kind.startswith(WITH_IMATRIX), "types": {k: v["tensors"] for k, v in inspect["types"].items()},
        "twin_largest_difference": twin_difference(args.binary, model, args.work / "twin.gguf"),
        "vector_vs_ref": compare(ref, all_rows(args.binary, model, "auto")),
        "ref_vs_source": compare(source, ref),
        "bench": json.loads(run([args.binary, "bench", "-m", model, "-p", 128, "-n", 24, "--json"])),
        "load_average": round(os.getloadavg()[0], 1),
    }
    model.unlink()
    return result


def kl_limit(r):
    """A type that has cost the model most of its certainty shakes more at the same rounding."""
    return max(MAX_KL, r["ref_vs_source"]["mean_kl"] / 100)


def show(kind, r):
    print(f"{kind:8} {r['bytes'] / 1e9:6.3f} GB  twin {r['twin_largest_difference']:.1e}  "
          f"KL {r['vector_vs_ref']['mean_kl']:.1e}, best token {r['vector_vs_ref']['same_best']}"
          f"/{r['vector_vs_ref']['positions']}  cost {r['ref_vs_source']['mean_kl']:.3f}  "
          + (f"{r['bench']['prefill_tps']:.1f} and {r['bench']['decode_tps']:.1f} tok/s" if r["load_average"] < 3 else
             "speed not shown: the machine was busy"), flush=True)
    name = "Qwen2.5-Coder-1.5B requantised, "
    table_rows.add(f"GGUF {kind}", "qwen2", name + "log-probabilities: its twin, decoded to F32 by the gguf package, "
                   f"{TWIN_LENGTH} positions, kernels ref", r["twin_largest_difference"], MAX_DIFFERENCE)
    table_rows.add(f"GGUF {kind}", "qwen2", name + f"mean KL over {r['vector_vs_ref']['positions']} positions: the default "
                   "kernels against ref", r["vector_vs_ref"]["mean_kl"], kl_limit(r))


PAGE = """# Qwen2.5-Coder-1.5B requantised

Written by `bench/requant.py` from `{json}`; the source is the Q4_K_M file, requantised by llama.cpp's `llama-quantize`
(with an importance matrix where marked). *Twin*: largest difference of log-probabilities between the file and its F32
twin, decoded by the `gguf` package, both with `--kernels ref`, {twin} positions, the 1,000 most probable tokens; at most
1e-3. *KL*: mean divergence of the vector kernels from `ref`; at most 2e-3 or a hundredth of *cost*. *Cost*: mean divergence of the type from the
source, which judges the quantiser. Speeds of a machine that was busy with other work are left out. MIXED is Q4_0 with
{mixed} in the FFN matrices of three layers each: searching for the codes of a whole 1.5B takes an hour.

| type | date | GB | imatrix | twin | KL | same best token | cost | prompt, decode tok/s |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |
"""


def page(results, json_name):
    out = PAGE.format(json=json_name, twin=TWIN_LENGTH, mixed=", ".join(MIXED).upper())
    for kind in [k for k in TYPES if k in results] + [k for k in results if k not in TYPES]:
        r = results[kind]
        speed = (f"{r['bench']['prefill_tps']:.1f}, {r['bench']['decode_tps']:.1f}" if r["load_average"] < 3 else "")
        out += (f"| {kind} | {r['date']} | {r['bytes'] / 1e9:.3f} | {'yes' if r['imatrix'] else ''} | "
                f"{r['twin_largest_difference']:.1e} | {r['vector_vs_ref']['mean_kl']:.1e} | "
                f"{r['vector_vs_ref']['same_best']} of {r['vector_vs_ref']['positions']} | "
                f"{r['ref_vs_source']['mean_kl']:.3f} | {speed} |\n")
    absent = [k for k in TYPES if k not in results]
    return out + (f"\nNot run yet: {', '.join(absent)}.\n" if absent else "")


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("binary", nargs="?")
    p.add_argument("model", nargs="?")
    p.add_argument("--tools", type=pathlib.Path)
    p.add_argument("--work", type=pathlib.Path, default=pathlib.Path("/tmp/requant"))
    p.add_argument("--types", default=",".join(TYPES))
    p.add_argument("--out", type=pathlib.Path, default=ROOT / "bench/results/requant-qwen2.5-coder-1.5b.json")
    args = p.parse_args()
    results = json.loads(args.out.read_text()) if args.out.exists() else {}
    imatrix, source = args.work / "imatrix.gguf", None
    if args.tools:
        args.work.mkdir(parents=True, exist_ok=True)
    if args.tools and not imatrix.exists():
        calibration(args.work / "calibration.txt")
        run([args.tools / "llama-imatrix", "-m", args.model, "-f", args.work / "calibration.txt", "-o", imatrix,
             "-c", "512", "--chunks", "10", "-t", "2"])
    for kind in args.types.split(","):
        if kind not in results and args.tools:
            source = source or source_rows(args)
            results[kind] = one_type(args, kind, source)
            args.out.write_text(json.dumps(results, indent=1) + "\n")
        if kind in results:
            show(kind, results[kind])
    if results:
        args.out.with_suffix(".md").write_text(page(results, args.out.name))
    bad = [k for k, r in results.items() if r["twin_largest_difference"] > MAX_DIFFERENCE
           or r["vector_vs_ref"]["mean_kl"] > kl_limit(r)]
    print(f"{len(results) - len(bad)} passed, {len(bad)} failed" + (f" ({', '.join(bad)})" if bad else ""))
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
