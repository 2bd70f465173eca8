/* Vectors and scores: from a request to a job, on the caller's thread; and its end. */
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/clock.h"
#include "engine/engine_impl.h"

enum {
    MAX_TEXT_IDS = 1 << 20,        /* tokens of one text before it is cut */
    MAX_JOB_IDS = 1 << 22,         /* of all texts of a request, after */
    MAX_COLBERT_FLOATS = 64 << 20, /* of a request's result: 256 MB */
};

/* --- results --------------------------------------------------------------------------------- */

void hd_embeddings_free(struct hd_embeddings *out)
{
    if (!out)
        return;
    for (size_t i = 0; i < out->n; i++) {
        struct hd_embedding *item = &out->item[i];
        free((void *)item->dense);
        free((void *)item->sparse_ids);
        free((void *)item->sparse_weight);
        free((void *)item->colbert);
    }
    free(out->item);
    free(out);
}

void hd_embed__job_free(struct hd_embed_job *job)
{
    if (!job)
        return;
    hd_embeddings_free(job->out);
    free(job->rows);
    free(job->ids);
    free(job);
}

/* --- tokenizing ------------------------------------------------------------------------------ */

/* Ids of one segment without special tokens. */
static enum hd_err segment(struct hd_ids *out, const struct hd_loaded *m, const char *prefix,
                           const char *text, size_t len, struct hd_errmsg *msg)
{
    struct hd_buf whole;
    enum hd_err err;
    if (!m->tokenizer)
        return hd_fail(msg, HD_ERR_UNSUPPORTED,
                       "%s: the model carries no tokenizer (give token ids instead)", m->name);
    if (*prefix) {
        hd_buf_init(&whole, len + strlen(prefix) + 1);
        hd_buf_puts(&whole, prefix);
        hd_buf_append(&whole, text, len);
        err = whole.err ? whole.err
                        : hd_tokenizer_encode(m->tokenizer, out, whole.data, whole.len, false);
        hd_buf_dispose(&whole);
    } else {
        err = hd_tokenizer_encode(m->tokenizer, out, text, len, false);
    }
    if (!err)
        err = out->err;
    if (err == HD_ERR_LIMIT)
        return hd_fail(msg, err, "text: more than %d tokens (split it into passages)",
                       MAX_TEXT_IDS);
    return err ? hd_fail(msg, err, "text: %s", hd_err_text(err)) : HD_OK;
}

static enum hd_err given_ids(struct hd_ids *out, const struct hd_loaded *m,
                             const struct hd_embed_text *text, struct hd_errmsg *msg)
{
    for (size_t i = 0; i < text->n_id; i++) {
        if (text->ids[i] < 0 || text->ids[i] >= m->hp->n_vocab)
            return hd_fail(msg, HD_ERR_INVALID, "text: token id %d at %zu is not in 0 … %d",
                           text->ids[i], i, m->hp->n_vocab - 1);
        hd_ids_push(out, text->ids[i]);
    }
    return out->err ? hd_fail(msg, out->err, "text: more than %d tokens", MAX_TEXT_IDS) : HD_OK;
}

/* Cuts the segments so that they fit with `n_special` tokens beside them. A query may take three
 * quarters of the room, as the published re-rankers cut it; the document gets the rest. */
static bool cut(size_t *a, size_t *b, size_t n_ctx, size_t n_special, bool pair)
{
    size_t room = n_ctx > n_special ? n_ctx - n_special : 0, was_a = *a, was_b = *b;
    size_t most = pair ? room * 3 / 4 : room;
    if (*a > most && *a + *b > room)
        *a = most;
    if (*b > room - *a)
        *b = room - *a;
    return *a < was_a || *b < was_b;
}

static void append(struct hd_ids *out, const struct hd_ids *from, size_t n)
{
    for (size_t i = 0; i < n; i++)
        hd_ids_push(out, from->id[i]);
}

static void append_special(struct hd_ids *out, int32_t id)
{
    if (id >= 0)
        hd_ids_push(out, id);
}

