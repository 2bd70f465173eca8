/* Inside the room. */
#ifndef HD_API_API_IMPL_H
#define HD_API_API_IMPL_H

#include <jansson.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

#include "api/api.h"
#include "base/buf.h"
#include "http/http.h"
#include "ops/metrics.h"

/* --- workers.c: a few threads over one bounded queue ------------------------------------------ */

struct hd_api__job {
    struct hd_api__job *next;
    void (*run)(struct hd_api__job *job);
};
struct hd_api__workers;
/* prompt: jobs are short, and begin soon even where all cores compute (base/thread.h). */
enum hd_err hd_api__workers_new(struct hd_api__workers **out, const char *name, int n_thread,
                                int max_queue, bool prompt);
/* BUSY where the queue is full. `must`: never refused (the end of work already begun); runs at once
 * on the calling thread if the pool has been closed. */
enum hd_err hd_api__workers_post(struct hd_api__workers *workers, struct hd_api__job *job,
                                 bool must);
int hd_api__workers_waiting(struct hd_api__workers *workers);
void hd_api__workers_close(struct hd_api__workers *workers); /* runs what is queued, joins */
void hd_api__workers_free(struct hd_api__workers *workers);

/* --- the room's object -------------------------------------------------------------------------
 */

struct hd_api {
    struct hd_api_options options; /* strings borrowed */
    struct hd_engine *engine;
    struct hd_http_server *http;
    struct hd_metrics *metrics;
    struct hd_api__streams *streams;
    struct hd_api__workers *quick, *slow; /* milliseconds; documents, which may take a minute */
    bool has_key, loopback_only;          /* has_key: callers need one */
    struct hd_api__keys *keys;            /* of the key file, or NULL */
    char key_digest[65];
    atomic_bool ready, draining;

    pthread_mutex_t mu; /* guards what follows */
    pthread_cond_t idle;
    int n_live; /* calls not yet freed */
    char stage[128];
    int stage_done, stage_total;
    double request_s; /* moving average of a generation's duration, for Retry-After */
};

/* --- metrics_table.c ----------------------------------------------------------------------------
 */

enum hd_api__metric {
    M_HTTP_REQUESTS,
    M_REJECTED,
    M_CANCELLED,
    M_TOKENS,
    M_REASONING_STOPS,
    M_ANSWER_LOOPS,
    M_TTFT,
    M_FIRST_OVERHEAD,
    M_TPOT,
    M_DURATION,
    M_QUEUE_WAIT,
    M_QUEUE_DEPTH,
    M_RUNNING,
    M_WORKER_QUEUE,
    M_KV_USED_RATIO,
    M_KV_BLOCKS,
    M_AHEAD_TOKENS,
    M_KV_DISK_BLOCKS,
    M_KV_DISK_BYTES,
    M_ENGINE_REQUESTS,
    M_ENGINE_STEPS,
    M_ENGINE_BUSY,
    M_STEP_AGE,
    M_MODEL_INFO,
    M_BUILD_INFO,
    M_READY,
    M_KB_STAGE,
    M_KB_ANSWERS,
    M_EMBED_TEXTS,
    M_EMBED_TOKENS,
    M_EMBED_DURATION,
    M_EMBED_QUEUE,
    M_COUNT
};
enum hd_err hd_api__metrics_new(struct hd_metrics **out);
/* Brings the gauges and engine totals up to date. */
void hd_api__metrics_collect(struct hd_api *api);
/* One finished generation. */
void hd_api__metrics_result(struct hd_api *api, const struct hd_result *result, double seconds);

/* --- auth.c ---------------------------------------------------------------------------------- */

enum hd_err hd_api__auth_init(struct hd_api *api, struct hd_errmsg *msg);
/* The hook before a body is read: host, origin, key, readiness, queue. */
void hd_api__before(struct hd_http_request *request, void *ud);
/* Whether a Host header names this machine as seen from itself. */
bool hd_api__host_is_loopback(const char *host);
bool hd_api__origin_is_host(const char *origin, const char *host);

