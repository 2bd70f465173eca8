/* A tiny engine for tests of the API: one thread, round robin, one word per step and request.
 *
 * The answer to "think …" begins with a thought; "forever" runs until it is cancelled; "fail" ends
 * in an error; where tools are given the second word is a call, and so is the third; otherwise
 * n_max words (5 without a limit). A prompt longer than 1,000 bytes does not fit. It implements the
 * whole header, so that the real one is not linked. */
#ifndef TEST_API_FAKE_ENGINE_H
#define TEST_API_FAKE_ENGINE_H

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "holdfast/holdfast.h"

enum { FAKE_MAX = 64, FAKE_CTX = 1000 };

struct fake_request {
    bool used, cancelled;
    uint64_t id;
    struct hd_callbacks cb;
    struct hd_sampling sampling;
    int n_max, n;
    size_t n_prompt;
    bool think, forever, fail, calls;
};

struct hd_engine {
    pthread_mutex_t mu;
    pthread_t thread;
    bool stop;
    int n_model, max_running, max_waiting;
    enum hd_model_kind kind; /* of its model */
    bool embed_busy;
    uint64_t next_id;
    struct fake_request request[FAKE_MAX];
    struct hd_engine_stats stats;
    struct hd_sampling last_sampling;
    int last_n_max;
    char last_prompt[2048];
};

static void fake_finish(struct hd_engine *e, struct fake_request *r, enum hd_finish finish)
{
    struct hd_result result = {.finish = finish,
                               .n_prompt = (int)r->n_prompt,
                               .n_cached = 1,
                               .n_generated = r->n,
                               .n_reasoning = r->think ? 1 : 0,
                               .prefill_s = 0.001,
                               .decode_s = 0.01,
                               .ttft_s = 0.002};
    struct hd_callbacks cb = r->cb;
    if (finish == HD_FINISH_ERROR) {
        result.err = HD_ERR_TIMEOUT;
        snprintf(result.message.text, sizeof result.message.text, "the deadline passed");
    }
    r->used = false;
    e->stats.running--;
    e->stats.finished += finish == HD_FINISH_STOP || finish == HD_FINISH_LENGTH;
    e->stats.cancelled += finish == HD_FINISH_CANCELLED;
    pthread_mutex_unlock(&e->mu);
    cb.on_done(cb.ud, &result);
    pthread_mutex_lock(&e->mu);
}

static void fake_step(struct hd_engine *e, struct fake_request *r)
{
    char word[64];
    int n = snprintf(word, sizeof word, "词%d ", r->n);
    enum hd_text_kind kind = r->think && r->n == 0 ? HD_TEXT_REASONING : HD_TEXT_ANSWER;
    struct hd_callbacks cb = r->cb;
    if (r->calls && (r->n == 1 || r->n == 2)) {
        kind = HD_TEXT_CALL;
        n = snprintf(word, sizeof word, "{\"name\":\"f%d\",\"arguments\":\"{}\"}", r->n);
    }
    if (r->cancelled) {
        fake_finish(e, r, HD_FINISH_CANCELLED);
        return;
    }
    if (r->fail && r->n == 2) {
        fake_finish(e, r, HD_FINISH_ERROR);
        return;
    }
    r->n++;
    e->stats.steps++;
    e->stats.generated_tokens++;
    pthread_mutex_unlock(&e->mu);
    if (cb.on_text)
        cb.on_text(cb.ud, kind, word, (size_t)n);
    pthread_mutex_lock(&e->mu);
    if (!r->forever && r->n >= (r->n_max ? r->n_max : 5))
        fake_finish(e, r, r->n_max ? HD_FINISH_LENGTH : HD_FINISH_STOP);
}

static void *fake_loop(void *arg)
{
    struct hd_engine *e = arg;
    pthread_mutex_lock(&e->mu);
    while (!e->stop) {
        for (int i = 0; i < FAKE_MAX; i++)
            if (e->request[i].used)
                fake_step(e, &e->request[i]);
        pthread_mutex_unlock(&e->mu);
        usleep(2000);
        pthread_mutex_lock(&e->mu);
    }
    for (int i = 0; i < FAKE_MAX; i++)
        if (e->request[i].used)
            fake_finish(e, &e->request[i], HD_FINISH_CANCELLED);
    pthread_mutex_unlock(&e->mu);
    return NULL;
}

