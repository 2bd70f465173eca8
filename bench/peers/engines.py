"""The programs that are compared: how each is had, run, and what its output says.

Every one is a function of a case (model, prompt, generated, threads, batch, kernels) that returns
{"prefill_tps", "decode_tps", …}. Both rates are of the same work: a prompt from position 0 with the last row's logits,
and tokens generated right behind a prompt of that length, KV of the peers in their default F16.
"""
import json
import pathlib
import shutil
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
NODE_PACKAGE = "node-llama-cpp@3.22.1"
LLAMA_PACKAGE = "llama-cpp-python==0.3.36"
TIMEOUT = 1800
# The instruction sets that a build for AVX2 alone leaves out.
AVX2_ONLY = ["-DGGML_NATIVE=OFF", "-DGGML_AVX=ON", "-DGGML_AVX2=ON", "-DGGML_FMA=ON", "-DGGML_F16C=ON", "-DGGML_BMI2=ON",
             "-DGGML_AVX512=OFF"]


class Absent(Exception):
    """A program that is not here, with the reason."""


def run(command, under, cwd=None):
    done = subprocess.run([*under, *command], capture_output=True, text=True, timeout=TIMEOUT, cwd=cwd)
    if done.returncode:
        text = (done.stderr or done.stdout).strip().splitlines()
        raise RuntimeError(f"{pathlib.Path(command[0]).name}: exit {done.returncode}: {' / '.join(text[-3:])[-300:]}")
    return done.stdout


