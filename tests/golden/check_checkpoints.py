#!/usr/bin/env python3
"""Quantised Hugging Face folders against their dequantised F32 twins, both run by holdfast.

    tests/golden/check_checkpoints.py PATH/TO/holdfast [NAME…]

Each folder of tests/golden/models whose config.json has quantization_config is decoded here, by the published
formulas, one weight at a time and with the standard library alone, into a plain F32 folder. `--kernels ref` must
give the same log-probabilities for both to 1e-3; the kernels of this machine stay below a mean KL of 1e-2 from them.
"""
import json
import math
import pathlib
import struct
import subprocess
import sys
import tempfile

import table_rows

HERE = pathlib.Path(__file__).resolve().parent
LIMIT, LIMIT_KL = 1e-3, 1e-2
AWQ_NIBBLE = [0, 4, 1, 5, 2, 6, 3, 7]  # where column 8c + j of a word lies


def read_safetensors(path):
    raw = path.read_bytes()
    n = struct.unpack("<Q", raw[:8])[0]
    head = json.loads(raw[8:8 + n])
    head.pop("__metadata__", None)
    return {k: (v["dtype"], v["shape"], raw[8 + n + v["data_offsets"][0]:8 + n + v["data_offsets"][1]])
            for k, v in head.items()}


def write_safetensors(path, tensors):
    head, at = {}, 0
    for k, (shape, data) in tensors.items():
        head[k] = {"dtype": "F32", "shape": shape, "data_offsets": [at, at + len(data)]}
        at += len(data)
    text = json.dumps(head).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(d for _, d in tensors.values()))


def f32(v):
    return struct.unpack("<f", struct.pack("<f", v))[0]


def numbers(tensor):
    dtype, _, data = tensor
    if dtype == "BF16":
        return [struct.unpack("<f", b"\0\0" + data[i:i + 2])[0] for i in range(0, len(data), 2)]
    code, size = {"F32": ("f", 4), "F16": ("e", 2), "I32": ("I", 4), "U8": ("B", 1)}[dtype]
    return list(struct.unpack(f"<{len(data) // size}{code}", data))


def e4m3(v):
    exponent, mantissa = v >> 3 & 15, v & 7
    size = mantissa * 2.0 ** -9 if exponent == 0 else (1 + mantissa / 8) * 2.0 ** (exponent - 7)
    return -size if v & 128 else size


