/* The scheduler thread: sole owner of sessions, KV and the compute pool.
 *
 * One turn of the loop: what other threads left (requests, calls, cancellations), deadlines,
 * admissions; then one step of every model: all running generations by one token, then up to a
 * budget of prompt tokens. So a long prompt costs the generations beside it one chunk's time per
 * token, never its whole length. Who is admitted, who makes place and how the budget is shared is
 * decided in policy.c; a session that lost its blocks replays later (engine_impl.h). */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "engine/engine_impl.h"
#include "engine/row.h"

/* --- waiting and running --------------------------------------------------------------------- */

static struct hd_session *session_of(struct hd_work *w)
{
    return (struct hd_session *)w; /* its first member */
}

int hd_scheduler__n_running(const struct hd_engine *e)
{
    int n = 0;
    for (size_t i = 0; i < e->n_seen; i++)
        n += e->model[i]->policy ? hd_policy_n_running(e->model[i]->policy) : 0;
    return n;
}

void hd_scheduler__note_admitted(struct hd_engine *e, struct hd_session *s)
{
    if (s->admitted)
        return;
    s->admitted = true;
    s->t_admit = hd_clock_seconds();
    s->result.n_cached = s->w.n_done;
    uint64_t ahead = 0;
    for (int i = 0; i < s->w.n_found; i++)
        ahead += hd_blocks_is_ahead(s->model->blocks, s->w.table[i]) ? HD_KV_BLOCK : 0;
    pthread_mutex_lock(&e->mu);
    e->stats.ahead_used += ahead;
    e->stats.prompt_tokens += (uint64_t)s->w.n_prompt;
    e->stats.cached_tokens += (uint64_t)s->w.n_done;
    pthread_mutex_unlock(&e->mu);
}

static bool admit_all(struct hd_engine *e, struct hd_loaded *m)
{
    bool any = false;
    struct hd_work *w;
    while ((w = hd_policy_admit(m->policy, e->options.max_sessions - hd_scheduler__n_running(e)))) {
        if (!w->background)
            hd_scheduler__note_admitted(e, session_of(w));
        else if (!hd_work_in_prefill(w))
            hd_turn__end(e, session_of(w)); /* all of it is there already */
        any = true;
    }
    return any;
}

struct sweeping {
    struct hd_engine *engine;
    double now;
    bool stopping;
};

static void end_if_due(void *ud, struct hd_work *w)
{
    const struct sweeping *sweeping = ud;
    struct hd_session *s = session_of(w);
    if (sweeping->stopping || atomic_load(&s->cancelled))
        hd_session__finish(sweeping->engine, s, HD_FINISH_CANCELLED, HD_ERR_CANCELLED, NULL);
    else if (s->deadline > 0 && sweeping->now > s->deadline)
        hd_session__finish(sweeping->engine, s, HD_FINISH_ERROR, HD_ERR_TIMEOUT,
                           "request: its time limit has passed");
}

static void sweep(struct hd_engine *e, struct hd_loaded *m, bool stopping)
{
    struct sweeping sweeping = {e, hd_clock_seconds(), stopping};
    for (int i = hd_policy_n_running(m->policy); i-- > 0;)
        end_if_due(&sweeping, hd_policy_running(m->policy, i));
    hd_policy_each_waiting(m->policy, end_if_due, &sweeping);
}

/* --- one batch ------------------------------------------------------------------------------- */

struct step {
    struct hd_engine *engine;
    struct hd_loaded *model;
    struct hd_batch batch;
};

/* Appends rows [s->w.n_done, s->w.n_done + n) of a session; want: the last row's logits. */
static void add_rows(struct step *step, struct hd_session *s, int n, bool want)
{
    struct hd_loaded *m = step->model;
    struct hd_batch *b = &step->batch;
    m->seqs[b->n_seq] = (struct hd_seq_rows){b->n, n, s->w.n_done, s->w.table};
    m->of_seq[b->n_seq++] = s;
    for (int i = 0; i < n; i++) {
        m->ids[b->n] = s->ids[s->w.n_done + i];
        m->positions[b->n++] = s->w.n_done + i;
    }
    if (want)
        m->out_rows[b->n_out++] = (int32_t)b->n - 1;
}