/* [CLS] a [SEP], or [CLS] a [SEP] b [SEP]; RoBERTa writes <s> a </s></s> b </s>. */
static void compose(struct hd_ids *out, struct hd_embed_row *row, const struct hd_loaded *m,
                    const struct hd_ids *a, const struct hd_ids *b,
                    const struct hd_embed_text *text)
{
    bool pair = text->pair != NULL, plain = text->ids && !text->add_special;
    int32_t cls = plain ? -1 : m->cls, sep = plain ? -1 : m->sep;
    size_t n_a = a->n, n_b = b->n, begin = out->n;
    size_t n_special = (size_t)(cls >= 0) + (sep < 0 ? 0 : !pair ? 1 : m->two_seps ? 3 : 2);
    row->truncated = cut(&n_a, &n_b, (size_t)m->n_ctx, n_special, pair);
    append_special(out, cls);
    append(out, a, n_a);
    append_special(out, sep);
    row->n_first = (int)(out->n - begin);
    if (pair) {
        if (m->two_seps)
            append_special(out, sep);
        append(out, b, n_b);
        append_special(out, sep);
    }
    row->n = (int)(out->n - begin);
}

static const char *prefix_of(const struct hd_loaded *m, enum hd_embed_as as)
{
    const struct hd_encoder_hparams *enc = &m->hp->enc;
    return as == HD_AS_QUERY ? enc->query_prefix : as == HD_AS_PASSAGE ? enc->passage_prefix : "";
}

static enum hd_err add_text(struct hd_embed_job *job, struct hd_ids *all, size_t i,
                            const struct hd_embed_text *text, enum hd_embed_as as,
                            struct hd_errmsg *msg)
{
    const struct hd_loaded *m = job->model;
    struct hd_ids a, b;
    hd_ids_init(&a, MAX_TEXT_IDS);
    hd_ids_init(&b, MAX_TEXT_IDS);
    enum hd_err err = HD_OK;
    if ((text->text != NULL) == (text->ids != NULL))
        err = hd_fail(msg, HD_ERR_INVALID, "text: either characters or token ids must be given");
    else if (text->text)
        err = segment(&a, m, prefix_of(m, as), text->text, text->len, msg);
    else
        err = given_ids(&a, m, text, msg);
    if (!err && text->pair)
        err = segment(&b, m, "", text->pair, text->pair_len, msg);
    if (!err)
        compose(all, &job->rows[i], m, &a, &b, text);
    if (!err && all->err)
        err = all->err == HD_ERR_LIMIT
                  ? hd_fail(msg, HD_ERR_LIMIT, "texts: more than %d tokens in one request",
                            MAX_JOB_IDS)
                  : hd_fail(msg, all->err, "texts: %s", hd_err_text(all->err));
    if (!err && !job->rows[i].n)
        err = hd_fail(msg, HD_ERR_INVALID, "text: empty");
    hd_ids_dispose(&a);
    hd_ids_dispose(&b);
    return err;
}

/* --- jobs ------------------------------------------------------------------------------------ */

static enum hd_err find_model(struct hd_loaded **out, struct hd_engine *e,
                              const struct hd_embed_request *r, struct hd_errmsg *msg)
{
    bool named = r->model && *r->model, score = r->what & HD_EMBED_SCORE;
    *out = named ? hd_engine__find(e, r->model)
                 : hd_engine__find_kind(e, score ? HD_MODEL_RERANKER : HD_MODEL_ENCODER);
    if (!*out)
        return named ? hd_fail(msg, HD_ERR_NOTFOUND, "model %s is not loaded", r->model)
                     : hd_fail(msg, HD_ERR_NOTFOUND, "no %s is loaded",
                               score ? "re-ranker" : "encoder");
    const struct hd_encoder_hparams *enc = &(*out)->hp->enc;
    const char *name = (*out)->name;
    if (hd_loaded__kind(*out) == HD_MODEL_LANGUAGE)
        return hd_fail(msg, HD_ERR_UNSUPPORTED,
                       "%s: is a language model, which makes no vectors or scores of texts (use "
                       "an encoder such as e5-small)",
                       name);
    if (score != enc->score_head)
        return hd_fail(msg, HD_ERR_UNSUPPORTED,
                       score ? "%s: is no re-ranker (it makes vectors of single texts)"
                             : "%s: is a re-ranker, which scores pairs of texts and makes no "
                               "vectors (use an encoder)",
                       name);
    if (r->what & HD_EMBED_DENSE && enc->pooling == HD_POOLING_NONE)
        return hd_fail(msg, HD_ERR_UNSUPPORTED,
                       "%s: the file names no pooling (mean or cls), so a text has no one vector",
                       name);
    if ((r->what & HD_EMBED_SPARSE && !enc->sparse_head) ||
        (r->what & HD_EMBED_COLBERT && !enc->colbert_head))
        return hd_fail(msg, HD_ERR_UNSUPPORTED,
                       "%s: the model has no %s head (BGE-M3 has one, in a folder with its "
                       "sparse_linear.pt and colbert_linear.pt)",
                       name, r->what & HD_EMBED_SPARSE && !enc->sparse_head ? "sparse" : "ColBERT");
    return HD_OK;
}

