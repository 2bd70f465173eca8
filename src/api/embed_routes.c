/* Vectors and scores: POST /v1/embeddings (OpenAI's form), POST /api/embed (Ollama's) and POST
 * /v1/rerank (Jina's and Cohere's).
 *
 *   worker         parse, submit
 *   engine thread  on_done: hands the result to a worker
 *   worker         answer
 *   event thread   gone ─▶ hd_engine_cancel
 *
 * The call lives as long as its HTTP request, on which the worker and the engine each hold a
 * reference while they use it. */
#include "api/api_impl.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/base64.h"
#include "base/clock.h"

enum { MAX_ANSWER = 512 << 20, MAX_INPUT_IDS = 1 << 20 };

struct embed_params {
    const char *model, *encoding_format, *input_type, *query;
    json_t *input, *documents;
    int dimensions, top_n;
    bool has_top_n, return_documents, truncate, has_truncate;
};

struct embed_call {
    struct hd_api__call call; /* first */
    bool rerank, ollama;
    double started;
    json_t *root; /* owned; params and texts borrow from it */
    struct embed_params params;
    struct hd_embed_text *texts; /* owned; [n_text] */
    int32_t *ids;                /* owned; of token arrays */
    size_t n_text;
    char model[160]; /* as the answer names it */
    bool cosine;     /* rerank with a model that makes vectors: texts[0] is the query */
    enum hd_err err;
    struct hd_errmsg message;
    struct hd_embeddings *result; /* owned */

    pthread_mutex_t mu; /* guards what follows */
    bool submitted, gone;
    uint64_t engine_id;
};

static void embed_init(struct hd_api__call *call)
{
    struct embed_call *e = (struct embed_call *)call;
    e->rerank = !strcmp(hd_http_request_pattern(call->http), "/v1/rerank");
    e->ollama = !strcmp(hd_http_request_pattern(call->http), "/api/embed");
    e->started = hd_clock_seconds();
    pthread_mutex_init(&e->mu, NULL);
}

static void embed_dispose(struct hd_api__call *call)
{
    struct embed_call *e = (struct embed_call *)call;
    hd_embeddings_free(e->result);
    json_decref(e->root);
    free(e->texts);
    free(e->ids);
    pthread_mutex_destroy(&e->mu);
}

static void embed_gone(struct hd_api__call *call)
{
    struct embed_call *e = (struct embed_call *)call;
    pthread_mutex_lock(&e->mu);
    e->gone = true;
    bool submitted = e->submitted;
    uint64_t id = e->engine_id;
    pthread_mutex_unlock(&e->mu);
    if (submitted)
        hd_engine_cancel(call->api->engine, id);
}

/* --- answers ----------------------------------------------------------------------------------
 */

static void put_floats(struct hd_buf *out, const float *v, int n)
{
    hd_buf_putc(out, '[');
    for (int i = 0; i < n; i++)
        hd_buf_printf(out, "%s%.9g", i ? "," : "", (double)v[i]);
    hd_buf_putc(out, ']');
}

/* The floats' bytes as OpenAI's clients ask for them: little endian, as on every machine that we
 * build for. */
static void put_base64(struct hd_buf *out, const float *v, int n)
{
    hd_buf_putc(out, '"');
    hd_base64_encode(out, v, (size_t)n * sizeof *v);
    hd_buf_putc(out, '"');
}

static void put_embeddings(struct embed_call *e, struct hd_buf *out)
{
    const struct hd_embeddings *r = e->result;
    bool base64 = e->params.encoding_format && !strcmp(e->params.encoding_format, "base64");
    hd_buf_puts(out, "{\"object\":\"list\",\"data\":[");
    for (size_t i = 0; i < r->n; i++) {
        hd_buf_printf(out, "%s{\"object\":\"embedding\",\"index\":%zu,", i ? "," : "", i);
        if (r->item[i].truncated)
            hd_buf_puts(out, "\"truncated\":true,");
        hd_buf_puts(out, "\"embedding\":");
        if (base64)
            put_base64(out, r->item[i].dense, r->n_dim);
        else
            put_floats(out, r->item[i].dense, r->n_dim);
        hd_buf_putc(out, '}');
    }
    hd_buf_puts(out, "],\"model\":");
    hd_api__put_json(out, e->model, strlen(e->model));
    hd_buf_printf(out, ",\"usage\":{\"prompt_tokens\":%llu,\"total_tokens\":%llu}}",
                  (unsigned long long)r->n_token, (unsigned long long)r->n_token);
}