static void fail_all(struct step *step, enum hd_err err, const char *why)
{
    for (int i = 0; i < step->batch.n_seq; i++) {
        struct hd_session *s = step->model->of_seq[i];
        if (s->w.background)
            hd_turn__end(step->engine, s);
        else
            hd_session__finish(step->engine, s, HD_FINISH_ERROR, err, why);
    }
}

static void report_watched(struct hd_session *s, const float *logits, double norm)
{
    for (size_t i = 0; i < s->n_watch; i++)
        s->result.watch_logprob[i] = (float)(logits[s->watch[i]] - norm);
}

/* Chooses the next token of picks [begin, end): every row by itself, whoever computes it. */
static void pick(struct hd_loaded *m, size_t begin, size_t end, int thread, bool alone)
{
    struct hd_candidate *scratch = m->candidates + (size_t)thread * (size_t)m->hp->n_vocab;
    for (size_t i = begin; i < end; i++) {
        struct hd_session *s = m->picks[i].session;
        float *logits = m->picks[i].logits;
        if (hd_session__picks_alone(s) != alone)
            continue;
        double norm = hd_row_log_norm(logits, m->hp->n_vocab);
        if (s->w.n_id == s->w.n_prompt)
            report_watched(s, logits, norm);
        m->picks[i].id = hd_session__pick(s, logits, norm, scratch);
    }
}

static void pick_share(void *ud, size_t begin, size_t end, int thread)
{
    pick(ud, begin, end, thread, false);
}

static void take_token(struct hd_engine *e, struct hd_session *s, int32_t id)
{
    free(s->first_logits);
    s->first_logits = NULL;
    if (id < 0)
        hd_session__finish(e, s, HD_FINISH_ERROR, HD_ERR_INTERNAL,
                           s->constraint
                               ? "grammar: no token can go on here, or it has too many states"
                               : "generation: the model gave no number for any token (damaged "
                                 "weights?)");
    else
        hd_session__token(e, s, id);
}

/* The sessions of the rows whose logits were wanted, in their order, to the front of of_seq. */
static int64_t keep_wanted(struct step *step)
{
    struct hd_loaded *m = step->model;
    int64_t n = 0;
    for (int i = 0; i < step->batch.n_seq && n < step->batch.n_out; i++)
        if (m->seqs[i].begin + m->seqs[i].n - 1 == m->out_rows[n])
            m->of_seq[n++] = m->of_seq[i];
    return n;
}

/* Samples for the sequences whose last row was wanted, in pieces that the logits buffer holds. */
static void sample(struct step *step)
{
    struct hd_loaded *m = step->model;
    struct hd_engine *e = step->engine;
    int64_t n_want = keep_wanted(step);
    for (int64_t at = 0, n; at < n_want; at += n) {
        struct hd_errmsg why = {0};
        n = n_want - at < m->n_out_max ? n_want - at : m->n_out_max;
        float *rows = NULL;
        enum hd_err err = hd_runner_logits_view(m->runner, &rows, at, n, &why);
        for (int64_t i = at; err && i < n_want; i++) /* those before them have their tokens */
            hd_session__finish(e, m->of_seq[i], HD_FINISH_ERROR, err, why.text);
        if (err)
            return;
        int n_pick = 0;
        for (int64_t i = 0; i < n; i++) {
            struct hd_session *s = m->of_seq[at + i];
            float *logits = rows + i * m->hp->n_vocab;
            m->picks[n_pick++] = (struct hd_pick){s, logits, -1};
            if (s->siblings)
                n_pick += hd_fork__siblings(e, s, logits, m->picks + n_pick);
        }
        hd_pool_run(e->pool, (size_t)n_pick, 1, pick_share, m);
        pick(m, 0, (size_t)n_pick, 0, true);
        for (int i = 0; i < n_pick; i++)
            take_token(e, m->picks[i].session, m->picks[i].id);
    }
}

static bool run_step(struct step *step)
{
    struct hd_loaded *m = step->model;
    struct hd_errmsg why = {0};
    if (!step->batch.n)
        return false;
    step->batch.ids = m->ids;
    step->batch.positions = m->positions;
    step->batch.seqs = m->seqs;
    step->batch.out_rows = m->out_rows;
    enum hd_err err = hd_runner_forward(m->runner, &step->batch, &why);
    if (err) {
        fail_all(step, err, why.text);
        return true;
    }
    for (int i = 0; i < step->batch.n_seq; i++)
        hd_policy_computed(m->policy, &m->of_seq[i]->w, (int)m->seqs[i].n);
    sample(step);
    return true;
}