class Holdfast:
    name = "holdfast"

    def __init__(self, binary, under):
        self.binary, self.under = str(pathlib.Path(binary).resolve()), under

    def measure(self, case):
        return json.loads(run([self.binary, "bench", "-m", case["path"], "-p", str(case["p"]), "-n", str(case["n"]), "-t",
                               str(case["t"]), "--batch", str(case["batch"]), "--kernels", case["kernels"], "--json"],
                              self.under))

    def kv_bytes(self, case):
        """Bytes of KV that one generated token reads, on average over the generated ones; F16."""
        meta = json.loads(run([self.binary, "inspect", case["path"], "--json"], []))["metadata"]
        arch = meta["general.architecture"]

        def get(key, default=None):
            return meta.get(f"{arch}.{key}", default)
        layers = get("block_count")
        if arch == "deepseek2":
            row = get("attention.kv_lora_rank") + get("rope.dimension_count")
        else:
            row = 2 * get("attention.head_count_kv") * get("attention.key_length", get("embedding_length") // get("attention.head_count"))
        return int(layers * row * 2 * (case["p"] + case["n"] / 2))


class Node:
    """llama.cpp as the npm package node-llama-cpp carries it, built beforehand for many processors: it chooses the
    kernels at run time. Its binding adds a little to every generated token."""
    name = "llama.cpp npm"

    def __init__(self, cache, under):
        self.cache, self.under = cache, under
        if not shutil.which("node") or not shutil.which("npm"):
            raise Absent("node and npm are not installed")
        if not (cache / "node_modules" / "node-llama-cpp").is_dir():
            cache.mkdir(parents=True, exist_ok=True)
            print(f"npm install {NODE_PACKAGE} (once, into {cache})", flush=True)
            (cache / "package.json").write_text('{"private": true}\n')
            install = subprocess.run(["npm", "install", "--no-audit", "--no-fund", "--silent", NODE_PACKAGE], cwd=cache,
                                     capture_output=True, text=True)
            if install.returncode:
                raise Absent("npm install failed: " + install.stderr.strip()[-200:])
        shutil.copy(HERE / "llama_node.mjs", cache / "llama_node.mjs")

    def measure(self, case):
        out = run(["node", "llama_node.mjs", case["path"], str(case["p"]), str(case["n"]), str(case["t"])], self.under,
                  self.cache)
        return json.loads(out.strip().splitlines()[-1])


class LlamaBench:
    """llama-bench of a build of llama.cpp or ik_llama.cpp."""

    def __init__(self, name, binary, under, ik=False, extra=()):
        self.name, self.binary, self.under, self.ik, self.extra = name, str(binary), under, ik, list(extra)

    def rate(self, case, *what):
        """Tokens per second of the last test that llama-bench reports; it warms up by itself."""
        out = run([self.binary, "-m", case["path"], "-t", str(case["t"]), "-r", "1", "-o", "json", *self.extra, *what],
                  self.under)
        return json.loads(out[out.index("["):])[-1]["avg_ts"]

    def measure(self, case):
        p, n = str(case["p"]), str(case["n"])
        # Generating behind a prompt: -d in llama.cpp, -gp in ik_llama.cpp.
        behind = ["-p", "0", "-n", "0", "-gp", f"{p},{n}"] if self.ik else ["-p", "0", "-n", n, "-d", p]
        return {"prefill_tps": self.rate(case, "-p", p, "-n", "0"), "decode_tps": self.rate(case, *behind)}


def find_llama_bench(folder):
    for path in (folder / "bin" / "llama-bench", folder / "llama-bench", folder / "build" / "bin" / "llama-bench"):
        if path.is_file():
            return path.resolve()
    return None


def build_llama(cache, avx2):
    """Builds llama-bench from the source in the PyPI package: for this processor, or for AVX2 alone. Minutes."""
    folder = cache / ("llama-avx2" if avx2 else "llama-native")
    found = find_llama_bench(folder)
    if found:
        return found
    cache.mkdir(parents=True, exist_ok=True)
    archives = list(cache.glob("llama_cpp_python-*.tar.gz"))
    if not archives:
        subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", ":all:", LLAMA_PACKAGE, "-d",
                        str(cache)], check=False)
        archives = list(cache.glob("llama_cpp_python-*.tar.gz"))
        if not archives:
            raise Absent(f"pip download {LLAMA_PACKAGE} brought no source")
    source = cache / archives[0].name.removesuffix(".tar.gz") / "vendor" / "llama.cpp"
    if not source.is_dir():
        shutil.unpack_archive(archives[0], cache)
    print(f"building llama-bench (once, into {folder})", flush=True)
    options = AVX2_ONLY if avx2 else ["-DGGML_NATIVE=ON"]
    for command in (["cmake", "-S", str(source), "-B", str(folder), "-G", "Ninja", "-DCMAKE_BUILD_TYPE=Release",
                     "-DLLAMA_CURL=OFF", "-DLLAMA_BUILD_TESTS=OFF", "-DLLAMA_BUILD_SERVER=OFF", *options],
                    ["cmake", "--build", str(folder), "--target", "llama-bench", "-j", "2"]):
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise Absent(f"{' '.join(command[:2])} failed: {(done.stderr or done.stdout).strip()[-300:]}")
    return find_llama_bench(folder)


def peers(args, under):
    """{set of kernels: [peers]}, "native" or "avx2", and a line for each that is absent."""
    found, absent = {"native": [], "avx2": []}, []

    def add(kind, make):
        try:
            made = make()
            found[kind] += made if isinstance(made, list) else [made]
        except Absent as e:
            absent.append(str(e))

    def llama(folder, avx2):
        path = find_llama_bench(folder) if folder else build_llama(args.cache, avx2)
        if not path:
            raise Absent(f"{folder} has no llama-bench")
        return LlamaBench("llama.cpp", path, under)

    def ik(folder):
        path = find_llama_bench(folder)
        if not path:
            raise Absent(f"{folder} has no llama-bench")
        return [LlamaBench("ik_llama.cpp", path, under, True),
                LlamaBench("ik_llama.cpp -rtr", path, under, True, ["-rtr", "1"])]

    if not args.without_npm:
        add("native", lambda: Node(args.npm or args.cache / "npm", under))
    add("native", lambda: llama(args.llama, False))
    if args.avx2:
        add("avx2", lambda: llama(args.llama_avx2, True))
    if args.ik:
        add("native", lambda: ik(args.ik))
    if args.ik_avx2:
        add("avx2", lambda: ik(args.ik_avx2))
    return found, absent
