/* What happens to a session token by token, and its end. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "engine/engine_impl.h"

void hd_session__free(struct hd_session *s)
{
    if (!s)
        return;
    hd_splitter_free(s->splitter);
    hd_thinking_free(s->thinking);
    hd_sampler_free(s->sampler);
    hd_constraint_free(s->constraint);
    hd_logprobs__free(s->logprobs);
    for (size_t i = 0; i < s->n_stop; i++)
        free(s->stop_text[i]);
    free(s->first_logits);
    free(s->ids);
    free(s->w.table);
    free(s->w.keys);
    hd_turn__free(s->turn);
    free(s->tenant);
    free(s->key_id);
    free(s);
}

static void note_first_text(struct hd_session *s)
{
    struct hd_engine *e = s->engine;
    s->has_text = true;
    pthread_mutex_lock(&e->mu);
    s->result.engine_s = hd_scheduler__work_locked(e) - s->work_before;
    pthread_mutex_unlock(&e->mu);
}

/* The splitter's output, on to the caller. */
static void emit(enum hd_split_kind kind, const char *text, size_t len, void *ud)
{
    static const enum hd_text_kind kinds[] = {[HD_SPLIT_REASONING] = HD_TEXT_REASONING,
                                              [HD_SPLIT_ANSWER] = HD_TEXT_ANSWER,
                                              [HD_SPLIT_CALL] = HD_TEXT_CALL};
    struct hd_session *s = ud;
    if (s->thinking)
        hd_thinking_text(s->thinking, kinds[kind], text, len);
    if (s->turn)
        hd_turn__text(s->turn, kinds[kind], text, len);
    if (len && !s->has_text)
        note_first_text(s);
    if (s->callbacks.on_text && len)
        s->callbacks.on_text(s->callbacks.ud, kinds[kind], text, len);
}

static void count_end(struct hd_engine *e, const struct hd_session *s)
{
    const struct hd_result *r = &s->result;
    int n_running = hd_scheduler__n_running(e);
    pthread_mutex_lock(&e->mu);
    e->stats.reasoning_stops[r->reasoning_stop]++;
    e->stats.answer_loops += r->answer_loops;
    e->stats.finished += r->finish == HD_FINISH_STOP || r->finish == HD_FINISH_LENGTH;
    e->stats.cancelled += r->finish == HD_FINISH_CANCELLED;
    e->stats.failed += r->finish == HD_FINISH_ERROR;
    e->stats.running = n_running;
    if (s->all_prev)
        s->all_prev->all_next = s->all_next;
    else
        e->all = s->all_next;
    if (s->all_next)
        s->all_next->all_prev = s->all_prev;
    e->n_session--;
    pthread_mutex_unlock(&e->mu);
}

static void fill_result(struct hd_session *s, enum hd_finish finish, enum hd_err err,
                        const char *why)
{
    struct hd_result *r = &s->result;
    double now = hd_clock_seconds();
    r->finish = finish;
    r->err = err;
    if (err)
        hd_fail(&r->message, err, "%s", why ? why : hd_err_text(err));
    if (s->thinking)
        r->reasoning_stop = hd_thinking_stop(s->thinking);
    else if (s->in_reasoning)
        r->reasoning_stop = HD_REASONING_OPEN;
    else if (r->n_reasoning)
        r->reasoning_stop = HD_REASONING_CLOSED;
    r->stopped_by = s->splitter ? hd_splitter_stopped_by(s->splitter) : 0;
    r->n_prompt = s->w.n_prompt;
    r->n_generated = s->w.n_id - s->w.n_prompt;
    r->queue_s = (s->admitted ? s->t_admit : now) - s->t_submit;
    if (s->t_first > 0) {
        r->prefill_s = s->t_first - s->t_admit;
        r->ttft_s = s->t_first - s->t_submit;
        r->decode_s = now - s->t_first;
    }
}

void hd_session__finish(struct hd_engine *e, struct hd_session *s, enum hd_finish finish,
                        enum hd_err err, const char *why)
{
    hd_policy_remove(s->model->policy, &s->w);
    if (s->splitter && finish != HD_FINISH_ERROR) {
        enum hd_err split = hd_splitter_finish(s->splitter, emit, s);
        if (split && finish != HD_FINISH_CANCELLED) {
            finish = HD_FINISH_ERROR;
            err = split;
        }
    }
    if (s->turn && (finish == HD_FINISH_STOP || finish == HD_FINISH_LENGTH)) {
        hd_turn__push(e, s->turn);
        s->turn = NULL;
    }
    fill_result(s, finish, err, why);
    count_end(e, s);
    s->callbacks.on_done(s->callbacks.ud, &s->result);
    struct hd_session *next = s->siblings;
    hd_session__free(s);
    for (struct hd_session *sibling = next; sibling; sibling = next) {
        next = sibling->next;
        hd_session__finish(e, sibling, finish, err, why);
    }
}

