"""Tables and plots of the records in bench/results/peers-*.json.

    tables(record)   one state of the code as Markdown: rates, ratios, targets
    write(folder)    folder/README.md with all states, peers-ratio.svg and peers-decode.svg
"""
import html
import json
import statistics

OURS = "holdfast"
# What is aimed at, by the class of kernels: ratios to peers in prefill by type of the weights (llama.cpp's best, and
# ik_llama.cpp's best), the share of the probed bandwidth in decode, and ratios between our own rows.
PREFILL = {"avx2": {"Q4_0": (3.0, 2.0), "Q4_K": (2.5, None), "Q8_0": (2.0, None), "moe": (None, 1.7)},
           "avx512": {"": (2.5, 1.5)}, "amx": {"": (6.0, 5.0)}}
DECODE_SHARE = 0.90
BATCH = {"avx2": {8: 3.5, 16: 4.0}, "avx512": {8: 4.0, 16: 6.0}, "amx": {8: 4.0, 16: 6.0}}
BATCH_Q8 = {8: 4.5}


def median(row, name, key):
    """The median of a program's rounds, or None."""
    values = [r[key] for r in row["runs"].get(name, []) if key in r]
    return statistics.median(values) if values else None


def isa(row):
    runs = row["runs"].get(OURS) or [{}]
    return runs[0].get("isa", row["kernels"])


def peers_of(record):
    names = []
    for row in record["rows"]:
        names += [n for n in row["runs"] if n != OURS and n not in names]
    return sorted(names, key=lambda n: ("ik" in n, n))


def family(row, key, ik):
    """The best median among llama.cpp's forms, or ik_llama.cpp's."""
    values = [median(row, n, key) for n in row["runs"] if n != OURS and ("ik" in n) == ik]
    return max(values, default=None)


def ratio(a, b):
    return a / b if a and b else None


def read_gbps(row):
    """Bytes per second that decode reads: weights, and KV for each sequence."""
    tps, runs = median(row, OURS, "decode_tps"), row["runs"].get(OURS) or [{}]
    weights = runs[0].get("weight_bytes_per_token")
    if not tps or not weights:
        return None
    return tps * (weights / row["batch"] + row.get("kv_bytes_per_token", 0)) / 1e9


def share(row):
    """Of the bandwidth probed in the same run: the median over rounds of the ratios."""
    shares = []
    for r in row["runs"].get(OURS, []):
        if r.get("probe_read_gbps") and r.get("weight_bytes_per_token"):
            read = r["decode_tps"] * (r["weight_bytes_per_token"] / row["batch"] + row.get("kv_bytes_per_token", 0)) / 1e9
            shares.append(read / r["probe_read_gbps"])
    return statistics.median(shares) if shares else None


def prefill_targets(row):
    table = PREFILL.get(isa(row), {})
    if row["suite"].startswith("moe"):
        return table.get("moe", table.get("", (None, None)))
    kind = next((k for k in ("Q4_0", "Q4_K", "Q8_0") if k in row["label"]), None)
    return table.get(kind, table.get("", (None, None)))


def number(value, digits=1):
    return "–" if value is None else f"{value:.{digits}f}"


def against(value, target, digits=2):
    """"2.61 of 2.5 ✓": a figure beside what is aimed at."""
    if value is None:
        return "–"
    if target is None:
        return f"{value:.{digits}f}"
    return f"{value:.{digits}f} {'✓' if value >= target else '✗'} ({target:g})"


def markdown(head, rows):
    out = ["| " + " | ".join(head) + " |", "| " + " | ".join(["---"] * len(head)) + " |"]
    return "\n".join(out + ["| " + " | ".join(r) + " |" for r in rows])