static int put_ollama(struct embed_call *e, struct hd_buf *out, struct hd_api__fault *fault)
{
    const struct hd_embeddings *r = e->result;
    hd_buf_puts(out, "{\"model\":");
    hd_api__put_json(out, e->model, strlen(e->model));
    hd_buf_puts(out, ",\"embeddings\":[");
    for (size_t i = 0; i < r->n; i++) {
        if (r->item[i].truncated && e->params.has_truncate && !e->params.truncate)
            return hd_api__fault(fault, 400, "context_length_exceeded", "input",
                                 "input: text %zu is longer than \"%s\" reads", i, e->model);
        hd_buf_puts(out, i ? "," : "");
        put_floats(out, r->item[i].dense, r->n_dim);
    }
    hd_buf_printf(out, "],\"total_duration\":%.0f,\"load_duration\":0,\"prompt_eval_count\":%llu}",
                  (hd_clock_seconds() - e->started) * 1e9, (unsigned long long)r->n_token);
    return 0;
}

struct ranked {
    double score;
    size_t index;
};

static int by_score(const void *a, const void *b)
{
    const struct ranked *x = a, *y = b;
    if (x->score != y->score)
        return x->score > y->score ? -1 : 1;
    return x->index < y->index ? -1 : 1;
}

static double cosine(const float *a, const float *b, int n)
{
    double dot = 0, aa = 0, bb = 0;
    for (int i = 0; i < n; i++) {
        dot += (double)a[i] * (double)b[i];
        aa += (double)a[i] * (double)a[i];
        bb += (double)b[i] * (double)b[i];
    }
    return aa > 0 && bb > 0 ? dot / sqrt(aa * bb) : 0;
}

static int put_ranking(struct embed_call *e, struct hd_buf *out)
{
    const struct hd_embeddings *r = e->result;
    size_t first = e->cosine ? 1 : 0, n = r->n - first, top = n;
    struct ranked *list = malloc(n * sizeof *list);
    if (!list)
        return HD_ERR_NOMEM;
    for (size_t i = 0; i < n; i++) {
        const struct hd_embedding *item = &r->item[first + i];
        list[i].index = i;
        list[i].score =
            e->cosine ? cosine(r->item[0].dense, item->dense, r->n_dim) : (double)item->score;
    }
    qsort(list, n, sizeof *list, by_score);
    if (e->params.has_top_n && (size_t)e->params.top_n < n)
        top = (size_t)e->params.top_n;
    hd_buf_puts(out, "{\"object\":\"list\",\"model\":");
    hd_api__put_json(out, e->model, strlen(e->model));
    hd_buf_printf(out, ",\"scoring\":\"%s\",\"results\":[", e->cosine ? "cosine" : "cross_encoder");
    for (size_t i = 0; i < top; i++) {
        const struct hd_embed_text *text = &e->texts[first + list[i].index];
        hd_buf_printf(out, "%s{\"index\":%zu,\"relevance_score\":%.9g", i ? "," : "", list[i].index,
                      list[i].score);
        if (r->item[first + list[i].index].truncated)
            hd_buf_puts(out, ",\"truncated\":true");
        if (e->params.return_documents) {
            hd_buf_puts(out, ",\"document\":{\"text\":");
            hd_api__put_json(out, e->cosine ? text->text : text->pair,
                             e->cosine ? text->len : text->pair_len);
            hd_buf_putc(out, '}');
        }
        hd_buf_putc(out, '}');
    }
    hd_buf_printf(out, "],\"usage\":{\"prompt_tokens\":%llu,\"total_tokens\":%llu}}",
                  (unsigned long long)r->n_token, (unsigned long long)r->n_token);
    free(list);
    return HD_OK;
}

