/* Vectors and scores: from a request to a job, on the caller's thread; and its end. */
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/clock.h"
#include "engine/engine_impl.h"

enum {
    MAX_JOB_IDS = 1 << 22,         /* tokens of all texts of a request, after cutting */
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
    hd_ids_dispose(&job->ids);
    hd_ids_dispose(&job->types);
    free(job);
}

/* --- tokenizing ------------------------------------------------------------------------------ */

static enum hd_err text_err(enum hd_err err, struct hd_errmsg *msg)
{
    if (err == HD_ERR_LIMIT)
        return hd_fail(msg, err, "texts: more than %d tokens in one request (send fewer)",
                       MAX_JOB_IDS);
    if (err == HD_ERR_UNSUPPORTED)
        return hd_fail(msg, err, "text: the tokenizer has no template for pairs of texts");
    return hd_fail(msg, err, "text: %s", hd_err_text(err));
}

/* Characters, in the model's template ([CLS] A [SEP], <s> A </s></s> B </s>, …), cut to fit. */
static enum hd_err add_characters(struct hd_embed_job *job, struct hd_embed_row *row,
                                  const struct hd_embed_text *text, const char *prefix,
                                  struct hd_errmsg *msg)
{
    const struct hd_loaded *m = job->model;
    struct hd_token_input input = {.text = text->text,
                                   .len = text->len,
                                   .pair = text->pair,
                                   .pair_len = text->pair_len,
                                   .max = (size_t)m->n_ctx};
    struct hd_buf whole;
    size_t n_cut = 0;
    enum hd_err err = HD_OK;
    if (!m->tokenizer)
        return hd_fail(msg, HD_ERR_UNSUPPORTED,
                       "%s: the model carries no tokenizer (give token ids instead)", m->name);
    hd_buf_init(&whole, text->len + strlen(prefix) + 1);
    if (*prefix) {
        hd_buf_puts(&whole, prefix);
        err = hd_buf_append(&whole, text->text, text->len);
        input.text = hd_buf_str(&whole);
        input.len = whole.len;
    }
    if (!err)
        err = hd_tokenizer_encode_input(m->tokenizer, &job->ids, &job->types, &input, &n_cut);
    hd_buf_dispose(&whole);
    row->truncated = n_cut > 0;
    return err ? text_err(err, msg) : HD_OK;
}

/* Token ids, as they are or as those of a text between the special tokens, cut to fit. */
static enum hd_err add_ids(struct hd_embed_job *job, struct hd_embed_row *row,
                           const struct hd_embed_text *text, struct hd_errmsg *msg)
{
    const struct hd_loaded *m = job->model;
    int32_t cls = text->add_special ? m->cls : -1, sep = text->add_special ? m->sep : -1;
    size_t room = (size_t)(m->n_ctx - (cls >= 0) - (sep >= 0));
    size_t n = text->n_id < room ? text->n_id : room;
    row->truncated = n < text->n_id;
    if (cls >= 0)
        hd_ids_push(&job->ids, cls);
    for (size_t i = 0; i < n; i++) {
        if (text->ids[i] < 0 || text->ids[i] >= m->hp->n_vocab)
            return hd_fail(msg, HD_ERR_INVALID, "text: token id %d at %zu is not in 0 … %d",
                           text->ids[i], i, m->hp->n_vocab - 1);
        hd_ids_push(&job->ids, text->ids[i]);
    }
    if (sep >= 0)
        hd_ids_push(&job->ids, sep);
    while (!job->types.err && job->types.n < job->ids.n)
        hd_ids_push(&job->types, 0);
    return job->ids.err || job->types.err
               ? text_err(job->ids.err ? job->ids.err : job->types.err, msg)
               : HD_OK;
}

static const char *prefix_of(const struct hd_loaded *m, enum hd_embed_as as)
{
    const struct hd_encoder_hparams *enc = &m->hp->enc;
    return as == HD_AS_QUERY ? enc->query_prefix : as == HD_AS_PASSAGE ? enc->passage_prefix : "";
}

static enum hd_err add_text(struct hd_embed_job *job, size_t i, const struct hd_embed_text *text,
                            enum hd_embed_as as, struct hd_errmsg *msg)
{
    struct hd_embed_row *row = &job->rows[i];
    enum hd_err err;
    row->begin = job->ids.n;
    if ((text->text != NULL) == (text->ids != NULL))
        err = hd_fail(msg, HD_ERR_INVALID, "text: either characters or token ids must be given");
    else if (text->text)
        err = add_characters(job, row, text, prefix_of(job->model, as), msg);
    else
        err = add_ids(job, row, text, msg);
    row->n = (int)(job->ids.n - row->begin);
    if (!err && (!row->n || row->n > job->model->n_ctx || job->types.n != job->ids.n))
        err = hd_fail(msg, HD_ERR_INVALID, "text: %d tokens, 1 to %d can be computed", row->n,
                      job->model->n_ctx);
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
        if ((r->texts[i].pair || r->texts[i].ids) < score || (r->texts[i].pair && !score))
            return hd_fail(msg, HD_ERR_INVALID,
                           "embed: scores are of pairs, vectors of single texts (text %zu)", i);
    return HD_OK;
}

static enum hd_err new_job(struct hd_embed_job **out, struct hd_loaded *m,
                           const struct hd_embed_request *r, struct hd_errmsg *msg)
{
    struct hd_embed_job *job = calloc(1, sizeof *job);
    enum hd_err err = HD_OK;
    *out = NULL;
    if (job) {
        hd_ids_init(&job->ids, MAX_JOB_IDS);
        hd_ids_init(&job->types, MAX_JOB_IDS);
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
        err = add_text(job, i, &r->texts[i], !i && r->first_is_query ? HD_AS_QUERY : r->as, msg);
    if (!err) {
        *out = job;
        job = NULL;
    }
out:
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