def decode_fp8(t, prefix, config):
    _, (n_out, n_in), q = t[prefix + "weight"]
    scale, wide = numbers(t[prefix + "weight_scale_inv"]), -(-n_in // 128)
    return [n_out, n_in], [f32(e4m3(q[o * n_in + i]) * scale[o // 128 * wide + i // 128])
                           for o in range(n_out) for i in range(n_in)]


def decode_awq(t, prefix, config):
    n_in, words = t[prefix + "qweight"][1]
    q, z, s = (numbers(t[prefix + k]) for k in ("qweight", "qzeros", "scales"))
    group, n_out = config["group_size"], words * 8

    def at(v, row, o):
        return v[row * words + o // 8] >> 4 * AWQ_NIBBLE[o % 8] & 15
    return [n_out, n_in], [(at(q, i, o) - at(z, i // group, o)) * s[i // group * n_out + o]
                           for o in range(n_out) for i in range(n_in)]


def decode_gptq(t, prefix, config):
    bits, per = config["bits"], 32 // config["bits"]
    n_out, mask = t[prefix + "qweight"][1][1], (1 << bits) - 1
    q, z, s, g = (numbers(t[prefix + k]) for k in ("qweight", "qzeros", "scales", "g_idx"))
    if config["checkpoint_format"] == "gptq":
        z = [(v + sum(1 << bits * i for i in range(per))) & 0xffffffff for v in z]
    return [n_out, len(g)], [
        ((q[i // per * n_out + o] >> bits * (i % per) & mask)
         - (z[g[i] * (n_out // per) + o // per] >> bits * (o % per) & mask)) * s[g[i] * n_out + o]
        for o in range(n_out) for i in range(len(g))]


def decode_bnb(t, prefix, config):
    w = prefix + "weight"
    state = json.loads(t[f"{w}.quant_state.bitsandbytes__{config['bnb_4bit_quant_type']}"][2])
    scale, code, q = numbers(t[w + ".absmax"]), numbers(t[w + ".quant_map"]), t[w][2]
    if w + ".nested_absmax" in t:
        outer, table = numbers(t[w + ".nested_absmax"]), numbers(t[w + ".nested_quant_map"])
        scale = [f32(f32(table[v] * outer[i // state["nested_blocksize"]]) + f32(state["nested_offset"]))
                 for i, v in enumerate(scale)]
    n = state["shape"][0] * state["shape"][1]
    return state["shape"], [f32(code[q[i // 2] >> 4 * (1 - i % 2) & 15] * scale[i // state["blocksize"]]) for i in range(n)]


def write_twin(folder, twin, config):
    quant = config.pop("quantization_config")
    method = quant["quant_method"]
    mark, decode = {"fp8": ("weight_scale_inv", decode_fp8), "awq": ("qweight", decode_awq),
                    "gptq": ("qweight", decode_gptq), "bitsandbytes": ("weight.quant_map", decode_bnb)}[method]
    t = {}
    for path in sorted(folder.glob("*.safetensors")):
        t.update(read_safetensors(path))
    prefixes = [k[:-len(mark)] for k in t if k.endswith("." + mark)]
    parts = {k for p in prefixes for k in t if k.startswith(p) and k != p + "bias"}
    plain = {k: (v[1], struct.pack(f"<{len(n := numbers(v))}f", *n)) for k, v in t.items() if k not in parts}
    for p in prefixes:
        shape, values = decode(t, p, quant)
        plain[p + "weight"] = (shape, struct.pack(f"<{len(values)}f", *values))
    twin.mkdir()
    (twin / "config.json").write_text(json.dumps(config))
    write_safetensors(twin / "model.safetensors", plain)
    return len(prefixes)


def ask(binary, model, kernels, prompt, top):
    cmd = [binary, "logits", "-m", str(model), "--kernels", kernels, "--tokens", ",".join(map(str, prompt["tokens"])),
           "--at", ",".join(prompt["rows"]), "--top", str(top)]
    run = subprocess.run(cmd, capture_output=True, text=True, timeout=60)
    if run.returncode:
        raise ValueError(f"exit {run.returncode}: {run.stderr.strip()}")
    return {r: dict((int(i), v) for i, v in row) for r, row in json.loads(run.stdout)["rows"].items()}


def main():
    binary, names = sys.argv[1], sys.argv[2:]
    passed = failed = 0
    print(f"{'checkpoint':24} {'matrices':>8} {'ref, to its twin':>17} {'this machine, KL':>17}")
    for path in sorted(HERE.glob("models/*/config.json")):
        config = json.loads(path.read_text())
        name = path.parent.name
        if "quantization_config" not in config or (names and name not in names):
            continue
        prompts = json.loads((HERE / "logits" / f"{name}.json").read_text())["prompts"]
        try:
            with tempfile.TemporaryDirectory() as tmp:
                n = write_twin(path.parent, pathlib.Path(tmp) / "twin", dict(config))
                worst = kl = rows = 0
                for prompt in prompts:
                    want = ask(binary, pathlib.Path(tmp) / "twin", "ref", prompt, config["vocab_size"])
                    got = ask(binary, path.parent, "ref", prompt, config["vocab_size"])
                    fast = ask(binary, path.parent, "auto", prompt, config["vocab_size"])
                    for r, row in want.items():
                        worst = max(worst, max(abs(v - got[r][i]) for i, v in row.items()))
                        kl += sum(math.exp(v) * (v - fast[r][i]) for i, v in row.items())
                        rows += 1
            ok = n > 0 and worst <= LIMIT and kl / rows <= LIMIT_KL
            note = json.loads((HERE / "logits" / f"{name}.json").read_text())["note"]
            what = f"tiny random model, log-probabilities, {rows} positions: "
            table_rows.add("safetensors " + note, config["model_type"].replace("_", "-"),
                           what + "its F32 twin decoded in plain Python, kernels ref", worst, LIMIT)
            table_rows.add("safetensors " + note, config["model_type"].replace("_", "-"),
                           what + "mean KL from that twin, this machine's kernels", kl / rows, LIMIT_KL)
            text = f"{n:8} {worst:17.1e} {kl / rows:17.1e} {'' if ok else 'FAIL'}"
        except (ValueError, KeyError, OSError, subprocess.TimeoutExpired) as e:
            ok, text = False, f"FAIL {type(e).__name__}: {e}"
        passed, failed = passed + ok, failed + (not ok)
        print(f"{name:24} {text}")
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