static int engine_fault(enum hd_err err, const struct hd_errmsg *msg, const char *param,
                        struct hd_api__fault *fault)
{
    if (err == HD_ERR_NOTFOUND)
        return hd_api__fault(fault, 404, "model_not_found", "model", "%s", msg->text);
    if (err == HD_ERR_UNSUPPORTED)
        return hd_api__fault(fault, 400, "unsupported_value", "model", "%s", msg->text);
    if (err == HD_ERR_INVALID || err == HD_ERR_LIMIT)
        return hd_api__fault(fault, 400, "invalid_value", param, "%s", msg->text);
    return hd_api__fault_err(fault, err, msg);
}

static int answer(struct embed_call *e, struct hd_api__fault *fault)
{
    struct hd_buf out;
    if (e->err)
        return engine_fault(e->err, &e->message, e->rerank ? "documents" : "input", fault);
    hd_buf_init(&out, MAX_ANSWER);
    int err = HD_OK;
    if (e->rerank)
        err = put_ranking(e, &out);
    else if (!e->ollama)
        put_embeddings(e, &out);
    else if (put_ollama(e, &out, fault)) {
        hd_buf_dispose(&out);
        return fault->status;
    }
    if (err || out.err)
        hd_api__fault(fault, 503, NULL, NULL, "the answer is too long for this machine's memory");
    else
        hd_http_reply(e->call.http, 200, "application/json", out.data, out.len);
    err = err || out.err;
    hd_buf_dispose(&out);
    return err;
}

/* On a worker (or, while shutting down, on the engine's thread). */
static void answer_job(struct hd_api__job *job)
{
    struct embed_call *e = (struct embed_call *)job;
    struct hd_http_request *http = e->call.http;
    struct hd_api__fault fault;
    if (!hd_http_request_gone(http) && answer(e, &fault))
        hd_api__reply_fault(e->call.api, http, &fault);
    hd_http_request_unref(http);
}

static void on_done(void *ud, enum hd_err err, const struct hd_errmsg *message,
                    struct hd_embeddings *result)
{
    struct embed_call *e = ud;
    struct hd_api *api = e->call.api;
    e->err = err;
    e->message = *message;
    e->result = result;
    hd_metrics_observe(api->metrics, M_EMBED_DURATION,
                       HD_LABELS(e->rerank ? "rerank" : "embeddings"),
                       hd_clock_seconds() - e->started);
    e->call.job.run = answer_job;
    hd_api__workers_post(api->quick, &e->call.job, true); /* takes over the reference */
}

/* --- requests ---------------------------------------------------------------------------------
 */

#define AT(member) offsetof(struct embed_params, member)

static int bad_input(struct hd_api__fault *fault)
{
    return hd_api__fault(fault, 400, "invalid_type", "input",
                         "input: must be a string, an array of strings, an array of token ids or "
                         "an array of such arrays, and not be empty");
}

static int no_memory(struct hd_api__fault *fault)
{
    return hd_api__fault(fault, 503, NULL, NULL, "out of memory");
}

static int new_texts(struct embed_call *e, size_t n, const char *param, struct hd_api__fault *fault)
{
    if (n > HD_EMBED_MAX_TEXTS)
        return hd_api__fault(fault, 400, "invalid_value", param, "%s: at most %d entries, not %zu",
                             param, HD_EMBED_MAX_TEXTS, n);
    e->texts = calloc(n, sizeof *e->texts);
    e->n_text = n;
    return e->texts ? 0 : no_memory(fault);
}

static int take_ids(struct embed_call *e, struct hd_embed_text *text, size_t *used,
                    const json_t *array, struct hd_api__fault *fault)
{
    size_t i;
    json_t *id;
    text->ids = e->ids + *used;
    text->n_id = json_array_size(array);
    text->add_special = true;
    if (!text->n_id)
        return bad_input(fault);
    json_array_foreach((json_t *)array, i, id)
    {
        if (!json_is_integer(id) || json_integer_value(id) < 0 ||
            json_integer_value(id) > INT32_MAX)
            return bad_input(fault);
        e->ids[(*used)++] = (int32_t)json_integer_value(id);
    }
    return 0;
}