/* keys.c: the static key file, lines of `KEY|sha256:HEX tenant [weight [name [groups]]]`, `#`
 * begins a comment; readable by its owner alone. Immutable; principals live as long as it. */
struct hd_api__keys;
enum hd_err hd_api__keys_load(struct hd_api__keys **out, const char *path, struct hd_errmsg *msg);
void hd_api__keys_free(struct hd_api__keys *keys); /* NULL is fine */
/* By the key's SHA-256 in hex; NULL for a stranger. */
const struct hd_principal *hd_api__keys_find(const struct hd_api__keys *keys, const char *digest);

/* Route tags: who may call, and what it costs. */
enum hd_api__route_kind {
    ROUTE_OPEN = 1, /* page and health: no key */
    ROUTE_READ,     /* needs a key where one is set */
    ROUTE_TOKENS,   /* the same: needs a tokenizer, which is there before the weights are */
    ROUTE_WORK,     /* also needs a ready server */
    ROUTE_GENERATE, /* and room in the queue */
};

/* --- answers: json_out.c ------------------------------------------------------------------------
 */

struct hd_api__fault { /* an error on its way to the client */
    int status;
    const char *code; /* OpenAI's machine-readable word, or NULL */
    char param[80];   /* the field, "" if none */
    struct hd_errmsg msg;
};
/* Fills a fault and returns its status, so that `return hd_api__fault(...)` reads well. */
int hd_api__fault(struct hd_api__fault *fault, int status, const char *code, const char *param,
                  const char *fmt, ...) __attribute__((format(printf, 5, 6)));
/* 400, "PARAM: WHAT"; the field has a wrong value, or one that is not served here. */
int hd_api__invalid(struct hd_api__fault *fault, const char *param, const char *what);
int hd_api__unsupported(struct hd_api__fault *fault, const char *param, const char *what);
/* From an error of engine or kb. */
int hd_api__fault_err(struct hd_api__fault *fault, enum hd_err err, const struct hd_errmsg *msg);

void hd_api__put_json(struct hd_buf *out, const char *text, size_t len); /* with quotes */
void hd_api__put_dump(struct hd_buf *out, json_t *value); /* steals value; null without one */
/* In the form that clients of this address expect: OpenAI's {"error":{"message",…}}, below
 * /v1/messages Anthropic's, below /api/ Ollama's. */
void hd_api__put_error(struct hd_buf *out, const char *path, int status, const char *code,
                       const char *param, const char *message);
void hd_api__reply_fault(struct hd_api *api, struct hd_http_request *request,
                         const struct hd_api__fault *fault);
/* Steals body; NULL answers 503. */
void hd_api__reply_json(struct hd_http_request *request, int status, json_t *body);

/* --- requests: json_in.c ------------------------------------------------------------------------
 */

enum hd_api__kind { KIND_BOOL, KIND_INT, KIND_U64, KIND_FLOAT, KIND_STRING, KIND_JSON, KIND_ANY };
struct hd_api__field {
    const char *name;
    enum hd_api__kind kind;
    size_t offset;   /* of bool, int, uint64_t, float, const char *, json_t * */
    double min, max; /* INT, U64 and FLOAT, inclusive */
    size_t seen;     /* offset of a bool that becomes true, or 0 */
};
struct hd_api__schema { /* the fields of a request's body */
    const struct hd_api__field *fields;
    size_t n;
};
extern const struct hd_api__schema hd_api__chat_schema, hd_api__completion_schema,
    hd_api__responses_schema, hd_api__anthropic_schema, hd_api__anthropic_count_schema,
    hd_api__ollama_chat_schema, hd_api__ollama_generate_schema, hd_api__ollama_show_schema,
    hd_api__embeddings_schema, hd_api__rerank_schema, hd_api__ollama_embed_schema,
    hd_api__tokenize_schema, hd_api__detokenize_schema, hd_api__kb_create_schema,
    hd_api__kb_add_schema, hd_api__kb_search_schema;