static bool decode(struct hd_engine *e, struct hd_loaded *m)
{
    struct step step = {.engine = e, .model = m, .batch = {.form = HD_FORM_DECODE}};
    hd_policy_grow(m->policy);
    int n = hd_policy_plan_decode(m->policy, m->plan);
    for (int i = 0; i < n; i++) {
        struct hd_session *s = session_of(m->plan[i].work);
        add_rows(&step, s, 1, s->w.n_done + 1 == s->w.n_id);
    }
    return run_step(&step);
}

/* The background work's rows are there: what comes next will find them. */
static void note_background(struct hd_engine *e, struct hd_loaded *m, int from)
{
    struct hd_session *s = session_of(hd_policy_background(m->policy));
    for (int i = from / HD_KV_BLOCK; i < s->w.n_done / HD_KV_BLOCK; i++)
        hd_blocks_set_ahead(m->blocks, s->w.table[i]);
    pthread_mutex_lock(&e->mu);
    e->stats.ahead_tokens += (uint64_t)(s->w.n_done - from);
    pthread_mutex_unlock(&e->mu);
    if (!hd_work_in_prefill(&s->w))
        hd_turn__end(e, s);
}

/* Little at a time, since who comes waits for it. */
static bool prefill_background(struct hd_engine *e, struct hd_loaded *m)
{
    enum { ROWS = HD_KV_BLOCK / 2 };
    struct step step = {.engine = e, .model = m, .batch = {.form = HD_FORM_PROMPT}};
    int n = hd_policy_plan_prefill(m->policy, m->plan, 1, ROWS);
    if (!n)
        return false;
    struct hd_session *s = session_of(m->plan[0].work);
    int from = s->w.n_done;
    add_rows(&step, s, m->plan[0].n, false);
    run_step(&step);
    if (hd_policy_background(m->policy))
        note_background(e, m, from);
    return true;
}

/* Rows of prompts beside running generations, which wait for them: what takes about chunk_s by the
 * rate of the passes before, at least a block. */
static int rows_beside(const struct hd_engine *e, const struct hd_loaded *m)
{
    static const double chunk_s = 0.2;
    int most = e->options.max_batch_tokens, n = (int)fmin(m->prompt_rate * chunk_s, most);
    if (m->prompt_rate <= 0)
        n = most / 4;
    n = n / HD_KV_BLOCK * HD_KV_BLOCK;
    return n > HD_KV_BLOCK ? n : most < HD_KV_BLOCK ? most : HD_KV_BLOCK;
}

/* A pass over few rows tells little: the weights' way from memory is most of it. */
static void note_rate(struct hd_loaded *m, int n_row, double seconds)
{
    if (n_row < HD_KV_BLOCK || seconds <= 0)
        return;
    double rate = n_row / seconds;
    m->prompt_rate = m->prompt_rate > 0 ? (m->prompt_rate + rate) / 2 : rate;
}

static bool prefill(struct hd_engine *e, struct hd_loaded *m)
{
    hd_spilling__restore(e, m);
    struct hd_work *background = hd_policy_background(m->policy);
    if (background && background->n_block && !hd_work_in_prefill(background)) {
        hd_turn__end(e, session_of(background)); /* all of it was brought back */
        return true;
    }
    if (background && !hd_policy_n_running(m->policy))
        return prefill_background(e, m);
    struct step step = {.engine = e, .model = m, .batch = {.form = HD_FORM_PROMPT}};
    int n_decode = 0;
    for (int i = 0; i < hd_policy_n_running(m->policy); i++)
        n_decode += !hd_work_in_prefill(hd_policy_running(m->policy, i));
    int budget = n_decode ? rows_beside(e, m) : e->options.max_batch_tokens;
    int n = hd_policy_plan_prefill(m->policy, m->plan, e->options.max_sessions, budget);
    for (int i = 0; i < n; i++) {
        struct hd_session *s = session_of(m->plan[i].work);
        bool ends = s->w.n_done + m->plan[i].n == s->w.n_prompt;
        add_rows(&step, s, m->plan[i].n, ends && s->w.n_id == s->w.n_prompt);
    }
    double start = hd_clock_seconds();
    bool progressed = run_step(&step);
    note_rate(m, (int)step.batch.n, hd_clock_seconds() - start);
    return progressed;
}