/* The whole input is one array of ids, or `one` is the number of arrays in it. */
static int take_token_arrays(struct embed_call *e, const json_t *input, bool one,
                             struct hd_api__fault *fault)
{
    size_t total = 0, used = 0, n = one ? 1 : json_array_size(input);
    for (size_t i = 0; i < n; i++)
        total += json_array_size(one ? input : json_array_get(input, i));
    if (total > MAX_INPUT_IDS)
        return hd_api__fault(fault, 400, "invalid_value", "input", "input: at most %d token ids",
                             MAX_INPUT_IDS);
    int rc = new_texts(e, n, "input", fault);
    e->ids = malloc((total ? total : 1) * sizeof *e->ids);
    if (!rc && !e->ids)
        rc = no_memory(fault);
    for (size_t i = 0; !rc && i < n; i++)
        rc = take_ids(e, &e->texts[i], &used, one ? input : json_array_get(input, i), fault);
    return rc;
}

static void set_text(struct hd_embed_text *text, const json_t *string)
{
    text->text = json_string_value(string);
    text->len = json_string_length(string);
}

static int take_input(struct embed_call *e, struct hd_api__fault *fault)
{
    const json_t *input = e->params.input, *first = json_array_get(input, 0);
    if (json_is_string(input)) {
        int rc = new_texts(e, 1, "input", fault);
        if (!rc)
            set_text(&e->texts[0], input);
        return rc;
    }
    if (json_is_integer(first) || json_is_array(first))
        return take_token_arrays(e, input, json_is_integer(first), fault);
    if (!json_is_string(first))
        return bad_input(fault);
    int rc = new_texts(e, json_array_size(input), "input", fault);
    for (size_t i = 0; !rc && i < e->n_text; i++) {
        const json_t *item = json_array_get(input, i);
        if (!json_is_string(item))
            return bad_input(fault);
        set_text(&e->texts[i], item);
    }
    return rc;
}

/* Strings, or objects with "text". */
static int take_documents(struct embed_call *e, struct hd_api__fault *fault)
{
    const json_t *documents = e->params.documents;
    size_t n = json_array_size(documents), first = e->cosine ? 1 : 0;
    if (!e->params.query)
        return hd_api__fault(fault, 400, "invalid_type", "query", "query: is missing");
    if (!n)
        return hd_api__fault(fault, 400, "invalid_type", "documents",
                             "documents: must be an array of strings, or of objects with \"text\", "
                             "and not be empty");
    int rc = new_texts(e, n + first, "documents", fault);
    for (size_t i = 0; !rc && i < n; i++) {
        const json_t *item = json_array_get(documents, i);
        const json_t *text = json_is_object(item) ? json_object_get(item, "text") : item;
        struct hd_embed_text *t = &e->texts[first + i];
        if (!json_is_string(text))
            return hd_api__fault(fault, 400, "invalid_type", "documents",
                                 "documents[%zu]: must be a string or an object with \"text\"", i);
        set_text(t, text);
        if (e->cosine)
            continue;
        t->pair = t->text;
        t->pair_len = t->len;
        t->text = e->params.query;
        t->len = strlen(e->params.query);
    }
    if (!rc && e->cosine)
        e->texts[0] =
            (struct hd_embed_text){.text = e->params.query, .len = strlen(e->params.query)};
    return rc;
}

/* The named model, or the first of the kind that is wanted; for ranking a re-ranker if there is
 * one, else an encoder. */
