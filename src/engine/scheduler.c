/* The scheduler thread: sole owner of sessions, KV and the compute pool.
 *
 * One turn of the loop: what other threads left (requests, calls, cancellations), deadlines,
 * admissions; then one step of every model: all running generations by one token, then up to a
 * budget of prompt tokens. So a long prompt costs the generations beside it one chunk's time per
 * token, never its whole length; prompts share the budget block by block.
 *
 * KV. A session is admitted when the blocks of its whole sequence so far are free, and grows by a
 * block every HD_KV_BLOCK tokens. When none is left, the youngest session gives all its blocks back
 * and waits; it replays later (engine_impl.h). The oldest can always go on, so all end. */
#include <errno.h>
#include <math.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "engine/engine_impl.h"

/* --- waiting and running --------------------------------------------------------------------- */

static void insert_waiting(struct hd_session *s)
{
    struct hd_session **p = &s->model->waiting;
    while (*p && (*p)->id < s->id)
        p = &(*p)->next;
    s->next = *p;
    *p = s;
}

static void preempt(struct hd_engine *e, struct hd_session *s)
{
    struct hd_loaded *m = s->model;
    hd_session__release(s);
    for (int i = 0; i < m->n_running; i++)
        if (m->running[i] == s) {
            memmove(m->running + i, m->running + i + 1,
                    (size_t)(m->n_running - i - 1) * sizeof *m->running);
            m->n_running--;
            e->n_running--;
            break;
        }
    insert_waiting(s);
}

/* Takes the blocks that are known already, and the others if there are enough. The last token of a
 * prompt is always computed: its row gives the first logits. */
static bool admit(struct hd_engine *e, struct hd_session *s)
{
    struct hd_loaded *m = s->model;
    int findable = (s->n_prompt - 1) / HD_KV_BLOCK, need = hd_session__blocks_for(s->n_id);
    while (s->n_block < findable) {
        int32_t block = hd_blocks_find(m->blocks, &s->keys[s->n_block]);
        if (block < 0)
            break;
        s->table[s->n_block++] = block;
    }
    int n_found = s->n_block;
    /* One block of growth for everyone who runs, so that admitting does not mean evicting soon. */
    if (hd_blocks_available(m->blocks) < need - n_found + m->n_running) {
        hd_session__release(s);
        return false;
    }
    while (s->n_block < need)
        s->table[s->n_block++] = hd_blocks_take(m->blocks);
    s->n_published = n_found;
    s->n_done = n_found * HD_KV_BLOCK;
    if (!s->admitted) {
        s->admitted = true;
        s->t_admit = hd_clock_seconds();
        s->result.n_cached = s->n_done;
        pthread_mutex_lock(&e->mu);
        e->stats.prompt_tokens += (uint64_t)s->n_prompt;
        e->stats.cached_tokens += (uint64_t)s->n_done;
        pthread_mutex_unlock(&e->mu);
    }
    m->running[m->n_running++] = s;
    e->n_running++;
    return true;
}

/* In order of arrival: nobody is overtaken, so nobody waits for ever. */
static bool admit_all(struct hd_engine *e, struct hd_loaded *m)
{
    bool any = false;
    while (m->waiting && e->n_running < e->options.max_sessions) {
        struct hd_session *s = m->waiting;
        if (!admit(e, s))
            break;
        m->waiting = s->next;
        s->next = NULL;
        any = true;
    }
    return any;
}

static void end_if_due(struct hd_engine *e, struct hd_session *s, double now, bool stopping)
{
    if (stopping || atomic_load(&s->cancelled))
        hd_session__finish(e, s, HD_FINISH_CANCELLED, HD_ERR_CANCELLED, NULL);
    else if (s->deadline > 0 && now > s->deadline)
        hd_session__finish(e, s, HD_FINISH_ERROR, HD_ERR_TIMEOUT,
                           "request: its time limit has passed");
}

static void sweep(struct hd_engine *e, struct hd_loaded *m, bool stopping)
{
    double now = hd_clock_seconds();
    for (int i = m->n_running; i-- > 0;)
        end_if_due(e, m->running[i], now, stopping);
    for (struct hd_session *s = m->waiting, *next; s; s = next) {
        next = s->next;
        end_if_due(e, s, now, stopping);
    }
}

/* --- one batch ------------------------------------------------------------------------------- */

struct step {
    struct hd_engine *engine;
    struct hd_loaded *model;
    struct hd_batch batch;
};

/* Appends rows [s->n_done, s->n_done + n) of a session; want: the last row's logits. */
static void add_rows(struct step *step, struct hd_session *s, int n, bool want)
{
    struct hd_loaded *m = step->model;
    struct hd_batch *b = &step->batch;
    m->seqs[b->n_seq] = (struct hd_seq_rows){b->n, n, s->n_done, s->table};
    m->of_seq[b->n_seq++] = s;
    for (int i = 0; i < n; i++) {
        m->ids[b->n] = s->ids[s->n_done + i];
        m->positions[b->n++] = s->n_done + i;
    }
    if (want)
        m->out_rows[b->n_out++] = (int32_t)b->n - 1;
}

