/* The engine: loaded models, and requests that share them.
 *
 * One engine per process owns one scheduler thread and one compute pool. Models are loaded into it
 * by name; requests are submitted from any thread and run together (continuous batching, prompts in
 * chunks), each answered through its callbacks. Same request + same seed = same text on the CPU,
 * whatever else runs.
 *
 * Unless stated, functions may be called from any thread. Returned strings are borrowed and live
 * as long as the engine. */
#ifndef HOLDFAST_HOLDFAST_H
#define HOLDFAST_HOLDFAST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "holdfast/principal.h"

struct hd_engine;

struct hd_engine_options {
    const char *kernels;     /* "auto", "ref", "avx2", "avx512", "amx" */
    int n_thread;            /* 0 = one per core */
    int max_batch_tokens;    /* prompt tokens per scheduler step */
    int max_sessions;        /* requests that run at once; more wait */
    int max_queue;           /* requests that wait; more are refused with BUSY */
    size_t kv_bytes_max;     /* KV of all sessions of a model; 0 = a quarter of the free memory */
    const char *kv_type;     /* "f16" (or NULL), "q8": 8 bits, half the memory */
    bool mtp;                /* load multi-token-prediction layers too, where there are any */
    const char *spill_dir;   /* KV blocks are kept on disk here (0600, encrypted); NULL = nowhere */
    double spill_bytes;      /* of files there, at most */
    const char *repack;      /* "auto" (or NULL), "off", "cache": see docs/engine.md */
    const char *cache_dir;   /* repacked weights are kept in its folder "repack"; NULL = nowhere */
    const char *preload;     /* "mmap" (or NULL), "shm", "memfd", "none": see docs/engine.md */
    const char *system_root; /* tests: where /proc and /sys are looked for; NULL = "" */
};
#define HD_ENGINE_OPTIONS_DEFAULT                                                                  \
    ((struct hd_engine_options){                                                                   \
        .kernels = "auto", .max_batch_tokens = 512, .max_sessions = 16, .max_queue = 64})

enum hd_err hd_engine_new(struct hd_engine **out, const struct hd_engine_options *options,
                          struct hd_errmsg *msg);
/* Cancels what runs, joins the threads, frees the models. NULL is fine. */
void hd_engine_free(struct hd_engine *engine);

/* Loads a GGUF file or a Hugging Face folder under a name (copied); n_ctx 0 = the model's own
 * limit, cut to what kv_bytes_max holds. Returns as soon as the model can be used: its header and
 * tokenizer are read, the memory is reserved; weights come in the background, and until they are
 * all there a pass takes longer. LIMIT where the memory does not suffice, with the figures. */
enum hd_err hd_engine_load(struct hd_engine *engine, const char *name, const char *path, int n_ctx,
                           struct hd_errmsg *msg);

enum hd_model_kind {
    HD_MODEL_LANGUAGE, /* generates text */
    HD_MODEL_ENCODER,  /* makes vectors of texts */
    HD_MODEL_RERANKER, /* a cross-encoder: scores pairs of texts */
};

struct hd_model_info {
    const char *name, *path, *arch, *chat_form, *backend;
    enum hd_model_kind kind;
    int n_ctx; /* longest prompt + answer; of an encoder, longest text */
    int n_vocab, n_layer, n_embd;
    bool has_tokenizer, thinks;
    double load_s; /* seconds that loading took, or has taken so far */
    size_t file_bytes;
    size_t weight_bytes_per_token; /* of the file's tensors that one generated token reads */
    int64_t created;               /* unix time of loading */
};
size_t hd_engine_n_model(const struct hd_engine *engine);

struct hd_load_progress {
    const char *name;
    size_t bytes_done, bytes_total; /* of weights that were, or will be, brought into memory */
    double seconds, eta_s;          /* since loading began; still to go, -1 where unknown */
    bool loaded;                    /* nothing is left to do */
    bool ready;                     /* a prompt need not wait for the disk */
    bool reused;                    /* a shared copy was found (--preload shm) */
};
/* NOTFOUND where there is no model i. */
enum hd_err hd_engine_load_progress(const struct hd_engine *engine, size_t i,
                                    struct hd_load_progress *out);
