/* The scheduler's part of encoders: batches of whole texts, taken from the jobs in turn, so that
 * one text beside a thousand others waits for a batch, not for all of them. A batch is computed in
 * slices: between two of them the other models have their steps, so one long text costs the answers
 * beside it a slice per token, never its whole length. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/clock.h"
#include "engine/engine_impl.h"

static const double slice_s = 0.02; /* a piece that has begun is finished, hence somewhat more */

void hd_embed__take_inbox_locked(struct hd_engine *e)
{
    while (e->job_inbox) {
        struct hd_embed_job *job = e->job_inbox;
        struct hd_embed_job **end = &job->model->jobs;
        e->job_inbox = job->next;
        job->next = NULL;
        while (*end)
            end = &(*end)->next;
        *end = job;
    }
}

/* --- the end of a job ------------------------------------------------------------------------ */

static void count_end(struct hd_engine *e, const struct hd_embed_job *job, bool ok)
{
    pthread_mutex_lock(&e->mu);
    if (job->all_prev)
        job->all_prev->all_next = job->all_next;
    else
        e->all_jobs = job->all_next;
    if (job->all_next)
        job->all_next->all_prev = job->all_prev;
    e->n_job--;
    if (ok) {
        e->stats.embed_texts += job->n;
        e->stats.embed_tokens += job->out->n_token;
        for (size_t i = 0; i < job->n; i++)
            e->stats.embed_truncated += job->out->item[i].truncated;
    }
    pthread_mutex_unlock(&e->mu);
}

/* Its texts, if they are under way, are for nobody now; a batch without any is given up. */
static void leave_batch(struct hd_embed_batch *b, const struct hd_embed_job *job)
{
    bool any = false;
    for (int i = 0; i < b->n_seq; i++) {
        if (b->of_seq[i].job == job)
            b->of_seq[i].job = NULL;
        any = any || b->of_seq[i].job;
    }
    b->n_seq = any ? b->n_seq : 0;
}

static void end_job(struct hd_engine *e, struct hd_embed_job *job, enum hd_err err, const char *why)
{
    leave_batch(&job->model->under_way, job);
    struct hd_embeddings *out = job->out;
    struct hd_errmsg message = {0};
    for (struct hd_embed_job **p = &job->model->jobs; *p; p = &(*p)->next)
        if (*p == job) {
            *p = job->next;
            break;
        }
    double now = hd_clock_seconds();
    out->queue_s = (job->t_start > 0 ? job->t_start : now) - job->t_submit;
    out->compute_s = job->t_start > 0 ? now - job->t_start : 0;
    count_end(e, job, !err);
    if (err) {
        hd_fail(&message, err, "%s", why ? why : hd_err_text(err));
        out = NULL;
    } else {
        job->out = NULL; /* the callee's */
    }
    job->on_done(job->ud, err, &message, out);
    hd_embed__job_free(job);
}

void hd_embed__sweep(struct hd_engine *e, struct hd_loaded *m, bool stopping)
{
    double now = hd_clock_seconds();
    for (struct hd_embed_job *job = m->jobs, *next; job; job = next) {
        next = job->next;
        if (stopping || atomic_load(&job->cancelled))
            end_job(e, job, HD_ERR_CANCELLED, NULL);
        else if (job->deadline > 0 && now > job->deadline)
            end_job(e, job, HD_ERR_TIMEOUT, "request: its time limit has passed");
    }
}

/* --- a batch --------------------------------------------------------------------------------- */

static bool add(struct hd_loaded *m, struct hd_embed_job *job, int64_t budget)
{
    struct hd_embed_batch *b = &m->under_way;
    const struct hd_embed_row *row = &job->rows[job->n_taken];
    if (b->n_seq == HD_EMBED_SEQS || (b->n_seq && b->n + row->n > budget))
        return false;
    for (int i = 0; i < row->n; i++) {
        int32_t type = job->types.id[row->begin + (size_t)i];
        m->ids[b->n + i] = job->ids.id[row->begin + (size_t)i];
        m->positions[b->n + i] = type < m->hp->enc.n_type ? type : 0;
    }
    m->seqs[b->n_seq] = (struct hd_seq_rows){.begin = b->n, .n = row->n};
    b->of_seq[b->n_seq].job = job;
    b->of_seq[b->n_seq++].text = job->n_taken++;
    b->n += row->n;
    b->what |= job->what;
    if (job->t_start <= 0)
        job->t_start = hd_clock_seconds();
    return true;
}