static int find_model(const struct embed_call *e, struct hd_model_info *info,
                      struct hd_api__fault *fault)
{
    struct hd_engine *engine = e->call.api->engine;
    const char *name = e->params.model;
    if (name && *name) {
        if (hd_api__model_find(engine, name, info))
            return hd_api__fault(fault, 404, "model_not_found", "model",
                                 "the model \"%.100s\" is not loaded here (GET /v1/models lists "
                                 "them)",
                                 name);
    } else {
        enum hd_model_kind want = e->rerank ? HD_MODEL_RERANKER : HD_MODEL_ENCODER;
        struct hd_model_info other;
        bool found = false, fallback = false;
        for (size_t i = 0; i < hd_engine_n_model(engine) && !found; i++)
            if (!hd_engine_model_info(engine, i, &other)) {
                found = other.kind == want;
                if (found || (!fallback && other.kind == HD_MODEL_ENCODER))
                    *info = other;
                fallback |= other.kind == HD_MODEL_ENCODER;
            }
        if (!found && !fallback)
            return hd_api__fault(fault, 404, "model_not_found", "model",
                                 "no encoder is loaded (holdfast pull e5-small brings one; serve "
                                 "it with -m e5-small beside the language model)");
    }
    if (info->kind == HD_MODEL_LANGUAGE)
        return hd_api__fault(fault, 400, "unsupported_value", "model",
                             "the model \"%s\" is a language model, which makes no vectors (GET "
                             "/v1/models shows which are encoders)",
                             info->name);
    return 0;
}

static int check_embeddings(struct embed_call *e, const struct hd_model_info *info,
                            enum hd_embed_as *as, struct hd_api__fault *fault)
{
    static const struct {
        const char *name;
        enum hd_embed_as as;
    } types[] = {{"query", HD_AS_QUERY},
                 {"search_query", HD_AS_QUERY},
                 {"passage", HD_AS_PASSAGE},
                 {"document", HD_AS_PASSAGE},
                 {"search_document", HD_AS_PASSAGE}};
    const struct embed_params *p = &e->params;
    if (p->encoding_format && strcmp(p->encoding_format, "float") &&
        strcmp(p->encoding_format, "base64"))
        return hd_api__fault(fault, 400, "invalid_value", "encoding_format",
                             "encoding_format: must be \"float\" or \"base64\"");
    if (p->dimensions && p->dimensions != info->n_embd)
        return hd_api__fault(fault, 400, "unsupported_value", "dimensions",
                             "dimensions: \"%s\" makes vectors of %d numbers; they cannot be "
                             "shortened",
                             info->name, info->n_embd);
    for (size_t i = 0; p->input_type && i < sizeof types / sizeof *types; i++)
        if (!strcmp(types[i].name, p->input_type)) {
            *as = types[i].as;
            return 0;
        }
    if (p->input_type)
        return hd_api__fault(fault, 400, "invalid_value", "input_type",
                             "input_type: must be \"query\" or \"passage\"");
    return 0;
}

static const struct hd_api__field embeddings_fields[] = {
    {"model", KIND_STRING, AT(model), 0, 0, 0},
    {"input", KIND_JSON, AT(input), 0, 0, 0},
    {"encoding_format", KIND_STRING, AT(encoding_format), 0, 0, 0},
    {"dimensions", KIND_INT, AT(dimensions), 1, 1 << 20, 0},
    {"input_type", KIND_STRING, AT(input_type), 0, 0, 0},
    {"user", KIND_ANY, 0, 0, 0, 0},
};
static const struct hd_api__field rerank_fields[] = {
    {"model", KIND_STRING, AT(model), 0, 0, 0},
    {"query", KIND_STRING, AT(query), 0, 0, 0},
    {"documents", KIND_JSON, AT(documents), 0, 0, 0},
    {"top_n", KIND_INT, AT(top_n), 1, 1 << 20, AT(has_top_n)},
    {"return_documents", KIND_BOOL, AT(return_documents), 0, 0, 0},
    {"user", KIND_ANY, 0, 0, 0, 0},
};
static const struct hd_api__field ollama_fields[] = {
    {"model", KIND_STRING, AT(model), 0, 0, 0},
    {"input", KIND_JSON, AT(input), 0, 0, 0},
    {"dimensions", KIND_INT, AT(dimensions), 1, 1 << 20, 0},
    {"truncate", KIND_BOOL, AT(truncate), 0, 0, AT(has_truncate)},
    {"options", KIND_ANY, 0, 0, 0, 0},
    {"keep_alive", KIND_ANY, 0, 0, 0, 0},
};
#define SCHEMA(fields)                                                                             \
    {                                                                                              \
        fields, sizeof fields / sizeof *fields                                                     \
    }