enum hd_err hd_engine_wait_loaded(struct hd_engine *engine, const char *model);
enum hd_err hd_engine_model_info(const struct hd_engine *engine, size_t i,
                                 struct hd_model_info *out);
/* By name; NULL or "" = the first language model, or the first model where there is none.
 * NOTFOUND otherwise. */
enum hd_err hd_engine_model_find(const struct hd_engine *engine, const char *name,
                                 struct hd_model_info *out);

/* --- generating --------------------------------------------------------------------------- */

struct hd_message {
    const char *role;                /* "system", "user", "assistant", "tool" */
    const char *content;             /* NULL only beside tool_calls */
    const char *tool_calls;          /* assistant: JSON list as in OpenAI's API, or NULL */
    const char *tool_call_id, *name; /* tool, may be NULL */
};

struct hd_sampling {
    float temperature;                         /* 0 = greedy */
    float top_p;                               /* 1 = off */
    int top_k;                                 /* 0 = off */
    float min_p;                               /* 0 = off */
    float repetition_penalty;                  /* 1 = off */
    float presence_penalty, frequency_penalty; /* 0 = off */
    uint64_t seed;
};
#define HD_SAMPLING_GREEDY ((struct hd_sampling){.top_p = 1, .repetition_penalty = 1})

enum { HD_WATCH_MAX = 8, HD_TOP_MAX = 20, HD_BIAS_MAX = 1024 };

struct hd_logit_bias { /* added to the logit of a token before it is sampled */
    int32_t id;
    float bias;
};

struct hd_request {
    const char *model; /* name, or NULL for the first language model */
    const struct hd_principal *principal;
    /* Either messages (rendered in the model's chat form) … */
    const struct hd_message *messages;
    size_t n_message;
    bool prepare_next; /* once idle, compute the next turn's beginning, with the answer in it */
    bool no_think;     /* R1: answer without a thought */
    bool ask_think;    /* of a model that does not think by itself, too */
    int max_thinking;  /* tokens of the thought at most, its end included; 0 = as n_max allows */
    bool any_loops;    /* true: text that goes round is not cut */
    bool drop_turns;   /* a conversation too long for the context loses its oldest turns */
    const char *tools; /* functions the model may call: JSON list as in OpenAI's API, or NULL */
    /* With tools: "" = a function must be called, a name = this one; NULL: as the model likes. */
    const char *tool_choice;
    bool one_call; /* with tool_choice: exactly one */
    /* … or a plain text prompt (BOS added where the model wants one) … */
    const char *prompt;
    const char *suffix; /* fills the middle between prompt and this; UNSUPPORTED where the model has
                         * no tokens for it; NULL: none */
    /* … or ids as given. */
    const int32_t *ids;
    size_t n_id;

    struct hd_sampling sampling;
    int n_max; /* tokens to generate at most; 0 = to the context's end */
    const char *const *stop;
    size_t n_stop;
    const char *grammar; /* GBNF that the answer (not the thought) must follow; NULL: any text */
    const struct hd_logit_bias *bias;
    size_t n_bias;   /* at most HD_BIAS_MAX */
    bool logprobs;   /* on_logprobs is called for each token, with the n_top likeliest */
    int n_top;       /* at most HD_TOP_MAX */
    bool ignore_end; /* benchmarks: does not end at end-of-sequence */
    /* Ids whose log-probability at the first generated token is reported (hd_result.watch_logprob):
     * what a caller needs to weigh "yes" against "no" at the price of one prompt. */
    const int32_t *watch;
    size_t n_watch; /* at most HD_WATCH_MAX */
    /* Deadline in seconds from submission, 0 = none; ends with TIMEOUT. */
    double timeout_s;
};

enum hd_text_kind {
    HD_TEXT_REASONING,
    HD_TEXT_ANSWER,
    HD_TEXT_CALL /* only where the request has tools: one whole call of a function as a JSON object,
                    {"name":…,"arguments":…}, the arguments as JSON text */
};
enum hd_finish { HD_FINISH_STOP, HD_FINISH_LENGTH, HD_FINISH_CANCELLED, HD_FINISH_ERROR };

