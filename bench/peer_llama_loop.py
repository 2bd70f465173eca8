"""One measurement of llama.cpp through llama-cpp-python's C interface; driven by peer_llama.py.

    python peer_llama_loop.py MODEL PROMPT GENERATED THREADS

A bare loop over llama_decode, one token a step, without sampling: the least overhead a caller can have.
Prints {"prefill_tps", "decode_tps"}; one warm-up pass first.
"""
import ctypes
import json
import sys
import time

import llama_cpp as lc


def main():
    path, n_prompt, n_gen, threads = sys.argv[1], *map(int, sys.argv[2:5])
    lc.llama_backend_init()
    quiet = lc.llama_log_callback(lambda level, text, data: None)
    lc.llama_log_set(quiet, None)
    params = lc.llama_model_default_params()
    params.n_gpu_layers = 0
    model = lc.llama_model_load_from_file(path.encode(), params)
    cp = lc.llama_context_default_params()
    cp.n_ctx, cp.n_batch, cp.n_ubatch = n_prompt + n_gen + 64, 512, 512
    cp.n_threads = cp.n_threads_batch = threads
    ctx = lc.llama_init_from_model(model, cp)
    n_vocab = lc.llama_vocab_n_tokens(lc.llama_model_get_vocab(model))
    prompt = [1000 + (i * 7919) % 20000 for i in range(n_prompt)]

    def decode(ids):
        tokens = (lc.llama_token * len(ids))(*ids)
        if lc.llama_decode(ctx, lc.llama_batch_get_one(tokens, len(ids))):
            sys.exit("llama_decode failed")
        # Reading one logit waits for the result.
        return ctypes.cast(lc.llama_get_logits_ith(ctx, -1), ctypes.POINTER(ctypes.c_float))[n_vocab - 1]

    def run():
        lc.llama_memory_clear(lc.llama_get_memory(ctx), True)
        start = time.perf_counter()
        for i in range(0, n_prompt, 512):
            decode(prompt[i:i + 512])
        middle = time.perf_counter()
        for i in range(n_gen):
            decode([2000 + i * 17])
        end = time.perf_counter()
        return {"prefill_tps": n_prompt / (middle - start), "decode_tps": n_gen / (end - middle)}

    run()
    print(json.dumps(run()))


if __name__ == "__main__":
    main()