def peer_table(record, rows):
    names = peers_of({"rows": rows})
    head = ["file", "prompt, answer", "kernels", "Holdfast prefill", "decode", *(f"{n}" for n in names), "prefill : llama.cpp", ": ik",
            "decode : llama.cpp", ": ik", "of probed bandwidth"]
    out = []
    for row in rows:
        want_l, want_i = prefill_targets(row)
        pre, dec = median(row, OURS, "prefill_tps"), median(row, OURS, "decode_tps")
        cells = [f"{number(median(row, n, 'prefill_tps'))} / {number(median(row, n, 'decode_tps'))}" for n in names]
        out.append([row["label"], f"{row['p']}, {row['n']}", isa(row), number(pre), number(dec), *cells,
                    against(ratio(pre, family(row, "prefill_tps", False)), want_l),
                    against(ratio(pre, family(row, "prefill_tps", True)), want_i),
                    against(ratio(dec, family(row, "decode_tps", False)), None),
                    against(ratio(dec, family(row, "decode_tps", True)), None), against(share(row), DECODE_SHARE)])
    return markdown(head, out)


def batch_table(rows):
    head = ["file", "kernels", "sequences", "tokens/s, all together", "times one sequence"]
    single = {(r["label"].rsplit(",", 1)[0], r["kernels"]): median(r, OURS, "decode_tps") for r in rows if r["batch"] == 1}
    out = []
    for row in rows:
        name = row["label"].rsplit(",", 1)[0]
        want = BATCH.get(isa(row), {}).get(row["batch"])
        if "Q8_0" in name:
            want = max(want or 0, BATCH_Q8.get(row["batch"], 0)) or None
        tps = median(row, OURS, "decode_tps")
        out.append([name, isa(row), str(row["batch"]), number(tps), against(ratio(tps, single.get((name, row["kernels"]))), want)])
    return markdown(head, out)


def context_table(rows):
    head = ["file", "kernels", "position", "prefill", "of 512", "decode", "of 512", "of probed bandwidth, KV included"]
    base = {r["kernels"]: r for r in rows if r["p"] == 512}
    out = []
    for row in rows:
        first = base.get(row["kernels"])
        pre, dec = (ratio(median(row, OURS, k), median(first, OURS, k)) if first else None for k in ("prefill_tps", "decode_tps"))
        out.append([row["label"].rsplit(",", 1)[0], isa(row), str(row["p"]), number(median(row, OURS, "prefill_tps")),
                    against(pre, 0.6 if row["p"] == 8192 else None), number(median(row, OURS, "decode_tps")),
                    against(dec, 0.7 if row["p"] == 16384 else None), number(share(row), 2)])
    return markdown(head, out)


def threads_table(rows):
    head = ["file", "kernels", "threads asked for", "prefill", "of 2 threads", "of 1 thread", "decode", "of 2 threads"]
    by = {(r["kernels"], r["t"], r["suite"].startswith("busy")): r for r in rows}
    out = []
    for row in rows:
        one, two = by.get((row["kernels"], 1, False)), by.get((row["kernels"], 2, False))
        pre, dec = median(row, OURS, "prefill_tps"), median(row, OURS, "decode_tps")
        busy = row["suite"].startswith("busy")
        floor = 0.6 if busy else 0.9 if row["t"] > 2 else None
        of_two = [against(ratio(v, median(two, OURS, k)) if two and two is not row else None, floor)
                  for v, k in ((pre, "prefill_tps"), (dec, "decode_tps"))]
        out.append([row["label"], isa(row), str(row["t"]), number(pre), of_two[0],
                    against(ratio(pre, median(one, OURS, "prefill_tps")) if one and row["t"] == 2 and not busy else None, 1.9),
                    number(dec), of_two[1]])
    return markdown(head, out)


def probes(record):
    """Medians of the probes, by kernels."""
    found = {}
    for row in record["rows"]:
        for r in row["runs"].get(OURS, []):
            if r.get("probe_read_gbps") and r.get("threads") == 2:
                found.setdefault(r.get("isa", "?"), []).append((r["probe_read_gbps"], r["probe_int8_tops"]))
    return "; ".join(f"{k}: {statistics.median(v[0] for v in values):.1f} GB/s read, "
                     f"{statistics.median(v[1] for v in values):.2f} TOPS int8 in L1" for k, values in sorted(found.items()))


