"""What the answer benchmarks share: question sets, scoring, a server to ask, results kept per line."""

import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import unicodedata

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
SHARED = os.environ.get("HOLDFAST_SHARED") or os.path.join(ROOT, "..", "shared")

SETS = {  # file, language
    "cmrc": ("cmrc2018_trial.json", "zh"),
    "drcd": ("drcd_dev.json", "zh"),
    "squad": ("squad_super_bowl_50.json", "en"),
    "xquad_en": ("xquad_en_24.json", "en"),
    "xquad_zh": ("xquad_zh_24.json", "zh"),
}


# --- the question sets ---------------------------------------------------------------------------


def load_set(name):
    """Passages, and questions as {id, question, answers, passage}, in the file's order."""
    file, lang = SETS[name]
    with open(os.path.join(SHARED, "data", "qa", file), encoding="utf-8") as f:
        data = json.load(f)["data"]
    passages, questions = [], []
    for article in data:
        for paragraph in article["paragraphs"]:
            for qa in paragraph["qas"]:
                answers = sorted({a["text"] for a in qa["answers"] if normalise(a["text"])})
                if qa["question"].strip() and answers:
                    questions.append({"id": len(questions), "question": qa["question"].strip(),
                                      "answers": answers, "passage": len(passages)})
            passages.append(paragraph["context"])
    return passages, questions, lang


def spread(items, count, start=0.0):
    """`count` of the items, evenly spaced; `start` in 0..1 shifts them within a step."""
    if count >= len(items):
        return list(items)
    step = len(items) / count
    return [items[int((i + start) * step)] for i in range(count)]


def document_name(i):
    return "p%04d.txt" % i


# --- scoring ---------------------------------------------------------------------------------------


def normalise(text, numbers=False):
    """NFKC, lower case, without punctuation and spaces. With `numbers`, % and the point inside a
    number stay, and the comma between its thousands goes as elsewhere."""
    text = unicodedata.normalize("NFKC", text).lower()
    kept = []
    for i, c in enumerate(text):
        if numbers and c == "%":
            kept.append(c)
        elif numbers and c == "." and 0 < i < len(text) - 1 and text[i - 1].isdigit() and \
                text[i + 1].isdigit():
            kept.append(c)
        elif not c.isspace() and unicodedata.category(c)[0] not in "PZ":
            kept.append(c)
    return "".join(kept)


MARK = re.compile(r"\[\s*(?:citation|webpage|passage|document|source|资料|网页)?\s*[::]?\s*"
                  r"(?:webpage|passage|document|资料|网页)?\s*(\d+)\s*(?:begin|end)?\s*\]", re.I)


def contains(answer, golds, numbers=False):
    """Whether the answer contains one of the golds. With `numbers`, a gold that begins or ends with
    a digit must not be part of a longer number."""
    text = normalise(MARK.sub(" ", answer), numbers)
    for gold in golds:
        gold = normalise(gold, numbers)
        at = text.find(gold) if gold else -1
        while at >= 0:
            before, after = text[max(0, at - 1):at], text[at + len(gold):][:1]
            inside = numbers and ((gold[0].isdigit() and (before.isdigit() or before == ".")) or
                                  (gold[-1].isdigit() and after.isdigit()))
            if not inside:
                return True
            at = text.find(gold, at + 1)
    return False


NOT_FOUND = re.compile(r"not found|not (?:mentioned|specified|provided|stated|given|contain)|"
                       r"no (?:answer|information)|does not|cannot be|未找到|没有找到|没有答案|"
                       r"未提及|没有提及|没有提到|未提到|无法", re.I)


def says_not_found(answer):
    """Whether a plain model's answer says that the documents do not answer."""
    return not answer.strip() or bool(NOT_FOUND.search(answer))


def first_mark(answer):
    found = MARK.search(answer)
    return int(found.group(1)) if found else None


def share(values):
    values = list(values)
    return sum(1 for v in values if v) / len(values) if values else None


def cell(value, digits=2):
    return "–" if value is None else "%.*f" % (digits, value)


# --- the program -------------------------------------------------------------------------------------


def find_binary(given=None):
    for path in (given, os.environ.get("HOLDFAST_BIN"),
                 os.path.join(ROOT, "build", "release", "holdfast")):
        if path and os.access(path, os.X_OK):
            return os.path.abspath(path)
    sys.exit("holdfast: no program found: build it (./run --build) or give --binary")


def models_folder():
    """Where pulled models lie for the benchmarks and tests."""
    given = os.environ.get("HOLDFAST_TEST_MODELS")
    if given:
        return given
    home = os.environ.get("HOLDFAST_HOME")
    if not home:
        data = os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")
        home = os.path.join(data, "holdfast")
    return os.path.join(home, "models")


def find_model(name):
    """A path for "1.5b" or "0.5b" (Qwen2.5-Coder), for any part of a file name, or a path."""
    if os.path.exists(name):
        return os.path.abspath(name)
    folder = models_folder()
    for base, _, files in sorted(os.walk(folder)):
        for file in sorted(files):
            if file.endswith(".gguf") and name.lower() in file.lower():
                return os.path.join(base, file)
    return None