enum hd_err hd_engine_new(struct hd_engine **out, const struct hd_engine_options *options,
                          struct hd_errmsg *msg)
{
    struct hd_engine *e = calloc(1, sizeof *e);
    if (!e)
        return HD_ERR_NOMEM;
    pthread_mutex_init(&e->mu, NULL);
    e->n_model = 1;
    e->max_running = options->max_sessions;
    pthread_create(&e->thread, NULL, fake_loop, e);
    *out = e;
    return HD_OK;
}

void hd_engine_free(struct hd_engine *e)
{
    pthread_mutex_lock(&e->mu);
    e->stop = true;
    pthread_mutex_unlock(&e->mu);
    pthread_join(e->thread, NULL);
    pthread_mutex_destroy(&e->mu);
    free(e);
}

enum hd_err hd_engine_load(struct hd_engine *e, const char *name, const char *path, int n_ctx,
                           struct hd_errmsg *msg)
{
    return HD_ERR_UNSUPPORTED;
}

size_t hd_engine_n_model(const struct hd_engine *e)
{
    return (size_t)e->n_model;
}

enum hd_err hd_engine_model_info(const struct hd_engine *e, size_t i, struct hd_model_info *out)
{
    if (i >= (size_t)e->n_model)
        return HD_ERR_NOTFOUND;
    *out = (struct hd_model_info){.name = "tiny:1m",
                                  .path = "",
                                  .arch = "qwen2",
                                  .chat_form = "chatml",
                                  .backend = "ref",
                                  .kind = e->kind,
                                  .n_embd = 3,
                                  .n_ctx = FAKE_CTX,
                                  .has_tokenizer = true,
                                  .created = 1700000000};
    return HD_OK;
}

enum hd_err hd_engine_load_progress(const struct hd_engine *e, size_t i,
                                    struct hd_load_progress *out)
{
    if (i >= hd_engine_n_model(e))
        return HD_ERR_NOTFOUND;
    *out = (struct hd_load_progress){
        .name = "tiny:1m", .bytes_done = 30, .bytes_total = 120, .seconds = 1, .eta_s = 3};
    return HD_OK;
}

enum hd_err hd_engine_model_find(const struct hd_engine *e, const char *name,
                                 struct hd_model_info *out)
{
    if (name && *name && strcmp(name, "tiny:1m"))
        return HD_ERR_NOTFOUND;
    return hd_engine_model_info(e, 0, out);
}

enum hd_err hd_engine_submit(struct hd_engine *e, uint64_t *id, const struct hd_request *request,
                             const struct hd_callbacks *callbacks, struct hd_errmsg *msg)
{
    enum hd_err err = HD_OK;
    const char *text = request->n_message ? request->messages[request->n_message - 1].content
                       : request->prompt  ? request->prompt
                                          : "";
    size_t n_prompt = strlen(text) + request->n_id;
    if (n_prompt > FAKE_CTX)
        return hd_fail(msg, HD_ERR_LIMIT, "the prompt has %zu tokens, the context %d", n_prompt,
                       FAKE_CTX);
    pthread_mutex_lock(&e->mu);
    int i = 0;
    while (i < FAKE_MAX && e->request[i].used)
        i++;
    if (e->stats.running >= e->max_running || i == FAKE_MAX) {
        err = hd_fail(msg, HD_ERR_BUSY, "the queue is full");
    } else {
        *id = ++e->next_id;
        e->request[i] = (struct fake_request){.used = true,
                                              .id = *id,
                                              .cb = *callbacks,
                                              .sampling = request->sampling,
                                              .n_max = request->n_max == 4096 ? 0 : request->n_max,
                                              .n_prompt = n_prompt,
                                              .think = !strncmp(text, "think", 5),
                                              .forever = strstr(text, "forever") != NULL,
                                              .calls = request->tools != NULL,
                                              .fail = !strncmp(text, "fail", 4)};
        e->stats.running++;
        e->stats.requests++;
        e->last_sampling = request->sampling;
        e->last_n_max = request->n_max;
        snprintf(e->last_prompt, sizeof e->last_prompt, "%s", text);
    }
    pthread_mutex_unlock(&e->mu);
    return err;
}

enum hd_err hd_engine_submit_many(struct hd_engine *e, uint64_t *first_id,
                                  const struct hd_request *request,
                                  const struct hd_callbacks *callbacks, size_t n,
                                  struct hd_errmsg *msg)
{
    struct hd_request each = *request;
    uint64_t id = 0;
    for (size_t i = 0; i < n; i++) {
        each.sampling.seed = request->sampling.seed + i;
        enum hd_err err = hd_engine_submit(e, &id, &each, &callbacks[i], msg);
        if (err)
            return err;
        if (!i)
            *first_id = id;
    }
    return HD_OK;
}