static enum hd_err check_request(const struct hd_embed_request *r, struct hd_errmsg *msg)
{
    const unsigned vectors = HD_EMBED_DENSE | HD_EMBED_SPARSE | HD_EMBED_COLBERT;
    bool score = r->what == HD_EMBED_SCORE;
    if (!score && (!r->what || r->what & ~vectors))
        return hd_fail(msg, HD_ERR_INVALID, "embed: either vectors or scores must be asked for");
    if (!r->n_text || r->n_text > HD_EMBED_MAX_TEXTS)
        return hd_fail(msg, HD_ERR_INVALID, "embed: 1 to %d texts per request, not %zu",
                       HD_EMBED_MAX_TEXTS, r->n_text);
    if (!(r->timeout_s >= 0 && r->timeout_s < 1e9))
        return hd_fail(msg, HD_ERR_INVALID, "embed: the timeout must be 0 or more seconds");
    for (size_t i = 0; i < r->n_text; i++)
        if ((r->texts[i].pair != NULL) != score)
            return hd_fail(msg, HD_ERR_INVALID,
                           "embed: scores are of pairs, vectors of single texts (text %zu)", i);
    return HD_OK;
}

static enum hd_err new_job(struct hd_embed_job **out, struct hd_loaded *m,
                           const struct hd_embed_request *r, struct hd_errmsg *msg)
{
    struct hd_ids all;
    struct hd_embed_job *job = calloc(1, sizeof *job);
    hd_ids_init(&all, MAX_JOB_IDS);
    enum hd_err err = HD_OK;
    *out = NULL;
    if (job) {
        job->rows = calloc(r->n_text, sizeof *job->rows);
        job->out = calloc(1, sizeof *job->out);
    }
    if (job && job->out)
        job->out->item = calloc(r->n_text, sizeof *job->out->item);
    if (!job || !job->rows || !job->out || !job->out->item) {
        err = hd_fail(msg, HD_ERR_NOMEM, "embed: out of memory");
        goto out;
    }
    job->model = m;
    job->what = r->what;
    job->n = job->out->n = r->n_text;
    job->colbert_left = MAX_COLBERT_FLOATS;
    job->out->n_dim = r->what & HD_EMBED_DENSE ? m->hp->n_embd : 0;
    job->out->n_colbert_dim = r->what & HD_EMBED_COLBERT ? m->hp->enc.n_colbert : 0;
    job->t_submit = hd_clock_seconds();
    job->deadline = r->timeout_s > 0 ? job->t_submit + r->timeout_s : 0;
    for (size_t i = 0; !err && i < r->n_text; i++)
        err = add_text(job, &all, i, &r->texts[i], r->as, msg);
    if (err)
        goto out;
    job->ids = all.id;
    all.id = NULL;
    int32_t *at = job->ids;
    for (size_t i = 0; i < job->n; i++) {
        job->rows[i].ids = at;
        at += job->rows[i].n;
    }
    *out = job;
    job = NULL;
out:
    hd_ids_dispose(&all);
    hd_embed__job_free(job);
    return err;
}