/* Why a thought ended. Answers to messages always keep room for an answer: near the limit the model
 * is told, then the thought is closed for it. */
enum hd_reasoning_stop {
    HD_REASONING_NONE,   /* there was none, and none was due */
    HD_REASONING_CLOSED, /* by the model */
    HD_REASONING_BUDGET, /* max_thinking was spent */
    HD_REASONING_LENGTH, /* what was left of n_max, or of the context, was needed for the answer */
    HD_REASONING_LOOP,   /* it went round in circles */
    HD_REASONING_ENDED,  /* the model ended its turn without an answer */
    HD_REASONING_OPEN,   /* it did not: cancelled, failed, or a plain prompt's */
    HD_REASONING_N
};
const char *hd_reasoning_stop_name(enum hd_reasoning_stop stop); /* "closed", … */
/* none, minimal, low, medium, high, xhigh: false for another name. */
bool hd_reasoning_effort(const char *name, bool *no_think, int *max_thinking);

struct hd_result {
    enum hd_finish finish;
    enum hd_reasoning_stop reasoning_stop;
    bool answer_loops; /* LENGTH: the answer went round in circles and was cut */
    bool context_full; /* LENGTH: at the context's end, not at n_max */
    size_t stopped_by; /* STOP: 1 + index of the stop text that ended it; 0: none did */
    int n_dropped;     /* messages that drop_turns left out */
    enum hd_err err;   /* where finish is ERROR */
    struct hd_errmsg message;
    int n_prompt, n_cached, n_generated,
        n_reasoning; /* tokens; n_cached of the prompt were reused */
    double
        logprob; /* sum over the generated tokens, natural log, before temperature and penalties */
    double min_logprob; /* of the least likely generated token */
    float watch_logprob[HD_WATCH_MAX];
    double queue_s, prefill_s, decode_s, ttft_s; /* ttft from submission to first token */
    /* Of the time from submission to the first text, what the scheduler was at work: on this
     * request, or on others before it. 0 without text. */
    double engine_s;
};

struct hd_token_chance {
    int32_t id;
    float logprob;     /* natural log, before penalties, bias, grammar and temperature */
    const char *bytes; /* maybe part of a character; valid during the call */
    size_t n_bytes;
};
struct hd_token_report {
    struct hd_token_chance token, top[HD_TOP_MAX]; /* top: likeliest first */
    int n_top;
    bool reasoning; /* it belongs to a thought, or ends one */
};

/* All run on the scheduler's thread, in order, without locks held; they must not block and must not
 * call the engine except hd_engine_cancel. `text` holds whole UTF-8 characters. on_done comes
 * exactly once, last. Any may be NULL except on_done. */
struct hd_callbacks {
    void (*on_text)(void *ud, enum hd_text_kind kind, const char *text, size_t len);
    void (*on_token)(void *ud, int32_t id);
    void (*on_logprobs)(void *ud, const struct hd_token_report *token); /* before its text */
    void (*on_done)(void *ud, const struct hd_result *result);
    void *ud;
};

/* Copies what it needs of the request and queues it; *out_id is set before the first callback. BUSY
 * where the queue is full, LIMIT where the prompt is longer than the context, INVALID for bad
 * parameters: then no callback is made. */
enum hd_err hd_engine_submit(struct hd_engine *engine, uint64_t *out_id,
                             const struct hd_request *request, const struct hd_callbacks *callbacks,
                             struct hd_errmsg *msg);
/* Several answers to one request, made together: answer i with the request's seed + i and its own
 * callbacks [n]; their ids are *first_id + i. The prompt is computed once and its KV shared; until
 * that is done what ends one of them ends all. All are queued, or none. */
enum { HD_ANSWERS_MAX = 8 };
enum hd_err hd_engine_submit_many(struct hd_engine *engine, uint64_t *first_id,
                                  const struct hd_request *request,
                                  const struct hd_callbacks *callbacks, size_t n,
                                  struct hd_errmsg *msg);
