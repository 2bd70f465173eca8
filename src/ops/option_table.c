/* The table itself. Order is the order of --help. */
#include "ops/options.h"

#define MODEL_COMMANDS " tokenize detokenize logits embed generate chat bench eval serve kb "
#define RUN_COMMANDS " logits embed generate chat bench eval serve kb "
#define CHAT_COMMANDS " generate chat kb "

const struct hd_option hd_option_table[] = {
    /* name, letter, type, default, min, max, arg, commands, help */
    {"model", 'm', HD_OPT_LIST, NULL, 0, 0, "MODEL", MODEL_COMMANDS,
     "GGUF file, Hugging Face folder, or a name pulled before (default: the installed model)"},
    {"kernels", 0, HD_OPT_STRING, "auto", 0, 0, "NAME", RUN_COMMANDS,
     "auto, ref, avx2, avx512 or amx; ref keeps activations in F32"},
    {"threads", 't', HD_OPT_INT, "0", 0, 1024, "N", RUN_COMMANDS " quantize ",
     "compute threads, at most one per core; 0 = one per core"},
    {"ctx", 'c', HD_OPT_INT, "0", 0, 10000000, "N", RUN_COMMANDS " plan ",
     "longest prompt plus answer in tokens; 0 = the model's limit, cut to memory; eval: tokens of "
     "a "
     "stretch (0 = 512)"},
    {"kv-bytes", 0, HD_OPT_NUMBER, "0", 0, 1e15, "BYTES", RUN_COMMANDS,
     "memory for the KV cache; 0 = a quarter of the free memory"},
    {"kv-type", 0, HD_OPT_STRING, "f16", 0, 0, "TYPE", RUN_COMMANDS,
     "KV cache in f16, or in q8: 8 bits and a scale per 32 elements, 53% of the memory; ref keeps "
     "F32"},
    {"preload", 0, HD_OPT_STRING, "mmap", 0, 0, "HOW", RUN_COMMANDS,
     "how weights come into memory: mmap (in the background), shm (a copy in /dev/shm that the "
     "next "
     "start finds), memfd (a sealed copy) or none (when first used)"},
    {"repack", 0, HD_OPT_STRING, "auto", 0, 0, "HOW", RUN_COMMANDS,
     "copies of the weights in the kernels' layout: cache keeps them under cache/repack in --home "
     "for the next start and other processes, auto does so where they take at most a tenth of the "
     "free disk, off makes none (least memory, slow)"},

    {"prompt", 'p', HD_OPT_STRING, NULL, 0, 0, "TEXT|N", " generate bench ",
     "generate: the prompt; bench: prompt tokens (default 512)"},
    {"n", 'n', HD_OPT_INT, NULL, 0, 10000000, "N", " generate chat bench kb eval ",
     "tokens to generate at most; eval: tokens of the text, from its beginning"},
    {"temp", 0, HD_OPT_NUMBER, "0", 0, 100, "T", CHAT_COMMANDS,
     "sampling temperature; 0 = always the likeliest token"},
    {"top-p", 0, HD_OPT_NUMBER, "1", 0, 1, "P", CHAT_COMMANDS, "nucleus sampling; 1 = off"},
    {"top-k", 0, HD_OPT_INT, "0", 0, 1000000, "K", CHAT_COMMANDS,
     "sample among the K likeliest; 0 = off"},
    {"min-p", 0, HD_OPT_NUMBER, "0", 0, 1, "P", CHAT_COMMANDS,
     "drop tokens below P times the likeliest's probability; 0 = off"},
    {"repeat-penalty", 0, HD_OPT_NUMBER, "1", 0.01, 10, "R", CHAT_COMMANDS,
     "divides the logits of tokens seen before; 1 = off"},
    {"seed", 0, HD_OPT_INT, "0", 0, 9e15, "S", CHAT_COMMANDS, "seed of the sampler"},
    {"stop", 0, HD_OPT_LIST, NULL, 0, 0, "TEXT", " generate chat ",
     "ends the answer at this text; repeatable"},
    {"system", 0, HD_OPT_STRING, NULL, 0, 0, "TEXT", " chat generate ", "system message"},
    {"raw", 0, HD_OPT_FLAG, NULL, 0, 0, NULL, " generate ",
     "feed the prompt as it is, without the model's chat form"},
    {"no-think", 0, HD_OPT_FLAG, NULL, 0, 0, NULL, " generate chat kb ",
     "answer without a thought"},
    {"reasoning-effort", 0, HD_OPT_STRING, NULL, 0, 0, "E", " generate chat ",
     "none, minimal, low, medium, high or xhigh: how long to think (at most 0, 128, 512, 2048, "
     "8192 "
     "or 32768 tokens); a model that does not think by itself is asked to"},
    {"max-thinking-tokens", 0, HD_OPT_INT, NULL, 0, 10000000, "N", " generate chat ",
     "tokens of a thought at most; 0 = no thought; a model that does not think by itself is asked "
     "to"},
    {"allow-loops", 0, HD_OPT_FLAG, NULL, 0, 0, NULL, " generate chat ",
     "do not cut thoughts and answers that go round in circles"},
    {"truncation", 0, HD_OPT_STRING, "auto", 0, 0, "HOW", " chat ",
     "when the conversation no longer fits the context: auto leaves its oldest turns out, disabled "
     "makes it an error"},

    {"batch", 0, HD_OPT_INT, "1", 1, 4096, "B", " bench ", "sequences decoded together"},
    {"bos", 0, HD_OPT_FLAG, NULL, 0, 0, NULL, " tokenize ", "begin with the model's BOS id"},
    {"special", 0, HD_OPT_FLAG, NULL, 0, 0, NULL, " tokenize ",
     "recognise special tokens in the text; otherwise they are plain text"},
    {"jsonl", 0, HD_OPT_FLAG, NULL, 0, 0, NULL, " tokenize ",
     "one JSON string per input line, one id array per output line"},
    {"tokens", 0, HD_OPT_STRING, NULL, 0, 0, "1,2,3", " logits ", "ids to feed, as given"},
    {"at", 0, HD_OPT_STRING, NULL, 0, 0, "0,2", " logits ",
     "rows to report (default: the last one)"},
    {"top", 0, HD_OPT_INT, "10", 1, 10000000, "K", " logits kb ",
     "logits: ids per row; kb search: documents"},
    {"prefill", 0, HD_OPT_INT, "0", 0, 10000000, "N", " logits eval ",
     "feed the first N ids as prompt, the rest one by one (0 = all as prompt)"},
    {"mtp", 0, HD_OPT_FLAG, NULL, 0, 0, NULL, " logits ",
     "of the multi-token-prediction layer: row i drafts the id two places on"},
    {"next", 0, HD_OPT_FLAG, NULL, 0, 0, NULL, " logits ",
     "also print the log-probability of the id that a row is about, where it is given"},

    {"file", 'f', HD_OPT_STRING, NULL, 0, 0, "FILE", " eval ",
     "the text; - or nothing: standard input"},
    {"against", 0, HD_OPT_STRING, NULL, 0, 0, "NAME", " eval ",
     "compare with these kernels too: ratio of perplexities, KL divergence"},

    {"as", 0, HD_OPT_STRING, NULL, 0, 0, "query|passage", " embed ",
     "put the prefix before each text that the model wants for queries or passages, if any"},
    {"head", 0, HD_OPT_STRING, "dense", 0, 0, "NAME", " embed ",
     "dense; sparse or colbert (BGE-M3); score (re-rankers: lines are [\"query\",\"document\"])"},
    {"ids", 0, HD_OPT_FLAG, NULL, 0, 0, NULL, " embed ",
     "lines are JSON arrays of token ids, fed as they are"},

    {"kb", 0, HD_OPT_STRING, NULL, 0, 0, "DIR", " kb serve ",
     "folder that holds knowledge bases (default: kb under --home)"},
    {"name", 0, HD_OPT_STRING, "default", 0, 0, "KB", " kb ", "which knowledge base"},
    {"encoder", 0, HD_OPT_STRING, NULL, 0, 0, "NAME|none", " kb ",
     "encoder for dense search (default: the installed one, if any)"},
    {"passages", 0, HD_OPT_FLAG, NULL, 0, 0, NULL, " kb ",
     "kb search: every passage instead of the best of each document"},

    {"source", 0, HD_OPT_STRING, NULL, 0, 0, "S", " pull ",
     "use only this source: huggingface, modelscope, pip, a path, file://… or https://…"},
    {"list", 0, HD_OPT_FLAG, NULL, 0, 0, NULL, " pull ", "list what the catalogue offers"},
    {"catalogue", 0, HD_OPT_LIST, NULL, 0, 0, "FILE", " pull ",
     "a catalogue of your own, read after the built-in one and HOME/catalogue.json"},
    {"timeout", 0, HD_OPT_NUMBER, "5", 0.1, 600, "SECONDS", " pull ",
     "a source that does not answer within this is skipped"},
    {"connections", 0, HD_OPT_INT, "4", 1, 16, "N", " pull ", "parts fetched at once"},
    {"pip", 0, HD_OPT_STRING, NULL, 0, 0, "PROGRAM", " pull ",
     "the pip to use (default: python3 -m pip, else pip3, else pip)"},

    {"host", 0, HD_OPT_STRING, "127.0.0.1", 0, 0, "ADDRESS", " serve ", "address to listen on"},
    {"port", 0, HD_OPT_INT, "8080", 0, 65535, "N", " serve ", "port; 0 = any free one"},
    {"max-batch-tokens", 0, HD_OPT_INT, "512", 16, 65536, "N", " serve kb chat generate embed ",
     "prompt tokens per scheduler step"},
    {"max-sequences", 0, HD_OPT_INT, "16", 1, 4096, "N", " serve ",
     "requests that run at once; more wait"},
    {"max-sessions", 0, HD_OPT_INT, NULL, 1, 4096, "N", " serve ", "older name of --max-sequences"},
    {"kv-spill-bytes", 0, HD_OPT_NUMBER, "0", 0, 1e15, "BYTES", " serve ",
     "keep KV blocks on disk too, encrypted, under kv in --home, up to this many bytes; 0 = no"},
    {"max-queue", 0, HD_OPT_INT, "64", 0, 100000, "N", " serve ",
     "requests that wait; more are refused with 429"},
    {"max-body", 0, HD_OPT_INT, "16777216", 1024, 1073741824, "BYTES", " serve ",
     "largest request body"},
    {"api-key", 0, HD_OPT_STRING, NULL, 0, 0, "KEY", " serve ",
     "clients must send it as a bearer token (better: HOLDFAST_API_KEY)"},
    {"keys", 0, HD_OPT_STRING, NULL, 0, 0, "FILE", " serve ",
     "keys of tenants, with their weights (mode 0600); clients need one of them"},
    {"request-timeout", 0, HD_OPT_NUMBER, "0", 0, 1e6, "SECONDS", " serve ",
     "longest time of a generation, waiting included; 0 = none"},
    {"drain", 0, HD_OPT_INT, "30", 0, 3600, "SECONDS", " serve ",
     "at the end, running requests may finish for this long"},
    {"check-config", 0, HD_OPT_FLAG, NULL, 0, 0, NULL, " serve ", "check the options and exit"},
    {"print-config", 0, HD_OPT_FLAG, NULL, 0, 0, NULL, " serve ",
     "print every option's value and exit"},

    {"json", 0, HD_OPT_FLAG, NULL, 0, 0, NULL, "*", "print JSON"},
    {"home", 0, HD_OPT_STRING, NULL, 0, 0, "DIR", "*",
     "where all state lives (default: $HOLDFAST_HOME, else ~/.local/share/holdfast)"},
    {"config", 0, HD_OPT_STRING, NULL, 0, 0, "FILE", "*", "a file of `name = value` lines"},
    {"verbose", 'v', HD_OPT_FLAG, NULL, 0, 0, NULL, "*", "say more on stderr"},
    {"help", 'h', HD_OPT_FLAG, NULL, 0, 0, NULL, "*", "this text"},
};

const size_t hd_option_count = sizeof hd_option_table / sizeof *hd_option_table;