static void count_token(struct hd_engine *e, struct hd_session *s)
{
    bool first = s->t_first <= 0;
    if (first)
        s->t_first = hd_clock_seconds();
    s->result.n_reasoning += s->in_reasoning;
    pthread_mutex_lock(&e->mu);
    e->stats.generated_tokens++;
    e->stats.reasoning_tokens += s->in_reasoning;
    pthread_mutex_unlock(&e->mu);
}

/* Whether the next token belongs to what the grammar is about. */
static bool is_constrained(const struct hd_session *s)
{
    return s->constraint && hd_splitter_kind(s->splitter) != HD_SPLIT_REASONING;
}

/* Whether the text ends with this id. */
static bool is_end(const struct hd_session *s, int32_t id)
{
    if (s->ignore_end)
        return false;
    for (size_t i = 0; i < s->n_extra_end; i++)
        if (s->extra_end[i] == id)
            return true;
    return hd_tokenizer_is_end(s->model->tokenizer, id);
}

bool hd_session__picks_alone(const struct hd_session *s)
{
    return is_constrained(s);
}

int32_t hd_session__pick(struct hd_session *s, float *logits, double norm,
                         struct hd_candidate *scratch)
{
    struct hd_loaded *m = s->model;
    if (s->logprobs)
        hd_logprobs__keep(s->logprobs, logits, m->hp->n_vocab, norm);
    int32_t id = s->thinking ? hd_thinking_forced(s->thinking) : -1;
    if (id >= 0)
        return id; /* not the model's choice: no part of the text's log-probability either */
    if (is_constrained(s)) {
        if (hd_constraint_mask(s->constraint, logits, m->hp->n_vocab))
            return -1;
    } else if (s->thinking) {
        hd_thinking_mask(s->thinking, logits, m->hp->n_vocab, hd_splitter_holds_text(s->splitter));
    }
    id = hd_sampler_pick(s->sampler, logits, scratch);
    if (id >= 0 && s->thinking && is_end(s, id) && hd_thinking_end_of_turn(s->thinking))
        return hd_thinking_forced(s->thinking);
    if (id >= 0) {
        double logprob = hd_sampler_raw(s->sampler, id, logits[id]) - norm;
        s->result.logprob += logprob;
        s->result.min_logprob = fmin(s->result.min_logprob, logprob);
    }
    return id;
}

/* Streams one id and watches what it does to the thought. */
static enum hd_err split(struct hd_session *s, int32_t id, bool *stopped, bool *loops)
{
    bool was_thought = s->in_reasoning, constrained = is_constrained(s);
    enum hd_err err = constrained ? hd_constraint_accept(s->constraint, id) : HD_OK;
    if (!err)
        err = hd_splitter_push(s->splitter, id, emit, s, stopped);
    s->in_reasoning = hd_splitter_kind(s->splitter) == HD_SPLIT_REASONING;
    /* a call's mark ends a thought, and belongs to what the grammar is about */
    if (!err && s->constraint && !constrained && hd_splitter_kind(s->splitter) == HD_SPLIT_CALL)
        err = hd_constraint_accept(s->constraint, id);
    if (!err && s->thinking)
        *loops = hd_thinking_token(s->thinking, id, was_thought, s->in_reasoning,
                                   hd_splitter_in_character(s->splitter));
    *loops = *loops && !s->constraint; /* a grammar may ask for a thousand zeros */
    if (!err && s->constraint)
        *stopped = *stopped || hd_constraint_done(s->constraint);
    return err;
}

void hd_session__token(struct hd_engine *e, struct hd_session *s, int32_t id)
{
    bool stopped = false, end = false, loops = false;
    enum hd_err err = HD_OK;
    s->ids[s->w.n_id++] = id;
    hd_sampler_accept(s->sampler, id, true);
    if (s->callbacks.on_token)
        s->callbacks.on_token(s->callbacks.ud, id);
    count_token(e, s);
    if (s->splitter) {
        end = is_end(s, id);
        if (!end && s->logprobs)
            hd_logprobs__report(s->logprobs, s, id);
        if (!end)
            err = split(s, id, &stopped, &loops);
    }
    bool full = s->w.n_id == s->w.n_prompt + s->n_max;
    s->result.answer_loops = loops;
    s->result.context_full = full && s->to_context_end;
    if (err)
        hd_session__finish(e, s, HD_FINISH_ERROR, err, NULL);
    else if (end || stopped)
        hd_session__finish(e, s, HD_FINISH_STOP, HD_OK, NULL);
    else if (loops || full)
        hd_session__finish(e, s, HD_FINISH_LENGTH, HD_OK, NULL);
}