/* schemas.c: of a route's body; NULL where it takes none. */
const struct hd_api__schema *hd_api__body_schema(const char *method, const char *pattern);
/* api.c: all of them. */
const struct hd_http_route *hd_api__routes(size_t *n);
/* A JSON object, duplicate keys refused, at most 64 levels deep. */
int hd_api__parse(json_t **out, const char *body, size_t len, struct hd_api__fault *fault);
/* Fills `out` from the object; null counts as absent; what the table lacks is refused by name.
 * Strings and JSON are borrowed from the object. prefix: "stream_options." or "". */
int hd_api__fields(json_t *object, const struct hd_api__field *fields, size_t n, void *out,
                   const char *prefix, struct hd_api__fault *fault);

/* --- params.c -----------------------------------------------------------------------------------
 */

enum { HD_API_MAX_STOP = 4 };
struct hd_api__params {
    json_t *root;     /* owned; most pointers below borrow from it */
    json_t *original; /* owned; the request as it came, where root is a translation of it */
    const char *model;
    const char *knowledge_base; /* NULL: not grounded */
    char *split_model;          /* owned: MODEL of "MODEL@NAME" */
    bool stream, include_usage, echo;
    float temperature, top_p, min_p, repetition_penalty, presence_penalty, frequency_penalty;
    bool has_temperature, has_top_p, has_seed, has_top_k, has_repetition_penalty;
    int top_k, max_tokens, max_completion_tokens;
    uint64_t seed;
    bool no_think, ask_think, any_loops, drop_turns;
    int max_thinking; /* 0: no budget */
    const char *stop[HD_API_MAX_STOP];
    size_t n_stop;
    struct hd_message *message; /* owned array */
    size_t n_message;
    char **text; /* owned: joined text parts and lists of calls, at most two per message */
    size_t n_text;
    char *tools;             /* owned: JSON list of the functions that may be called, or NULL */
    char *grammar;           /* owned: GBNF of the answer, or NULL */
    const char *tool_choice; /* NULL: the model's; "": some function must be called, or its name */
    bool one_call, logprobs;
    int n_top, n;               /* n: answers, at least 1 */
    struct hd_logit_bias *bias; /* owned */
    size_t n_bias;
    const char *suffix; /* completions: text behind what is to be written, or NULL */
    const char *prompt; /* completions */
    int32_t *ids;       /* owned; completions with a token array */
    size_t n_id;
};
int hd_api__params_chat(struct hd_api__params *out, const char *body, size_t len,
                        struct hd_api__fault *fault);
/* The same of an object in the form of /v1/chat/completions, into which the other surfaces put
 * their requests. Steals root. */
int hd_api__params_chat_json(struct hd_api__params *out, json_t *root, struct hd_api__fault *fault);
int hd_api__params_completion(struct hd_api__params *out, const char *body, size_t len,
                              struct hd_api__fault *fault);
int hd_api__params_completion_json(struct hd_api__params *out, json_t *root,
                                   struct hd_api__fault *fault);
/* choice_params.c. For all: JSON that is NULL counts as absent, strings are borrowed. */
int hd_api__take_format(struct hd_api__params *p, const json_t *format, const char *param,
                        struct hd_api__fault *fault);
int hd_api__take_grammar(struct hd_api__params *p, const char *grammar,
                         struct hd_api__fault *fault);
int hd_api__take_tool_choice(struct hd_api__params *p, const json_t *choice, const json_t *tools,
                             struct hd_api__fault *fault);
int hd_api__take_bias(struct hd_api__params *p, const json_t *bias, struct hd_api__fault *fault);
int hd_api__take_logprobs(struct hd_api__params *p, const json_t *logprobs, int top, bool has_top,
                          bool chat, struct hd_api__fault *fault);