void hd_engine_cancel(struct hd_engine *e, uint64_t id)
{
    pthread_mutex_lock(&e->mu);
    for (int i = 0; i < FAKE_MAX; i++)
        if (e->request[i].used && e->request[i].id == id)
            e->request[i].cancelled = true;
    pthread_mutex_unlock(&e->mu);
}

enum hd_err hd_engine_generate(struct hd_engine *e, char **answer, char **reasoning,
                               struct hd_result *result, const struct hd_request *request,
                               struct hd_errmsg *msg)
{
    return HD_ERR_UNSUPPORTED;
}

/* A vector of each text: its bytes, its first byte, the number of texts. A model of kind
 * HD_MODEL_RERANKER scores a pair by the document's bytes. Answers on the calling thread. */
void hd_embeddings_free(struct hd_embeddings *r)
{
    for (size_t i = 0; r && i < r->n; i++)
        free((void *)r->item[i].dense);
    if (r)
        free(r->item);
    free(r);
}

enum hd_err hd_engine_embed(struct hd_engine *e, uint64_t *id,
                            const struct hd_embed_request *request, hd_embed_fn on_done, void *ud,
                            struct hd_errmsg *msg)
{
    struct hd_errmsg none = {0};
    if (e->embed_busy)
        return hd_fail(msg, HD_ERR_BUSY, "the queue is full");
    struct hd_embeddings *r = calloc(1, sizeof *r);
    r->item = calloc(request->n_text, sizeof *r->item);
    r->n = request->n_text;
    r->n_dim = 3;
    *id = ++e->next_id;
    for (size_t i = 0; i < r->n; i++) {
        const struct hd_embed_text *t = &request->texts[i];
        float *v = malloc(3 * sizeof *v);
        v[0] = t->text ? (float)t->len : (float)t->n_id;
        v[1] = t->text ? (float)t->text[0] : (float)t->ids[0];
        v[2] = (float)request->as + 10 * (float)request->first_is_query;
        r->item[i].dense = v;
        r->item[i].score = (float)t->pair_len / 100;
        r->item[i].truncated = t->len > 50;
        r->n_token += t->len + t->pair_len;
    }
    on_done(ud, HD_OK, &none, r);
    return HD_OK;
}

enum hd_err hd_engine_logits(struct hd_engine *e, const char *model, const int32_t *ids,
                             size_t n_id, const int32_t *at, size_t n_at, size_t n_prefill,
                             void (*fn)(void *, int32_t, const float *, int), void *ud,
                             struct hd_errmsg *msg)
{
    return HD_ERR_UNSUPPORTED;
}

/* One token per byte. */
enum hd_err hd_engine_tokenize(struct hd_engine *e, const char *model, const char *text, size_t len,
                               int32_t **ids, size_t *n, struct hd_errmsg *msg)
{
    *ids = calloc(len ? len : 1, sizeof **ids);
    for (size_t i = 0; i < len; i++)
        (*ids)[i] = (unsigned char)text[i];
    *n = len;
    return HD_OK;
}

enum hd_err hd_engine_count_tokens(struct hd_engine *e, size_t *n, const struct hd_request *request,
                                   struct hd_errmsg *msg)
{
    *n = 0;
    for (size_t i = 0; i < request->n_message; i++)
        *n += request->messages[i].content ? strlen(request->messages[i].content) : 0;
    return HD_OK;
}

enum hd_err hd_engine_detokenize(struct hd_engine *e, const char *model, const int32_t *ids,
                                 size_t n, char **text, struct hd_errmsg *msg)
{
    *text = calloc(n + 1, 1);
    for (size_t i = 0; i < n; i++)
        (*text)[i] = (char)ids[i];
    return HD_OK;
}

void hd_engine_stats(const struct hd_engine *e, struct hd_engine_stats *out)
{
    pthread_mutex_lock(&((struct hd_engine *)e)->mu);
    *out = e->stats;
    pthread_mutex_unlock(&((struct hd_engine *)e)->mu);
}

enum hd_err hd_engine_bench(struct hd_engine *e, const char *model, int n_prompt, int n_gen,
                            int batch, struct hd_bench_result *out, struct hd_errmsg *msg)
{
    return HD_ERR_UNSUPPORTED;
}

#endif