/* Blocks that now hold nothing but prompt rows may be shared. */
static void publish(struct hd_session *s)
{
    int n_done = s->n_done < s->n_prompt ? s->n_done : s->n_prompt;
    for (; s->n_published < n_done / HD_KV_BLOCK; s->n_published++)
        hd_blocks_publish(s->model->blocks, s->table[s->n_published], &s->keys[s->n_published]);
}

static void fail_all(struct step *step, enum hd_err err, const char *why)
{
    for (int i = 0; i < step->batch.n_seq; i++)
        hd_session__finish(step->engine, step->model->of_seq[i], HD_FINISH_ERROR, err, why);
}

/* Log of the sum of exponentials: what turns logits into log-probabilities. */
static double log_norm(const float *logits, int n)
{
    float max = -INFINITY;
    double sum = 0;
    for (int i = 0; i < n; i++)
        max = logits[i] > max ? logits[i] : max;
    for (int i = 0; i < n; i++)
        sum += expf(logits[i] - max);
    return max + log(sum);
}

static void report_watched(struct hd_session *s, const float *logits, double norm)
{
    for (size_t i = 0; i < s->n_watch; i++)
        s->result.watch_logprob[i] = (float)(logits[s->watch[i]] - norm);
}

/* Samples for the sequences whose last row was wanted, in pieces that the logits buffer holds. */
static void sample(struct step *step)
{
    struct hd_loaded *m = step->model;
    int64_t have = 0, out = 0; /* rows of logits in the buffer, and the next of them */
    int64_t done = 0;          /* rows asked for so far */
    for (int i = 0; i < step->batch.n_seq; i++) {
        struct hd_session *s = m->of_seq[i];
        if (done == step->batch.n_out && out == have)
            return;
        if (m->seqs[i].begin + m->seqs[i].n - 1 != m->out_rows[done - have + out])
            continue;
        if (out == have) {
            struct hd_errmsg why = {0};
            have =
                step->batch.n_out - done < m->n_out_max ? step->batch.n_out - done : m->n_out_max;
            enum hd_err err = hd_runner_logits(m->runner, m->logits, done, have, &why);
            if (err) {
                /* these cannot go on; sequences before them have their tokens already */
                for (; i < step->batch.n_seq; i++)
                    hd_session__finish(step->engine, m->of_seq[i], HD_FINISH_ERROR, err, why.text);
                return;
            }
            out = 0;
            done += have;
        }
        float *logits = m->logits + out++ * m->hp->n_vocab;
        double norm = log_norm(logits, m->hp->n_vocab);
        if (s->n_id == s->n_prompt)
            report_watched(s, logits, norm);
        int32_t id = hd_sampler_pick(s->sampler, logits, m->candidates);
        if (id >= 0)
            s->result.logprob += hd_sampler_raw(s->sampler, id, logits[id]) - norm;
        if (id < 0)
            hd_session__finish(step->engine, s, HD_FINISH_ERROR, HD_ERR_INTERNAL,
                               "generation: the model gave no number for any token (damaged "
                               "weights?)");
        else
            hd_session__token(step->engine, s, id);
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
    for (int i = 0; i < step->batch.n_seq; i++) {
        m->of_seq[i]->n_done += (int)m->seqs[i].n;
        publish(m->of_seq[i]);
    }
    sample(step);
    return true;
}

/* --- generated rows -------------------------------------------------------------------------- */

static bool in_prefill(const struct hd_session *s)
{
    return s->n_done < s->n_prompt;
}

static bool lacks_block(const struct hd_session *s)
{
    return !in_prefill(s) && s->n_done / HD_KV_BLOCK >= s->n_block;
}

static struct hd_session *oldest_lacking(const struct hd_loaded *m)
{
    struct hd_session *found = NULL;
    for (int i = 0; i < m->n_running; i++)
        if (lacks_block(m->running[i]) && (!found || m->running[i]->id < found->id))
            found = m->running[i];
    return found;
}

/* Gives every generation the block that its next row needs, the oldest first. */
static void grow(struct hd_engine *e, struct hd_loaded *m)
{
    struct hd_session *s;
    while ((s = oldest_lacking(m))) {
        int32_t block = hd_blocks_take(m->blocks);
        if (block >= 0) {
            s->table[s->n_block++] = block;
            continue;
        }
        struct hd_session *youngest = m->running[0];
        for (int i = 1; i < m->n_running; i++)
            if (m->running[i]->id > youngest->id)
                youngest = m->running[i];
        if (m->n_running == 1)
            return; /* a call on this thread holds the rest for a moment */
        preempt(e, youngest);
    }
}

static bool decode(struct hd_engine *e, struct hd_loaded *m)
{
    struct step step = {.engine = e, .model = m, .batch = {.form = HD_FORM_DECODE}};
    grow(e, m);
    for (int i = 0; i < m->n_running; i++) {
        struct hd_session *s = m->running[i];
        if (!in_prefill(s) && !lacks_block(s))
            add_rows(&step, s, 1, s->n_done + 1 == s->n_id);
    }
    return run_step(&step);
}

/* --- prompt rows ----------------------------------------------------------------------------- */

/* Whole blocks round and round over the prompts, each round beginning with another one, until the
 * budget is spent; only a prompt's last piece may be shorter than a block. */
static int share_out(struct hd_loaded *m, int budget, struct hd_session **prompts, int n,
                     int *given)
{
    int left = budget;
    for (bool any = true; any && left > 0;) {
        any = false;
        for (int i = 0; i < n && left > 0; i++) {
            int rest = prompts[i]->n_prompt - prompts[i]->n_done - given[i];
            int add = rest < HD_KV_BLOCK ? rest : HD_KV_BLOCK;
            if (add <= 0 || add > left)
                continue;
            given[i] += add;
            left -= add;
            any = true;
        }
    }
    return budget - left;
}

static bool prefill(struct hd_engine *e, struct hd_loaded *m)
{
    enum { MOST = 64 }; /* prompts in one step */
    struct hd_session *prompts[MOST];
    int given[MOST] = {0}, n = 0, n_decode = 0, budget = e->options.max_batch_tokens;
    struct step step = {.engine = e, .model = m, .batch = {.form = HD_FORM_PROMPT}};
    for (int i = 0; i < m->n_running; i++)
        n_decode += !in_prefill(m->running[i]);
    /* Beside running generations a quarter: they wait for one short chunk, not for a long one. */
    if (n_decode && budget > 4 * HD_KV_BLOCK)
        budget = budget / (4 * HD_KV_BLOCK) * HD_KV_BLOCK;
    for (int i = 0; i < m->n_running && n < MOST; i++) {
        struct hd_session *s = m->running[(i + m->turn) % m->n_running];
        if (in_prefill(s))
            prompts[n++] = s;
    }
    m->turn = m->n_running ? (m->turn + 1) % m->n_running : 0;
    share_out(m, budget, prompts, n, given);
    for (int i = 0; i < n; i++) {
        struct hd_session *s = prompts[i];
        bool ends = s->n_done + given[i] == s->n_prompt;
        if (given[i])
            add_rows(&step, s, given[i], ends && s->n_id == s->n_prompt);
    }
    return run_step(&step);
}

/* --- the loop -------------------------------------------------------------------------------- */

static void take_inbox_locked(struct hd_engine *e)
{
    while (e->inbox) {
        struct hd_session *s = e->inbox;
        e->inbox = s->next;
        insert_waiting(s);
    }
    e->inbox_tail = NULL;
    hd_embed__take_inbox_locked(e);
}

static bool idle_locked(const struct hd_engine *e)
{
    return !e->n_session && !e->n_job && !e->calls && !e->stopping;
}

enum { TRIM_AFTER_S = 10 };

/* Idle for a while: what a large batch has left behind is of no use to anyone. */
static void trim_locked(struct hd_engine *e)
{
    for (size_t i = 0; i < e->n_model; i++)
        if (e->model[i]->runner)
            hd_runner_trim(e->model[i]->runner);
}

static void wait_idle_locked(struct hd_engine *e)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += TRIM_AFTER_S;
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
        struct timespec until;
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_nsec += 20 * 1000 * 1000;
        until.tv_sec += until.tv_nsec / 1000000000;
        until.tv_nsec %= 1000000000;
        pthread_cond_timedwait(&e->wake, &e->mu, &until);
    }
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
    int used = 0;
    for (size_t i = 0; i < n_model; i++)
        used += e->model[i]->blocks ? hd_blocks_used(e->model[i]->blocks) : 0;
    pthread_mutex_lock(&e->mu);
    e->stats.steps += progressed;
    e->stats.kv_blocks_used = used;
    e->stats.running = e->n_running;
    e->stepping = false;
    e->last_step_end = hd_clock_seconds();
    if (progressed)
        e->stats.busy_s += e->last_step_end - start;
    pthread_mutex_unlock(&e->mu);
}

void *hd_scheduler__main(void *arg)
{
    struct hd_engine *e = arg;
    bool progressed = true, stopping = false;
    while (!stopping) {
        pthread_mutex_lock(&e->mu);
        wait_for_work_locked(e, progressed);
        take_inbox_locked(e);
        stopping = e->stopping;
        size_t n_model = e->n_model; /* append only: the first n_model stay */
        e->stepping = true;
        pthread_mutex_unlock(&e->mu);
        double start = hd_clock_seconds();
        run_calls(e, stopping);
        progressed = step_models(e, n_model, stopping);
        count_step(e, n_model, progressed, start);
    }
    return NULL;
}