void hd_api__params_dispose(struct hd_api__params *params);
/* Splits MODEL@NAME unless a model of that very name is loaded. */
int hd_api__params_split(struct hd_api__params *params, struct hd_engine *engine,
                         struct hd_api__fault *fault);
/* Sampling as asked, the rest by what suits the model. */
struct hd_sampling hd_api__params_sampling(const struct hd_api__params *params, bool thinks);
/* What the engine is asked; everything is borrowed from params, info and who. */
void hd_api__params_request(const struct hd_api__params *params, const struct hd_model_info *info,
                            const struct hd_principal *who, struct hd_request *out);
/* The named language model, or the first one; NULL or "" for that. */
int hd_api__find_language(struct hd_api *api, const char *name, struct hd_model_info *info,
                          struct hd_api__fault *fault);
/* From an error of submitting; param: the field that holds the prompt. */
int hd_api__submit_fault(enum hd_err err, const struct hd_errmsg *msg, const char *param,
                         struct hd_api__fault *fault);
/* Whether a language model is loaded. */
bool hd_api__has_language(struct hd_engine *engine);
/* A loaded model by name; Ollama's clients add ":latest" to a name without a tag. */
enum hd_err hd_api__model_find(struct hd_engine *engine, const char *name,
                               struct hd_model_info *out);
/* Whether a model name means "no model: quote only". */
bool hd_api__is_none(const char *model);

/* --- streams.c: streams that can be taken up again ----------------------------------------------
 *
 * Any thread. `owner` is the generation; what another one than the present owner says is ignored,
 * so that a stream that was taken up elsewhere is not disturbed by its first generation's end. */

struct hd_api__streams;
struct hd_api__surface;
struct hd_api__stream; /* reference counted; freed before hd_api__streams */
struct hd_api__stream_request {
    char *body; /* copied by open */
    size_t len;
    const struct hd_api__surface *surface;
    int64_t created;
    uint64_t seed; /* what was drawn where the body names none */
};
enum hd_api__stream_state { STREAM_NONE, STREAM_OPEN, STREAM_DONE };

enum hd_err hd_api__streams_new(struct hd_api__streams **out);
void hd_api__streams_free(struct hd_api__streams *streams); /* NULL is fine */
/* NULL where it is too large to be kept. The caller holds a reference. */
struct hd_api__stream *hd_api__stream_open(struct hd_api__streams *streams, const void *owner,
                                           const char *id, const struct hd_principal *who,
                                           const struct hd_api__stream_request *request);
/* Events up to number n_event - 1, as they were sent, of answer `choice`; those that are known
 * already are ignored. */
void hd_api__stream_note(struct hd_api__streams *streams, struct hd_api__stream *stream,
                         const void *owner, unsigned n_event, int choice, const char *data,
                         size_t len);
void hd_api__stream_submitted(struct hd_api__streams *streams, struct hd_api__stream *stream,
                              const void *owner, uint64_t engine_id, int n);
/* The owner's end; done: nothing is left to send. */
void hd_api__stream_close(struct hd_api__streams *streams, struct hd_api__stream *stream,
                          const void *owner, bool done);
void hd_api__stream_unref(struct hd_api__streams *streams, struct hd_api__stream *stream);
/* Takes a principal's stream up behind event `last` (-1: from the start): what is known of it goes
 * into `replay`, *n_replayed is the number of the first event that is not, known[i] how many events
 * before that belong to answer i. OPEN: *out is a reference, the caller is the new owner and has to
 * compute the rest; *cancel … *cancel + *n_cancel - 1 are the engine's requests that were at it. */
enum hd_api__stream_state hd_api__stream_take(struct hd_api__streams *streams,
                                              struct hd_api__stream **out, const void *owner,
                                              const char *id, const struct hd_principal *who,
                                              long last, struct hd_buf *replay,
                                              unsigned known[HD_ANSWERS_MAX], unsigned *n_replayed,
                                              uint64_t *cancel, int *n_cancel);