/* --- the loop -------------------------------------------------------------------------------- */

static struct hd_session *take_inbox_locked(struct hd_engine *e)
{
    struct hd_session *list = e->inbox;
    e->inbox = e->inbox_tail = NULL;
    hd_embed__take_inbox_locked(e);
    return list;
}

static void queue_all(struct hd_engine *e, struct hd_session *list)
{
    for (struct hd_session *s = list, *next; s; s = next) {
        next = s->next;
        if (hd_policy_add(s->model->policy, &s->w, s->tenant, s->key_id, s->weight))
            hd_session__finish(e, s, HD_FINISH_ERROR, HD_ERR_NOMEM, NULL);
    }
}

static bool idle_locked(const struct hd_engine *e)
{
    return !e->n_session && !e->n_job && !e->calls && !e->stopping && !e->idle_work;
}

enum { TRIM_AFTER_S = 10 };

/* Idle for a while: what a large batch has left behind is of no use to anyone. */
static void trim_locked(struct hd_engine *e)
{
    for (size_t i = 0; i < e->n_model; i++)
        if (e->model[i]->runner)
            hd_runner_trim(e->model[i]->runner);
}

static struct timespec seconds_from_now(double seconds)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    t.tv_sec += (time_t)seconds;
    t.tv_nsec += (long)(1e9 * (seconds - (double)(time_t)seconds));
    t.tv_sec += t.tv_nsec / 1000000000;
    t.tv_nsec %= 1000000000;
    return t;
}

/* A client that asks again at once shall not find the engine at work on what may come later. */
static void pause_locked(struct hd_engine *e)
{
    static const double pause_s = 0.25;
    double left = e->last_request + pause_s - hd_clock_seconds();
    if (left <= 0)
        return;
    struct timespec until = seconds_from_now(left);
    bool late = false;
    while (!late && !e->inbox && !e->job_inbox && !e->calls && !e->stopping)
        late = pthread_cond_timedwait(&e->wake, &e->mu, &until) == ETIMEDOUT;
}

static void wait_idle_locked(struct hd_engine *e)
{
    struct timespec until = seconds_from_now(TRIM_AFTER_S);
    bool late = false;
    while (idle_locked(e) && !late)
        late = pthread_cond_timedwait(&e->wake, &e->mu, &until) == ETIMEDOUT;
    if (late && idle_locked(e))
        trim_locked(e);
    while (idle_locked(e))
        pthread_cond_wait(&e->wake, &e->mu);
}

/* Waits until there is something to do: anything, or, when everything that waits is blocked, a
 * short while (deadlines). */
static void wait_for_work_locked(struct hd_engine *e, bool progressed)
{
    if ((e->n_session || e->n_job) && !progressed && !e->inbox && !e->job_inbox && !e->calls &&
        !e->stopping) {
        struct timespec until = seconds_from_now(0.02);
        pthread_cond_timedwait(&e->wake, &e->mu, &until);
    }
    if (e->idle_work && !e->n_session && !e->n_job)
        pause_locked(e);
    if (idle_locked(e)) {
        wait_idle_locked(e);
        e->last_step_end = hd_clock_seconds(); /* the idle time was no step */
    }
}

static void run_calls(struct hd_engine *e, bool stopping)
{
    for (;;) {
        pthread_mutex_lock(&e->mu);
        struct hd_call *call = e->calls;
        if (call)
            e->calls = call->next;
        pthread_mutex_unlock(&e->mu);
        if (!call)
            return;
        if (!stopping)
            call->fn(e, call->ud);
        pthread_mutex_lock(&e->mu);
        call->err = stopping ? HD_ERR_UNAVAILABLE : HD_OK;
        call->done = true;
        pthread_cond_broadcast(&e->call_done);
        pthread_mutex_unlock(&e->mu);
    }
}