def machine_line(record):
    m = record["machine"]
    cpu = f"{m['processor']} (family {m['family']}, model {m['model']})" if m.get("family") else m["processor"]
    return f"{cpu}, {m.get('cores') or '?'} cores, {', '.join(m.get('flags', []))}; 2 threads. Probed {probes(record)}."


def tables(record):
    """One state as Markdown."""
    def of(*names):
        return [r for r in record["rows"] if r["suite"].removesuffix("-avx2") in names and r["runs"]]
    parts = [machine_line(record)]
    if of("real", "types", "large", "moe"):
        parts += ["Tokens per second; of peers prefill / decode; ratios to the best form of each peer; ✓ or ✗ and in brackets "
                  "what is aimed at.", peer_table(record, of("real", "types", "large", "moe"))]
    if of("batch"):
        parts += ["Several sequences decoded together:", batch_table(of("batch"))]
    if of("context"):
        parts += ["Long contexts:", context_table(of("context"))]
    if of("threads", "busy"):
        parts += ["Threads, on two cores:", threads_table(of("threads", "busy"))]
    failed = [f"{r['label']}: {name}: {why}" for r in record["rows"] for name, why in r.get("failed", {}).items()
              if not r["runs"].get(name)]
    if failed:
        parts.append("Could not be measured: " + "; ".join(failed) + ".")
    return "\n\n".join(parts)


# --- plots --------------------------------------------------------------------------------------------------------

COLOURS = ["#1f6feb", "#d1861f", "#2da44e", "#a0439c", "#cf222e", "#57606a"]


def svg(title, series, labels, marks, unit):
    """Grouped bars: series {name: [value or None per label]}; marks: dashed lines {name: value}."""
    width, left, top, height = max(640, 60 + len(labels) * (26 * len(series) + 22)), 52, 46, 240
    peak = max([v for vs in series.values() for v in vs if v] + list(marks.values()) + [1e-9]) * 1.12
    step = (width - left - 20) / max(1, len(labels))
    bar = min(24, (step - 14) / max(1, len(series)))
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{top + height + 96}" font-family="sans-serif" '
           f'font-size="11"><rect width="100%" height="100%" fill="#ffffff"/>',
           f'<text x="{left}" y="18" font-size="14">{html.escape(title)}</text>']
    for i, name in enumerate(series):
        x = left + i * 150
        out.append(f'<rect x="{x}" y="26" width="10" height="10" fill="{COLOURS[i % 6]}"/><text x="{x + 14}" y="35">{html.escape(name)}</text>')

    def y(value):
        return top + height - value / peak * height
    tick = next(s * 10 ** e for e in range(-3, 6) for s in (1, 2, 5) if peak <= 6 * s * 10 ** e)
    for i in range(int(peak / tick) + 1):
        v = tick * i
        out.append(f'<line x1="{left}" x2="{width - 10}" y1="{y(v):.1f}" y2="{y(v):.1f}" stroke="#d0d7de"/>'
                   f'<text x="{left - 6}" y="{y(v) + 4:.1f}" text-anchor="end">{v:.3g}</text>')
    for j, label in enumerate(labels):
        x0 = left + 8 + j * step
        for i, values in enumerate(series.values()):
            if values[j]:
                x = x0 + i * bar
                out.append(f'<rect x="{x:.1f}" y="{y(values[j]):.1f}" width="{bar - 2:.1f}" height="{top + height - y(values[j]):.1f}" '
                           f'fill="{COLOURS[i % 6]}"/><text x="{x + bar / 2 - 1:.1f}" y="{y(values[j]) - 3:.1f}" text-anchor="middle" '
                           f'font-size="9">{values[j]:.3g}</text>')
        out.append(f'<text transform="translate({x0 + 6:.1f},{top + height + 12}) rotate(22)">{html.escape(label)}</text>')
    for name, value in marks.items():
        out.append(f'<line x1="{left}" x2="{width - 10}" y1="{y(value):.1f}" y2="{y(value):.1f}" stroke="#24292f" stroke-dasharray="5 4"/>'
                   f'<text x="{width - 12}" y="{y(value) - 4:.1f}" text-anchor="end">{html.escape(name)}</text>')
    out.append(f'<text x="{left - 44}" y="{top - 6}">{html.escape(unit)}</text></svg>')
    return "\n".join(out) + "\n"