/* One text of every job in turn, until the budget is spent. */
static void fill(struct hd_loaded *m, int64_t budget)
{
    m->under_way = (struct hd_embed_batch){0};
    for (bool any = true; any;) {
        any = false;
        for (struct hd_embed_job *job = m->jobs; job; job = job->next)
            if (job->n_taken < job->n) {
                if (!add(m, job, budget))
                    return;
                any = true;
            }
    }
}

/* The job at the head goes behind the others, so that each begins a batch in its turn. */
static void rotate(struct hd_loaded *m)
{
    struct hd_embed_job *first = m->jobs, **end = &m->jobs;
    if (!first || !first->next)
        return;
    m->jobs = first->next;
    first->next = NULL;
    while (*end)
        end = &(*end)->next;
    *end = first;
}

/* --- results --------------------------------------------------------------------------------- */

static float *copy_floats(const float *from, size_t n)
{
    float *copy = malloc((n ? n : 1) * sizeof *copy);
    if (copy)
        memcpy(copy, from, n * sizeof *copy);
    return copy;
}

static enum hd_err take_dense(struct hd_loaded *m, struct hd_errmsg *why)
{
    struct hd_embed_batch *b = &m->under_way;
    size_t dim = (size_t)m->hp->n_embd;
    float *all = malloc((size_t)b->n_seq * dim * sizeof *all);
    if (!all)
        return HD_ERR_NOMEM;
    enum hd_err err = hd_encoder_dense(m->encoder, all, why);
    for (int i = 0; !err && i < b->n_seq; i++) {
        struct hd_embed_job *job = b->of_seq[i].job;
        if (!job || !(job->what & HD_EMBED_DENSE))
            continue;
        struct hd_embedding *item = &job->out->item[b->of_seq[i].text];
        item->dense = copy_floats(all + (size_t)i * dim, dim);
        err = item->dense ? HD_OK : HD_ERR_NOMEM;
    }
    free(all);
    return err;
}

static int by_id(const void *a, const void *b)
{
    const struct hd_embed_weight *x = a, *y = b;
    return x->id < y->id ? -1 : x->id > y->id;
}

/* The largest weight of every id, without special tokens and what is not above zero. */
static enum hd_err lexical(struct hd_embedding *item, const struct hd_loaded *m, const int32_t *ids,
                           const float *weight, int64_t n)
{
    struct hd_embed_weight *list = malloc((size_t)n * sizeof *list);
    int32_t *out_ids = malloc((size_t)n * sizeof *out_ids);
    float *out_weight = malloc((size_t)n * sizeof *out_weight);
    size_t n_list = 0, n_out = 0;
    item->sparse_ids = out_ids;
    item->sparse_weight = out_weight;
    if (!list || !out_ids || !out_weight) {
        free(list);
        return HD_ERR_NOMEM;
    }
    for (int64_t i = 0; i < n; i++)
        if (weight[i] > 0 && ids[i] != m->cls && ids[i] != m->sep && ids[i] != m->unk &&
            ids[i] != m->pad)
            list[n_list++] = (struct hd_embed_weight){ids[i], weight[i]};
    qsort(list, n_list, sizeof *list, by_id);
    for (size_t i = 0; i < n_list; i++) {
        if (n_out && out_ids[n_out - 1] == list[i].id) {
            if (list[i].weight > out_weight[n_out - 1])
                out_weight[n_out - 1] = list[i].weight;
            continue;
        }
        out_ids[n_out] = list[i].id;
        out_weight[n_out++] = list[i].weight;
    }
    item->n_sparse = n_out;
    free(list);
    return HD_OK;
}

static enum hd_err take_sparse(struct hd_loaded *m, struct hd_errmsg *why)
{
    struct hd_embed_batch *b = &m->under_way;
    enum hd_err err = hd_encoder_sparse(m->encoder, m->row_out, why);
    for (int i = 0; !err && i < b->n_seq; i++) {
        struct hd_embed_job *job = b->of_seq[i].job;
        const struct hd_seq_rows *seq = &m->seqs[i];
        if (job && job->what & HD_EMBED_SPARSE)
            err = lexical(&job->out->item[b->of_seq[i].text], m, m->ids + seq->begin,
                          m->row_out + seq->begin, seq->n);
    }
    return err;
}