static enum hd_err enqueue(struct hd_engine *e, struct hd_embed_job *job, uint64_t *out_id,
                           struct hd_errmsg *msg)
{
    enum hd_err err = HD_OK;
    pthread_mutex_lock(&e->mu);
    if (e->stopping) {
        err = hd_fail(msg, HD_ERR_UNAVAILABLE, "engine: shutting down");
    } else if (e->n_job >= e->options.max_sessions + e->options.max_queue) {
        err = hd_fail(msg, HD_ERR_BUSY,
                      "engine: %d requests for vectors run or wait already (try again later)",
                      e->n_job);
        e->stats.refused++;
    } else {
        job->id = e->next_id++;
        if (out_id)
            *out_id = job->id;
        if (!e->n_session && !e->n_job)
            e->last_step_end = hd_clock_seconds(); /* idle until now */
        e->n_job++;
        e->stats.embed_requests++;
        job->all_next = e->all_jobs;
        if (e->all_jobs)
            e->all_jobs->all_prev = job;
        e->all_jobs = job;
        struct hd_embed_job **end = &e->job_inbox;
        while (*end)
            end = &(*end)->next;
        *end = job;
        pthread_cond_signal(&e->wake);
    }
    pthread_mutex_unlock(&e->mu);
    return err;
}

enum hd_err hd_engine_embed(struct hd_engine *e, uint64_t *out_id, const struct hd_embed_request *r,
                            hd_embed_fn on_done, void *ud, struct hd_errmsg *msg)
{
    struct hd_loaded *m;
    struct hd_embed_job *job;
    enum hd_err err = check_request(r, msg);
    if (!err)
        err = find_model(&m, e, r, msg);
    if (!err)
        err = new_job(&job, m, r, msg);
    if (err)
        return err;
    job->on_done = on_done;
    job->ud = ud;
    err = enqueue(e, job, out_id, msg);
    if (err)
        hd_embed__job_free(job);
    return err;
}

/* --- waiting --------------------------------------------------------------------------------- */

struct waiter {
    pthread_mutex_t mu;
    pthread_cond_t ended;
    bool done;
    enum hd_err err;
    struct hd_errmsg message;
    struct hd_embeddings *result;
};

static void on_done(void *ud, enum hd_err err, const struct hd_errmsg *message,
                    struct hd_embeddings *result)
{
    struct waiter *w = ud;
    pthread_mutex_lock(&w->mu);
    w->err = err;
    w->result = result;
    if (err)
        w->message = *message;
    w->done = true;
    pthread_cond_signal(&w->ended);
    pthread_mutex_unlock(&w->mu);
}

enum hd_err hd_engine_embed_wait(struct hd_engine *e, struct hd_embeddings **out,
                                 const struct hd_embed_request *request, struct hd_errmsg *msg)
{
    struct waiter w = {0};
    *out = NULL;
    pthread_mutex_init(&w.mu, NULL);
    pthread_cond_init(&w.ended, NULL);
    enum hd_err err = hd_engine_embed(e, NULL, request, on_done, &w, msg);
    if (!err) {
        pthread_mutex_lock(&w.mu);
        while (!w.done)
            pthread_cond_wait(&w.ended, &w.mu);
        pthread_mutex_unlock(&w.mu);
        err = w.err ? hd_fail(msg, w.err, "%s", w.message.text) : HD_OK;
        *out = w.result;
    }
    pthread_cond_destroy(&w.ended);
    pthread_mutex_destroy(&w.mu);
    return err;
}

enum hd_err hd_engine_rerank(struct hd_engine *e, float *score, const char *model,
                             const struct hd_principal *principal, const char *query,
                             const char *const *documents, size_t n, struct hd_errmsg *msg)
{
    struct hd_embeddings *result = NULL;
    struct hd_embed_text *texts = calloc(n ? n : 1, sizeof *texts);
    if (!texts)
        return hd_fail(msg, HD_ERR_NOMEM, "rerank: out of memory");
    for (size_t i = 0; i < n; i++)
        texts[i] = (struct hd_embed_text){.text = query,
                                          .len = strlen(query),
                                          .pair = documents[i],
                                          .pair_len = strlen(documents[i])};
    const struct hd_embed_request request = {.model = model,
                                             .principal = principal,
                                             .what = HD_EMBED_SCORE,
                                             .texts = texts,
                                             .n_text = n};
    enum hd_err err = hd_engine_embed_wait(e, &result, &request, msg);
    for (size_t i = 0; !err && i < n; i++)
        score[i] = result->item[i].score;
    hd_embeddings_free(result);
    free(texts);
    return err;
}