def short(row):
    return row["label"].removesuffix(", real") + (" avx2" if row["kernels"] == "avx2" else "")


def ratio_plot(record):
    rows = [r for r in record["rows"] if r["suite"].removesuffix("-avx2") in ("real", "types", "large", "moe")]
    series = {}
    for name, key, ik in (("prefill : llama.cpp", "prefill_tps", False), ("prefill : ik", "prefill_tps", True),
                          ("decode : llama.cpp", "decode_tps", False), ("decode : ik", "decode_tps", True)):
        values = [ratio(median(r, OURS, key), family(r, key, ik)) for r in rows]
        if any(values):
            series[name] = values
    return svg(f"Holdfast's speed as a multiple of its peers' ({record['commit']}, {record['date'][:10]})", series,
               [short(r) for r in rows], {"equal": 1.0}, "times")


def key_rows(record):
    """The rows that the history follows."""
    for row in record["rows"]:
        if row["suite"] in ("real", "types", "moe", "types-avx2", "real-avx2") and row["runs"].get(OURS):
            yield row


def history_table(records):
    head = ["date", "state", "file", "kernels", "prefill", "decode", "prefill : llama.cpp", ": ik", "decode : llama.cpp", ": ik",
            "of probed bandwidth"]
    out = []
    for record in records:
        for row in key_rows(record):
            pre, dec = median(row, OURS, "prefill_tps"), median(row, OURS, "decode_tps")
            out.append([record["date"][:16].replace("T", " "), f"`{record['commit']}`", row["label"], isa(row), number(pre), number(dec),
                        *(number(ratio(v, family(row, k, ik)), 2) for v, k in ((pre, "prefill_tps"), (dec, "decode_tps")) for ik in (False, True)),
                        number(share(row), 2)])
    return markdown(head, out)


def history_plot(records):
    labels = [r["commit"] for r in records]
    series = {}
    for size in ("1.5B", "0.5B"):
        for key, what in (("prefill_tps", "prefill"), ("decode_tps", "decode")):
            values = []
            for record in records:
                row = next((r for r in key_rows(record) if r["suite"] == "real" and r["label"].startswith(size)), None)
                values.append(ratio(median(row, OURS, key), family(row, key, False)) if row else None)
            if any(values):
                series[f"{size} {what}"] = values
    return svg("Real files: multiple of the best llama.cpp in the same run, state by state", series, labels, {"equal": 1.0}, "times")


def write(folder):
    records = [json.loads(p.read_text()) for p in sorted(folder.glob("peers-*.json"))]
    records.sort(key=lambda r: r["date"])
    text = ["# Results", "", "Made by `python3 bench/peers` (`--report` makes it anew); what is measured and how: [measuring.md](../../docs/measuring.md). "
"Other results lie beside this page.", ""]
    if records:
        latest = max(records, key=lambda r: (len(r["rows"]) >= 3, r["date"]))
        (folder / "peers-ratio.svg").write_text(ratio_plot(latest))
        (folder / "peers-history.svg").write_text(history_plot(records))
        text += [f"## State `{latest['commit']}`, {latest['date'][:10]}", "", "![ratios](peers-ratio.svg)", "", tables(latest), "",
                 "## History", "", "Ratios compare within one run; absolute figures only on one machine at rest.", "",
                 "![history](peers-history.svg)", "", history_table(records), ""]
    (folder / "README.md").write_text("\n".join(text))