static enum hd_err take_colbert(struct hd_loaded *m, struct hd_errmsg *why)
{
    struct hd_embed_batch *b = &m->under_way;
    size_t dim = (size_t)m->hp->enc.n_colbert, bytes;
    if (!hd_mul(&bytes, (size_t)b->n * dim, sizeof(float)))
        return HD_ERR_LIMIT;
    float *all = malloc(bytes);
    if (!all)
        return HD_ERR_NOMEM;
    enum hd_err err = hd_encoder_colbert(m->encoder, all, why);
    for (int i = 0; !err && i < b->n_seq; i++) {
        struct hd_embed_job *job = b->of_seq[i].job;
        size_t n = (size_t)m->seqs[i].n - 1;
        if (!job || !(job->what & HD_EMBED_COLBERT))
            continue;
        struct hd_embedding *item = &job->out->item[b->of_seq[i].text];
        if (n * dim > job->colbert_left) {
            err = hd_fail(why, HD_ERR_LIMIT,
                          "ColBERT vectors: more than 256 MB in one request (send fewer texts)");
            break;
        }
        job->colbert_left -= n * dim;
        item->n_colbert = n;
        item->colbert = copy_floats(all + (size_t)(m->seqs[i].begin + 1) * dim, n * dim);
        err = item->colbert ? HD_OK : HD_ERR_NOMEM;
    }
    free(all);
    return err;
}

static enum hd_err take_scores(struct hd_loaded *m, struct hd_errmsg *why)
{
    struct hd_embed_batch *b = &m->under_way;
    enum hd_err err = hd_encoder_scores(m->encoder, m->row_out, why);
    for (int i = 0; !err && i < b->n_seq; i++) {
        struct hd_embed_job *job = b->of_seq[i].job;
        if (!job)
            continue;
        struct hd_embedding *item = &job->out->item[b->of_seq[i].text];
        item->logit = m->row_out[i];
        item->score = (float)(1 / (1 + exp(-(double)item->logit)));
    }
    return err;
}

static void note_texts(struct hd_embed_batch *b)
{
    for (int i = 0; i < b->n_seq; i++) {
        struct hd_embed_job *job = b->of_seq[i].job;
        if (!job)
            continue;
        const struct hd_embed_row *row = &job->rows[b->of_seq[i].text];
        struct hd_embedding *item = &job->out->item[b->of_seq[i].text];
        item->n_token = row->n;
        item->truncated = row->truncated;
        job->out->n_token += (uint64_t)row->n;
        job->n_done++;
    }
}

/* Fills a batch and begins its pass. False where nothing waits. */
static bool begin(struct hd_engine *e, struct hd_loaded *m, enum hd_err *err, struct hd_errmsg *why)
{
    struct hd_embed_batch *b = &m->under_way;
    int64_t budget = e->options.max_batch_tokens;
    if (!m->jobs)
        return false;
    /* Beside running generations a quarter: its pieces are short. */
    if (hd_scheduler__n_running(e) && budget > 256)
        budget /= 4;
    fill(m, budget);
    rotate(m);
    if (!b->n_seq)
        return false;
    const struct hd_encoder_batch batch = {
        .ids = m->ids, .types = m->positions, .n = b->n, .seqs = m->seqs, .n_seq = b->n_seq};
    *err = hd_encoder_begin(m->encoder, &batch, why);
    return true;
}

static enum hd_err take_results(struct hd_loaded *m, struct hd_errmsg *why)
{
    enum hd_err err = HD_OK;
    unsigned what = m->under_way.what;
    if (what & HD_EMBED_DENSE)
        err = take_dense(m, why);
    if (!err && what & HD_EMBED_SPARSE)
        err = take_sparse(m, why);
    if (!err && what & HD_EMBED_COLBERT)
        err = take_colbert(m, why);
    if (!err && what & HD_EMBED_SCORE)
        err = take_scores(m, why);
    if (!err)
        note_texts(&m->under_way);
    return err;
}

/* The batch is computed, or failed: jobs that are through end. */
static void end_batch(struct hd_engine *e, struct hd_loaded *m, enum hd_err err,
                      struct hd_errmsg *why)
{
    struct hd_embed_batch *b = &m->under_way;
    if (err && !why->text[0])
        hd_fail(why, err, "embed: %s", hd_err_text(err));
    for (int i = 0; i < b->n_seq; i++) {
        struct hd_embed_job *job = b->of_seq[i].job;
        if (job && (err || job->n_done == job->n))
            end_job(e, job, err, why->text);
    }
    b->n_seq = 0;
}

bool hd_embed__step(struct hd_engine *e, struct hd_loaded *m)
{
    struct hd_errmsg why = {0};
    enum hd_err err = HD_OK;
    bool done = false;
    if (!m->under_way.n_seq && !begin(e, m, &err, &why))
        return false;
    double end = hd_clock_seconds() + slice_s;
    while (!err && !done) {
        err = hd_encoder_step(m->encoder, &done, &why);
        if (!err && !done && hd_clock_seconds() >= end)
            return true;
    }
    if (!err)
        err = take_results(m, &why);
    end_batch(e, m, err, &why);
    return true;
}