/* The first event behind number `last` in a text of whole events (the mark of the end, which has no
 * number, stays with what is before it). */
const char *hd_api__stream_after(const char *events, size_t len, long last);
const struct hd_api__stream_request *hd_api__stream_request(const struct hd_api__stream *stream);

/* --- calls: one request that works outside the event thread --------------------------------------
 */

struct hd_api__call {
    struct hd_api__job job; /* first */
    struct hd_api *api;
    struct hd_http_request *http; /* the call lives inside the request's lifetime */
    struct hd_principal who;
    void (*init)(struct hd_api__call *call); /* event thread, first; nullable */
    void (*run)(struct hd_api__call *call);  /* on a worker */
    /* What hd_api__run_work runs: answers and returns 0, or fills the fault. */
    int (*work)(struct hd_api__call *call, struct hd_api__fault *fault);
    void (*gone)(struct hd_api__call *call);    /* event thread; nullable */
    void (*dispose)(struct hd_api__call *call); /* of what `size` added; nullable */
    char *content_type;                         /* the request's, owned; NULL if absent */
    double deadline;                            /* hd_clock_seconds, 0 = none */
};
/* Makes a zeroed call of `size` bytes, attaches it and queues it; answers 429 where it cannot. */
void hd_api__call_start(struct hd_api *api, struct hd_http_request *request, size_t size,
                        struct hd_api__workers *on, const struct hd_api__call *like);
void hd_api__run_work(struct hd_api__call *call);
/* Whether there is a scope of this name; 0, or 403 where the principal's key lacks it. */
bool hd_api__is_scope(const char *name);
int hd_api__check_scope(const struct hd_principal *who, const char *scope,
                        struct hd_api__fault *fault);
/* The principal of a request; made here and nowhere else. On the event thread. */
struct hd_principal hd_api__principal(struct hd_api *api, struct hd_http_request *request);
/* Seconds after which a refused client may try again. */
int hd_api__retry_after(struct hd_api *api);

/* --- handlers ------------------------------------------------------------------------------------
 */

void hd_api__generate(struct hd_http_request *request, void *ud); /* generate.c */
void hd_api__count_tokens(struct hd_http_request *request, void *ud);
void hd_api__ollama_tags(struct hd_http_request *request, void *ud); /* ollama_routes.c */
void hd_api__ollama_show(struct hd_http_request *request, void *ud);
void hd_api__ollama_version(struct hd_http_request *request, void *ud);
void hd_api__embed(struct hd_http_request *request, void *ud);  /* embed_routes.c */
void hd_api__models(struct hd_http_request *request, void *ud); /* model_routes.c */
void hd_api__model(struct hd_http_request *request, void *ud);
void hd_api__tokenize(struct hd_http_request *request, void *ud);
void hd_api__detokenize(struct hd_http_request *request, void *ud);
void hd_api__healthz(struct hd_http_request *request, void *ud); /* ops_routes.c */
void hd_api__readyz(struct hd_http_request *request, void *ud);
void hd_api__startupz(struct hd_http_request *request, void *ud);
void hd_api__show_metrics(struct hd_http_request *request, void *ud);
void hd_api__kb_list(struct hd_http_request *request, void *ud); /* kb_routes.c */
void hd_api__kb_create(struct hd_http_request *request, void *ud);
void hd_api__kb_info(struct hd_http_request *request, void *ud);
void hd_api__kb_delete(struct hd_http_request *request, void *ud);
void hd_api__kb_documents(struct hd_http_request *request, void *ud);
void hd_api__kb_document(struct hd_http_request *request, void *ud);
void hd_api__kb_add(struct hd_http_request *request, void *ud);
void hd_api__kb_remove(struct hd_http_request *request, void *ud);
void hd_api__kb_search(struct hd_http_request *request, void *ud);

#endif