static bool step_models(struct hd_engine *e, size_t n_model, bool stopping)
{
    bool progressed = false;
    for (size_t i = 0; i < n_model; i++) {
        struct hd_loaded *m = e->model[i];
        if (m->encoder) {
            hd_embed__sweep(e, m, stopping);
            progressed |= !stopping && hd_embed__step(e, m);
            continue;
        }
        sweep(e, m, stopping);
        if (stopping)
            continue;
        progressed |= admit_all(e, m);
        progressed |= decode(e, m);
        progressed |= prefill(e, m);
    }
    return progressed;
}

static void count_step(struct hd_engine *e, size_t n_model, bool progressed, double start)
{
    int used = 0, n_running = hd_scheduler__n_running(e);
    uint64_t written = 0, read = 0;
    for (size_t i = 0; i < n_model; i++)
        used += e->model[i]->blocks ? hd_blocks_used(e->model[i]->blocks) : 0;
    for (size_t i = 0; i < n_model; i++) {
        written += e->model[i]->disk_written;
        read += e->model[i]->disk_read;
    }
    pthread_mutex_lock(&e->mu);
    e->stats.disk_written = written;
    e->stats.disk_read = read;
    e->stats.disk_bytes = e->spill ? hd_spill_bytes(e->spill) : 0;
    e->stats.steps += progressed;
    e->stats.kv_blocks_used = used;
    e->stats.running = n_running;
    e->stepping = false;
    e->last_step_end = hd_clock_seconds();
    if (progressed)
        e->stats.busy_s += e->last_step_end - start;
    pthread_mutex_unlock(&e->mu);
}

double hd_scheduler__work_locked(const struct hd_engine *e)
{
    return e->work_s + (e->working ? hd_clock_seconds() - e->work_start : 0);
}

static void end_work(struct hd_engine *e)
{
    pthread_mutex_lock(&e->mu);
    e->work_s = hd_scheduler__work_locked(e);
    e->working = false;
    pthread_mutex_unlock(&e->mu);
}

/* What can be done while nobody waits: prepares a next turn, or saves a block. False: nothing. */
static bool idle_step(struct hd_engine *e)
{
    for (size_t i = 0; i < e->n_seen; i++) {
        struct hd_work *w = e->model[i]->policy ? hd_policy_background(e->model[i]->policy) : NULL;
        if (w && !hd_scheduler__n_running(e) && !hd_policy_n_waiting(e->model[i]->policy))
            hd_turn__end(e, session_of(w)); /* idle, and yet no way to go on: memory is too small */
    }
    if (e->turns) {
        hd_turn__start(e);
        return true;
    }
    return hd_spilling__save_one(e);
}

/* Blocks that the next start will find, as far as a few seconds go. */
static void end_idle_work(struct hd_engine *e)
{
    double end = hd_clock_seconds() + 5;
    for (size_t i = 0; i < e->n_seen; i++) {
        struct hd_work *w = e->model[i]->policy ? hd_policy_background(e->model[i]->policy) : NULL;
        if (w)
            hd_turn__end(e, session_of(w));
    }
    while (e->turns) {
        struct hd_turn *next = e->turns->next;
        hd_turn__free(e->turns);
        e->turns = next;
    }
    while (hd_clock_seconds() < end && hd_spilling__save_one(e))
        continue;
}

void *hd_scheduler__main(void *arg)
{
    struct hd_engine *e = arg;
    bool progressed = true, stopping = false;
    while (!stopping) {
        pthread_mutex_lock(&e->mu);
        wait_for_work_locked(e, progressed);
        struct hd_session *arrived = take_inbox_locked(e);
        stopping = e->stopping;
        size_t n_model = e->n_seen = e->n_model; /* append only: the first n_model stay */
        double start = e->work_start = hd_clock_seconds();
        e->stepping = e->working = true;
        pthread_mutex_unlock(&e->mu);
        queue_all(e, arrived);
        run_calls(e, stopping);
        bool asked = arrived || hd_scheduler__n_running(e);
        progressed = step_models(e, n_model, stopping);
        if (asked)
            e->last_request = hd_clock_seconds();
        end_work(e);
        e->idle_work = progressed || (!stopping && idle_step(e));
        count_step(e, n_model, progressed, start);
    }
    end_idle_work(e);
    return NULL;
}