/* Of hd_engine_submit or hd_engine_embed; unknown ids are ignored. */
void hd_engine_cancel(struct hd_engine *engine, uint64_t id);

/* Waits for the end; *answer and *reasoning (nullable) are owned, NUL-terminated. */
enum hd_err hd_engine_generate(struct hd_engine *engine, char **answer, char **reasoning,
                               struct hd_result *result, const struct hd_request *request,
                               struct hd_errmsg *msg);

/* Log-probabilities: for each row in `at` (indices into ids), calls back with n_vocab natural-log
 * probabilities, on the calling thread. n_prefill: rows fed as prompt; the rest are fed one by one
 * in the decode form (0 = all as prompt). */
enum hd_err hd_engine_logits(struct hd_engine *engine, const char *model, const int32_t *ids,
                             size_t n_id, const int32_t *at, size_t n_at, size_t n_prefill,
                             void (*fn)(void *ud, int32_t row, const float *logprob, int n_vocab),
                             void *ud, struct hd_errmsg *msg);

/* --- vectors and scores (encoders) ------------------------------------------------------------
 *
 * Texts of all requests are packed into common batches; a text's results do not depend on what else
 * is in them, bit for bit. A text longer than the model's maximum is cut at its end, and its result
 * says so. */

enum hd_embed_what {                       /* flags */
                     HD_EMBED_DENSE = 1,   /* one vector per text */
                     HD_EMBED_SPARSE = 2,  /* weights of the text's tokens (BGE-M3) */
                     HD_EMBED_COLBERT = 4, /* one vector per token (BGE-M3) */
                     HD_EMBED_SCORE = 8,   /* relevance of `pair` to `text` (re-rankers) */
};
/* What a text is used as: some models want a prefix before it; AS_GIVEN adds none. */
enum hd_embed_as { HD_AS_GIVEN, HD_AS_QUERY, HD_AS_PASSAGE };

struct hd_embed_text {
    const char *text; /* or … */
    size_t len;
    const int32_t *ids; /* … token ids, fed as they are, or, with add_special, as those of a text */
    size_t n_id;
    bool add_special;
    const char *pair; /* the document, with HD_EMBED_SCORE; else NULL */
    size_t pair_len;
};

struct hd_embed_request {
    const char *model; /* name, or NULL for the first encoder (the first re-ranker, with SCORE) */
    const struct hd_principal *principal;
    unsigned what;
    enum hd_embed_as as;
    bool first_is_query; /* texts[0] is a query, whatever `as` says of the others */
    const struct hd_embed_text *texts;
    size_t n_text;
    double timeout_s; /* 0 = none */
};
enum { HD_EMBED_MAX_TEXTS = 2048 };

struct hd_embedding {
    const float *dense;         /* [n_dim] or NULL */
    const int32_t *sparse_ids;  /* [n_sparse], ascending */
    const float *sparse_weight; /* [n_sparse], > 0 */
    size_t n_sparse;
    const float *colbert; /* [n_colbert][n_colbert_dim]: all tokens but the first */
    size_t n_colbert;
    float logit, score; /* score = sigmoid of the logit, 0 … 1 */
    int n_token;        /* as computed: after the cut, special tokens included */
    bool truncated;
};
struct hd_embeddings {
    struct hd_embedding *item; /* [n], in the order of the request */
    size_t n;
    int n_dim, n_colbert_dim;
    uint64_t n_token; /* sum */
    double queue_s, compute_s;
};
void hd_embeddings_free(struct hd_embeddings *embeddings); /* NULL is fine */

/* Runs on the scheduler's thread under the rules of hd_callbacks, exactly once. OK: *result belongs
 * to the callee (hd_embeddings_free). Else result is NULL and message says why (CANCELLED,
 * TIMEOUT, …). */
typedef void (*hd_embed_fn)(void *ud, enum hd_err err, const struct hd_errmsg *message,
                            struct hd_embeddings *result);
/* Tokenizes, then queues. BUSY where the queue is full, INVALID for bad parameters, UNSUPPORTED for
 * a model that cannot do it: then no callback is made. hd_engine_cancel ends it early. */