const struct hd_api__schema hd_api__embeddings_schema = SCHEMA(embeddings_fields);
const struct hd_api__schema hd_api__rerank_schema = SCHEMA(rerank_fields);
const struct hd_api__schema hd_api__ollama_embed_schema = SCHEMA(ollama_fields);

static int parse(struct embed_call *e, struct hd_api__fault *fault)
{
    const struct hd_api__schema *schema = e->rerank   ? &hd_api__rerank_schema
                                          : e->ollama ? &hd_api__ollama_embed_schema
                                                      : &hd_api__embeddings_schema;
    size_t len;
    const char *body = hd_http_request_body(e->call.http, &len);
    int rc = hd_api__parse(&e->root, body, len, fault);
    if (rc)
        return rc;
    return hd_api__fields(e->root, schema->fields, schema->n, &e->params, "", fault);
}

static int submit(struct embed_call *e, unsigned what, enum hd_embed_as as,
                  struct hd_api__fault *fault)
{
    struct hd_api *api = e->call.api;
    struct hd_errmsg msg = {0};
    uint64_t id;
    const struct hd_embed_request request = {.model = e->model,
                                             .principal = &e->call.who,
                                             .what = what,
                                             .as = as,
                                             .first_is_query = e->cosine,
                                             .texts = e->texts,
                                             .n_text = e->n_text};
    hd_http_request_ref(e->call.http); /* the engine's, then the answering worker's */
    enum hd_err err = hd_engine_embed(api->engine, &id, &request, on_done, e, &msg);
    if (err) {
        hd_http_request_unref(e->call.http);
        if (err == HD_ERR_BUSY)
            hd_metrics_add(api->metrics, M_REJECTED, HD_LABELS("queue_full"), 1);
        return engine_fault(err, &msg, e->rerank ? "documents" : "input", fault);
    }
    pthread_mutex_lock(&e->mu);
    e->submitted = true;
    e->engine_id = id;
    bool gone = e->gone;
    pthread_mutex_unlock(&e->mu);
    if (gone)
        hd_engine_cancel(api->engine, id);
    return 0;
}

static int start(struct embed_call *e, struct hd_api__fault *fault)
{
    struct hd_model_info info;
    enum hd_embed_as as = HD_AS_GIVEN;
    unsigned what = HD_EMBED_DENSE;
    int rc = parse(e, fault);
    if (!rc)
        rc = find_model(e, &info, fault);
    if (rc)
        return rc;
    snprintf(e->model, sizeof e->model, "%s", info.name);
    if (e->rerank) {
        e->cosine = info.kind != HD_MODEL_RERANKER;
        what = e->cosine ? HD_EMBED_DENSE : HD_EMBED_SCORE;
        as = e->cosine ? HD_AS_PASSAGE : HD_AS_GIVEN;
        rc = take_documents(e, fault);
    } else {
        rc = check_embeddings(e, &info, &as, fault);
        if (!rc)
            rc = take_input(e, fault);
    }
    return rc ? rc : submit(e, what, as, fault);
}

static void run(struct hd_api__call *call)
{
    struct embed_call *e = (struct embed_call *)call;
    struct hd_api__fault fault;
    if (start(e, &fault))
        hd_api__reply_fault(call->api, call->http, &fault);
}

void hd_api__embed(struct hd_http_request *request, void *ud)
{
    static const struct hd_api__call like = {
        .init = embed_init, .run = run, .gone = embed_gone, .dispose = embed_dispose};
    struct hd_api *api = ud;
    hd_api__call_start(api, request, sizeof(struct embed_call), api->quick, &like);
}