def run(binary, *args):
    done = subprocess.run([binary, *args], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError("%s: %s" % (" ".join(args[:2]), done.stderr.strip()[-400:]))
    return done.stdout


class Server:
    """`holdfast serve` on a free loopback port, over a folder of knowledge bases of its own."""

    def __init__(self, binary, model, folder, extra=(), wait_s=300):
        self.binary, self.folder = binary, folder
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that close() runs
        os.makedirs(folder, exist_ok=True)
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        self.log = open(os.path.join(folder, "serve.log"), "a")
        args = [binary, "serve", "--home", folder, "--kb", self.kb_dir, "--host", "127.0.0.1",
                "--port", str(self.port), *extra]
        if model:
            args += ["-m", model]
        self.process = subprocess.Popen(args, stdout=self.log, stderr=self.log)
        end = time.time() + wait_s
        while True:
            try:
                if self.call("GET", "/readyz")[0] == 200:
                    return
            except OSError:
                pass
            if self.process.poll() is not None or time.time() > end:
                self.close()
                raise RuntimeError("serve did not get ready: see %s" % self.log.name)
            time.sleep(0.1)

    @property
    def kb_dir(self):
        return os.path.join(self.folder, "kb")

    def close(self):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.log.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def call(self, method, path, body=None, timeout=1800):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            data = None if body is None else json.dumps(body, ensure_ascii=False).encode()
            headers = {"Content-Type": "application/json"} if data is not None else {}
            connection.request(method, path, data, headers)
            reply = connection.getresponse()
            text = reply.read().decode("utf-8", "replace")
        finally:
            connection.close()
        try:
            return reply.status, json.loads(text) if text else None
        except ValueError:
            return reply.status, text

    def need(self, method, path, body=None):
        status, reply = self.call(method, path, body)
        if status >= 300:
            raise RuntimeError("%s %s: %d %s" % (method, path, status, str(reply)[:300]))
        return reply

    def chat(self, messages, n_max, base=None):
        body = {"messages": messages, "temperature": 0, "max_tokens": n_max}
        if base:
            body["knowledge_base"] = base
        begin = time.time()
        reply = self.need("POST", "/v1/chat/completions", body)
        out = {"answer": reply["choices"][0]["message"]["content"],
               "seconds": round(time.time() - begin, 2), "usage": reply.get("usage")}
        for key in ("found", "citations", "confidence", "quoted"):
            if key in reply:
                out[key] = reply[key]
        return out

    def search(self, base, query, top):
        reply = self.need("POST", "/v1/knowledge_bases/%s/search" % base,
                          {"query": query, "top": top, "passages": True})
        return reply["results"]

    def documents(self, base):
        reply = self.need("GET", "/v1/knowledge_bases/%s/documents" % base)
        return {d["name"]: d["id"] for d in reply.get("documents") or reply["data"]}

    def remove(self, base, document_id):
        self.need("DELETE", "/v1/knowledge_bases/%s/documents/%s" % (base, document_id))

    def add(self, base, name, text):
        return self.need("POST", "/v1/knowledge_bases/%s/documents" % base,
                         {"name": name, "text": text})


def make_base(binary, kb_dir, name, folder):
    """(Re)makes a base from a folder of documents, by the program's own command."""
    run(binary, "kb", "add", "--kb", kb_dir, "--name", name, folder)


def write_passages(folder, passages):
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    for i, text in enumerate(passages):
        with open(os.path.join(folder, document_name(i)), "w", encoding="utf-8") as f:
            f.write(text)


# --- results, one JSON line each ----------------------------------------------------------------------


class Lines:
    """A file of JSON lines that is only appended to; what is in it is not done again."""

    def __init__(self, path, key):
        self.path, self.key, self.rows = path, key, {}
        os.makedirs(os.path.dirname(path), exist_ok=True)
        if os.path.exists(path):
            with open(path, encoding="utf-8") as f:
                for line in f:
                    try:
                        row = json.loads(line)
                    except ValueError:
                        continue  # a line cut off by an interruption
                    self.rows[tuple(row[k] for k in key)] = row

    def has(self, *key):
        return tuple(key) in self.rows

    def add(self, row):
        self.rows[tuple(row[k] for k in self.key)] = row
        with open(self.path, "a", encoding="utf-8") as f:
            f.write(json.dumps(row, ensure_ascii=False) + "\n")


def machine_class():
    """What kind of machine the figures are from: processor family, cores, instruction sets."""
    name, flags = "unknown processor", ""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as f:
            for line in f:
                if line.startswith("model name"):
                    name = line.split(":", 1)[1].strip()
                if line.startswith("flags"):
                    flags = line
    except OSError:
        pass
    isa = [n for n, flag in (("AVX2", "avx2"), ("AVX-512 VNNI", "avx512_vnni"),
                             ("AMX-INT8", "amx_int8")) if " " + flag in flags]
    return "%s, %d cores, %s" % (name, os.cpu_count(), " ".join(isa) or "no AVX2")