enum hd_err hd_engine_embed(struct hd_engine *engine, uint64_t *out_id,
                            const struct hd_embed_request *request, hd_embed_fn on_done, void *ud,
                            struct hd_errmsg *msg);
/* Waits for the end; *out is owned. */
enum hd_err hd_engine_embed_wait(struct hd_engine *engine, struct hd_embeddings **out,
                                 const struct hd_embed_request *request, struct hd_errmsg *msg);
/* Scores of documents (NUL-terminated) for a query by a cross-encoder: score[n], each 0 … 1. */
enum hd_err hd_engine_rerank(struct hd_engine *engine, float *score, const char *model,
                             const struct hd_principal *principal, const char *query,
                             const char *const *documents, size_t n, struct hd_errmsg *msg);

/* The same of the multi-token-prediction layer (hd_engine_options.mtp): row i has the
 * log-probabilities of the token two places on, ids[i + 2], given ids[0 … i + 1]; rows end at
 * n_id - 2. UNSUPPORTED where the model has no such layer. */
enum hd_err hd_engine_draft_logits(struct hd_engine *engine, const char *model, const int32_t *ids,
                                   size_t n_id, const int32_t *at, size_t n_at, size_t n_prefill,
                                   void (*fn)(void *ud, int32_t row, const float *logprob,
                                              int n_vocab),
                                   void *ud, struct hd_errmsg *msg);

/* --- text and tokens ---------------------------------------------------------------------- */

/* Ids of plain text (special tokens in it are plain text). *ids is owned. */
enum hd_err hd_engine_tokenize(struct hd_engine *engine, const char *model, const char *text,
                               size_t len, int32_t **ids, size_t *n, struct hd_errmsg *msg);
/* Tokens of a request's prompt as hd_engine_submit would make it. */
enum hd_err hd_engine_count_tokens(struct hd_engine *engine, size_t *n,
                                   const struct hd_request *request, struct hd_errmsg *msg);
enum hd_err hd_engine_detokenize(struct hd_engine *engine, const char *model, const int32_t *ids,
                                 size_t n, char **text, struct hd_errmsg *msg);

/* --- watching ----------------------------------------------------------------------------- */

struct hd_engine_stats { /* totals since start, unless noted */
    uint64_t requests, finished, cancelled, failed, refused;
    uint64_t prompt_tokens, cached_tokens, generated_tokens, reasoning_tokens;
    uint64_t reasoning_stops[HD_REASONING_N];
    uint64_t answer_loops;
    uint64_t embed_requests, embed_texts, embed_tokens, embed_truncated; /* encoders; finished */
    uint64_t steps;                                                      /* scheduler steps */
    uint64_t ahead_tokens, ahead_used; /* prompt tokens computed while idle; of them, found later */
    uint64_t disk_written, disk_read, disk_bytes; /* KV blocks spilled, brought back; bytes now */
    double busy_s;                                /* seconds inside steps */
    int running, waiting;                         /* now */
    int embed_waiting;                            /* requests to encoders that run or wait, now */
    int kv_blocks_used, kv_blocks_total; /* now; cached, unused blocks do not count as used */
    double last_step_age_s;              /* since the last step's end; 0 while idle: liveness */
};
void hd_engine_stats(const struct hd_engine *engine, struct hd_engine_stats *out);

/* Rates as `holdfast bench` reports them: one warm-up pass, a prompt of n_prompt tokens (prefill
 * includes the last row's logits), then n_gen steps of `batch` sequences at positions n_prompt ….
 * probe_read_gbps: the copies of the weights only read, between those steps; where there are no
 * copies, or nothing is generated, a buffer of 1 GiB, the best of five times. */
struct hd_bench_result {
    double prefill_tps, decode_tps; /* decode: all sequences together */
    double probe_read_gbps, probe_int8_tops;
    int n_thread;
};
enum hd_err hd_engine_bench(struct hd_engine *engine, const char *model, int n_prompt, int n_gen,
                            int batch, struct hd_bench_result *out, struct hd_errmsg *msg);

#endif
