/* From a request to a session: checked, tokenized, copied, keyed; on the caller's thread. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "engine/engine_impl.h"

enum {
    DEFAULT_ANSWER = 1024, /* tokens kept for an answer when turns are dropped */
    ASKED_THOUGHT = 2048,  /* budget of a model that thinks only when asked */
};

/* --- prompt ---------------------------------------------------------------------------------- */

/* How a conversation is rendered: the request's wish, and what the context makes of it. */
struct rendering {
    bool no_think;
    size_t n_keep; /* leading messages (system) that are never left out */
    size_t n_drop; /* messages behind them that are */
};

static enum hd_err render_messages(const struct hd_loaded *loaded, struct hd_ids *ids,
                                   const struct hd_request *r, const struct rendering *how,
                                   struct hd_errmsg *msg)
{
    struct hd_chat_message *messages = calloc(r->n_message, sizeof *messages);
    if (!messages)
        return hd_fail(msg, HD_ERR_NOMEM, "messages: out of memory");
    enum hd_err err = HD_OK;
    for (size_t i = 0; !err && i < r->n_message; i++) {
        const struct hd_message *m = &r->messages[i];
        messages[i] =
            (struct hd_chat_message){m->role, m->content, m->tool_calls, m->tool_call_id, m->name};
        if (!m->role || (!m->content && !m->tool_calls))
            err = hd_fail(msg, HD_ERR_INVALID, "messages[%zu]: role and content must be given", i);
    }
    if (!err && hd_chat_form(loaded->tokenizer) == HD_CHAT_NONE)
        err = hd_fail(msg, HD_ERR_UNSUPPORTED,
                      "%s: the model has no chat form that we know (send a plain prompt instead)",
                      loaded->name);
    const struct hd_chat_options options = {
        .no_think = how->no_think, .ask_think = r->ask_think, .tools = r->tools};
    size_t keep = how->n_keep, n = r->n_message - how->n_drop;
    memmove(messages + keep, messages + keep + how->n_drop, (n - keep) * sizeof *messages);
    if (!err)
        err = hd_chat_render(loaded->tokenizer, ids, messages, n, &options, msg);
    free(messages);
    return err;
}

/* The n-th question from the end begins a turn that ends before the next one; a turn holds
 * everything between: answers, calls, results. Returns how many messages the k oldest turns have,
 * and less turns than asked for where the last question would go too. */
static size_t turns_len(const struct hd_request *r, size_t n_keep, size_t k)
{
    size_t end = n_keep;
    for (size_t i = n_keep + 1; i < r->n_message && k; i++)
        if (r->messages[i].role && !strcmp(r->messages[i].role, "user")) {
            end = i;
            k--;
        }
    return end - n_keep;
}

/* Tokens that a prompt may have where turns may be left out: what is asked for must fit behind it,
 * as far as that is a half of the context. */
static size_t prompt_room(const struct hd_loaded *m, const struct hd_request *r)
{
    int due = r->n_max ? r->n_max : DEFAULT_ANSWER;
    return (size_t)(m->n_ctx - (due < m->n_ctx / 2 ? due : m->n_ctx / 2));
}

/* Leaves out as few of the oldest turns as the context demands (halving; a prompt with more left
 * out is shorter). Nothing helps: the whole conversation, for the sentence that says so. */
static enum hd_err drop_turns(const struct hd_loaded *m, struct hd_ids *ids,
                              const struct hd_request *r, struct rendering *how,
                              struct hd_errmsg *msg)
{
    size_t room = prompt_room(m, r), low = 1, high = 0;
    enum hd_err err = HD_OK;
    for (size_t i = how->n_keep + 1; i < r->n_message; i++)
        high += r->messages[i].role && !strcmp(r->messages[i].role, "user");
    size_t most = high;
    while (low < high && !err) {
        size_t k = low + (high - low) / 2;
        how->n_drop = turns_len(r, how->n_keep, k);
        ids->n = 0;
        ids->err = HD_OK;
        err = render_messages(m, ids, r, how, msg);
        bool fits = !err && ids->n <= room;
        if (err == HD_ERR_LIMIT)
            err = HD_OK;
        if (fits)
            high = k;
        else
            low = k + 1;
    }
    how->n_drop = most ? turns_len(r, how->n_keep, high) : 0;
    ids->n = 0;
    ids->err = HD_OK;
    return err ? err : render_messages(m, ids, r, how, msg);
}

static enum hd_err render_conversation(const struct hd_loaded *m, struct hd_ids *ids,
                                       const struct hd_request *r, struct rendering *how,
                                       struct hd_errmsg *msg)
{
    while (how->n_keep < r->n_message && r->messages[how->n_keep].role &&
           !strcmp(r->messages[how->n_keep].role, "system"))
        how->n_keep++;
    if (how->n_drop)
        return render_messages(m, ids, r, how, msg);
    enum hd_err err = render_messages(m, ids, r, how, msg);
    if (r->drop_turns && (err == HD_ERR_LIMIT || (!err && ids->n > prompt_room(m, r))))
        err = drop_turns(m, ids, r, how, msg);
    return err;
}

static enum hd_err make_ids(const struct hd_loaded *m, struct hd_ids *ids,
                            const struct hd_request *r, struct rendering *how,
                            struct hd_errmsg *msg)
{
    enum hd_err err = HD_OK;
    int forms = (r->n_message > 0) + (r->prompt != NULL) + (r->n_id > 0);
    if (forms != 1)
        return hd_fail(msg, HD_ERR_INVALID,
                       "request: exactly one of messages, prompt and ids must be given");
    if (!m->tokenizer && !r->n_id)
        return hd_fail(msg, HD_ERR_UNSUPPORTED,
                       "%s: the model carries no tokenizer (a folder needs tokenizer.json; ids can "
                       "be given instead of text)",
                       m->name);
    if (msg)
        msg->text[0] = 0;
    if (r->n_message) {
        err = render_conversation(m, ids, r, how, msg);
    } else if (r->prompt) {
        if (m->add_bos)
            hd_ids_push(ids, hd_tokenizer_bos(m->tokenizer));
        if (r->suffix) {
            err = hd_tokenizer_encode_middle(m->tokenizer, ids, r->prompt, r->suffix);
            if (err == HD_ERR_UNSUPPORTED)
                return hd_fail(msg, err, "suffix: %s has no tokens for filling in the middle",
                               m->name);
        } else
            err = hd_tokenizer_encode(m->tokenizer, ids, r->prompt, strlen(r->prompt), false);
    } else {
        for (size_t i = 0; i < r->n_id && !ids->err; i++)
            hd_ids_push(ids, r->ids[i]);
    }
    if (!err)
        err = ids->err;
    if (err == HD_ERR_LIMIT)
        return hd_fail(msg, err,
                       "prompt: longer than %d tokens, the model's context (shorten it, or load "
                       "the model with a larger context)",
                       m->n_ctx);
    if (err)
        return msg && msg->text[0] ? err : hd_fail(msg, err, "prompt: %s", hd_err_text(err));
    return HD_OK;
}

static enum hd_err check_ids(const struct hd_loaded *m, const struct hd_ids *ids,
                             struct hd_errmsg *msg)
{
    if (!ids->n)
        return hd_fail(msg, HD_ERR_INVALID, "prompt: empty (nothing to continue)");
    for (size_t i = 0; i < ids->n; i++)
        if (ids->id[i] < 0 || ids->id[i] >= m->hp->n_vocab)
            return hd_fail(msg, HD_ERR_INVALID, "prompt: token id %d at %zu is not in 0 … %d",
                           ids->id[i], i, m->hp->n_vocab - 1);
    if (ids->n >= (size_t)m->n_ctx)
        return hd_fail(msg, HD_ERR_LIMIT,
                       "prompt: %zu tokens leave no room for an answer in the context of %d "
                       "(shorten it, or load the model with a larger context)",
                       ids->n, m->n_ctx);
    return HD_OK;
}

enum hd_err hd_engine_count_tokens(struct hd_engine *e, size_t *n, const struct hd_request *r,
                                   struct hd_errmsg *msg)
{
    struct hd_loaded *m;
    struct hd_ids ids;
    *n = 0;
    enum hd_err err = hd_engine__language(&m, e, r->model, msg);
    if (err)
        return err;
    hd_ids_init(&ids, (size_t)INT32_MAX); /* also what would not fit is counted */
    struct rendering how = {.no_think = r->no_think};
    struct hd_request all = *r;
    all.drop_turns = false;
    err = make_ids(m, &ids, &all, &how, msg);
    *n = err ? 0 : ids.n;
    hd_ids_dispose(&ids);
    return err;
}

/* --- session --------------------------------------------------------------------------------- */

static enum hd_err copy_stops(struct hd_session *s, const struct hd_request *r,
                              struct hd_errmsg *msg)
{
    if (r->n_stop > HD_MAX_STOPS)
        return hd_fail(msg, HD_ERR_INVALID, "stop: at most %d texts", HD_MAX_STOPS);
    for (size_t i = 0; i < r->n_stop; i++) {
        size_t len = r->stop[i] ? strlen(r->stop[i]) : 0;
        if (!len || len > HD_MAX_STOP_BYTES)
            return hd_fail(msg, HD_ERR_INVALID, "stop: texts of 1 to %d bytes", HD_MAX_STOP_BYTES);
        s->stop_text[s->n_stop] = strdup(r->stop[i]);
        if (!s->stop_text[s->n_stop++])
            return hd_fail(msg, HD_ERR_NOMEM, "stop: out of memory");
    }
    return HD_OK;
}

/* Whether the prompt leaves a thought open: the last of its think marks opens one. */
static bool opens_think(const struct hd_session *s)
{
    const struct hd_loaded *m = s->model;
    if (m->think_open >= 0)
        for (int i = s->w.n_prompt; i-- > 0;)
            if (s->ids[i] == m->think_open || s->ids[i] == m->think_close)
                return s->ids[i] == m->think_open;
    return false;
}

/* Whether the model is asked to think that does not by itself. */
static bool asked(const struct hd_loaded *m, const struct hd_request *r)
{
    return r->n_message && r->ask_think && !r->no_think && !hd_chat_thinks(m->tokenizer);
}

static enum hd_err new_splitter(struct hd_session *s, const struct hd_request *r, bool no_think)
{
    const struct hd_loaded *m = s->model;
    if (!m->tokenizer)
        return HD_OK;
    bool ask = asked(m, r), thinks = ask || hd_chat_thinks(m->tokenizer);
    bool by_form = m->think_open < 0 && thinks && r->n_message && !no_think;
    s->in_reasoning = by_form || opens_think(s);
    const struct hd_split_options options = {
        .starts_in_think = s->in_reasoning,
        .split_think = thinks,
        .answer_tags = ask,
        .stop = (const char *const *)s->stop_text,
        .n_stop = s->n_stop,
        .tools = r->tools,
        .plain_answer = r->grammar || r->tool_choice,
    };
    s->in_reasoning = s->in_reasoning && thinks;
    return hd_splitter_new(&s->splitter, m->tokenizer, &options);
}

/* What the request wants of each token beside its text. */
static enum hd_err new_choices(struct hd_session *s, const struct hd_request *r,
                               struct hd_errmsg *msg)
{
    struct hd_loaded *m = s->model;
    for (size_t i = 0; i < r->n_bias; i++)
        if (r->bias[i].id < 0 || r->bias[i].id >= m->hp->n_vocab)
            return hd_fail(msg, HD_ERR_INVALID, "logit_bias: token id %d is not in 0 … %d",
                           r->bias[i].id, m->hp->n_vocab - 1);
    enum hd_err err = hd_sampler_bias(s->sampler, r->bias, r->n_bias);
    if (!err && r->logprobs)
        err = hd_logprobs__new(&s->logprobs, r->n_top, m->hp->n_vocab);
    if (err)
        return hd_fail(msg, err, "request: %s", hd_err_text(err));
    for (size_t i = 0; r->suffix && i < HD_EXTRA_ENDS; i++) {
        int32_t id = hd_tokenizer_middle_end(m->tokenizer, i);
        if (id >= 0)
            s->extra_end[s->n_extra_end++] = id;
    }
    return hd_constraint_new(&s->constraint, &m->grammars, m->tokenizer, m->hp->n_vocab, r,
                             s->in_reasoning, msg);
}

/* The model's lexicon, made now where this is the first to need it. */
static enum hd_err get_lexicon(const struct hd_think_lexicon **out, struct hd_loaded *m)
{
    struct hd_think_lexicon *made, *none = NULL;
    *out = atomic_load(&m->lexicon);
    if (*out)
        return HD_OK;
    enum hd_err err = hd_think_lexicon_new(&made, m->tokenizer);
    if (err)
        return err;
    if (!atomic_compare_exchange_strong(&m->lexicon, &none, made)) {
        hd_think_lexicon_free(made); /* another request was faster */
        made = none;
    }
    *out = made;
    return HD_OK;
}

static bool may_think(const struct hd_loaded *m, const struct hd_request *r)
{
    return m->tokenizer && r->n_message && !r->ignore_end &&
           (asked(m, r) || hd_chat_thinks(m->tokenizer));
}

/* A model that was asked for its thought has not learnt to end it. */
static int thought_budget(const struct hd_loaded *m, const struct hd_request *r)
{
    return r->max_thinking ? r->max_thinking : asked(m, r) ? ASKED_THOUGHT : 0;
}

static enum hd_err new_thinking(struct hd_session *s, const struct hd_request *r, bool no_think)
{
    struct hd_loaded *m = s->model;
    if (!s->splitter || !r->n_message || r->ignore_end)
        return HD_OK;
    bool dropped = no_think && !r->no_think;
    struct hd_thinking_options options = {
        .starts_in_thought = s->in_reasoning,
        .may_open = !no_think,
        .asked = asked(m, r),
        .n_max = s->n_max,
        .budget = thought_budget(m, r),
        .any_loops = r->any_loops,
        .stop = !dropped          ? HD_REASONING_NONE
                : r->max_thinking ? HD_REASONING_BUDGET
                                  : HD_REASONING_LENGTH,
    };
    enum hd_err err = may_think(m, r) ? get_lexicon(&options.lexicon, m) : HD_OK;
    return err ? err : hd_thinking_new(&s->thinking, m->tokenizer, &options);
}

/* Tokens to generate: what is asked for, as far as the context has room. */
static int n_to_generate(const struct hd_loaded *m, const struct hd_request *r, size_t n_prompt)
{
    int room = m->n_ctx - (int)n_prompt;
    return r->n_max && r->n_max < room ? r->n_max : room;
}

/* A thought for which there is no room does not begin: the prompt is rendered again without. */
static enum hd_err fit_thought(struct hd_loaded *m, struct hd_ids *ids, const struct hd_request *r,
                               struct rendering *how, struct hd_errmsg *msg)
{
    const struct hd_think_lexicon *lexicon;
    how->no_think = r->no_think;
    enum hd_err err = make_ids(m, ids, r, how, msg);
    if (err || how->no_think || !may_think(m, r) || ids->n >= (size_t)m->n_ctx)
        return err;
    err = get_lexicon(&lexicon, m);
    if (err)
        return hd_fail(msg, err, "request: %s", hd_err_text(err));
    if (hd_thinking_fits(lexicon, n_to_generate(m, r, ids->n), thought_budget(m, r)))
        return HD_OK;
    how->no_think = true;
    ids->n = 0;
    return make_ids(m, ids, r, how, msg);
}

/* Takes over the ids of the prompt. */
static enum hd_err fill_session(struct hd_session *s, const struct hd_request *r,
                                const struct hd_ids *prompt, const struct rendering *how,
                                struct hd_errmsg *msg)
{
    struct hd_loaded *m = s->model;
    const char *tenant = r->principal && r->principal->tenant ? r->principal->tenant : "local";
    s->w.n_prompt = s->w.n_id = (int)prompt->n;
    s->n_max = n_to_generate(m, r, prompt->n);
    s->to_context_end = s->n_max != r->n_max;
    s->result.n_dropped = (int)how->n_drop;
    s->ignore_end = r->ignore_end;
    size_t n = (size_t)s->w.n_prompt + (size_t)s->n_max;
    s->ids = malloc(n * sizeof *s->ids);
    s->w.table = malloc((size_t)hd_work_blocks_for((int)n) * sizeof *s->w.table);
    if (!s->ids || !s->w.table)
        return hd_fail(msg, HD_ERR_NOMEM, "request: out of memory");
    memcpy(s->ids, prompt->id, prompt->n * sizeof *s->ids);
    enum hd_err err = copy_stops(s, r, msg);
    if (err)
        return err;
    s->w.keys = calloc((size_t)(s->w.n_prompt / HD_KV_BLOCK) + 1, sizeof *s->w.keys);
    s->tenant = strdup(tenant);
    s->key_id = strdup(r->principal && r->principal->key_id ? r->principal->key_id : "");
    s->weight = r->principal && r->principal->weight > 1 ? r->principal->weight : 1;
    if (r->prepare_next && !how->n_drop)
        s->turn = hd_turn__new(m, r, tenant); /* without memory: it is just not prepared */
    if (!s->w.keys || !s->tenant || !s->key_id)
        return hd_fail(msg, HD_ERR_NOMEM, "request: out of memory");
    err = hd_work_make_keys(s->w.keys, &m->root_key, tenant, s->ids, s->w.n_prompt);
    if (!err)
        err = hd_sampler_new(&s->sampler, &r->sampling, m->hp->n_vocab);
    for (int i = 0; !err && i < s->w.n_prompt; i++)
        hd_sampler_accept(s->sampler, s->ids[i], false);
    if (!err)
        err = new_splitter(s, r, how->no_think);
    if (!err)
        err = new_thinking(s, r, how->no_think);
    return err ? hd_fail(msg, err, "request: %s", hd_err_text(err)) : new_choices(s, r, msg);
}

static enum hd_err check_request(const struct hd_request *r, const struct hd_callbacks *callbacks,
                                 struct hd_errmsg *msg)
{
    if (!callbacks->on_done)
        return hd_fail(msg, HD_ERR_INVALID, "request: on_done must be given");
    if (r->max_thinking < 0)
        return hd_fail(msg, HD_ERR_INVALID,
                       "request: the tokens of a thought must not be negative");
    if (r->n_max < 0)
        return hd_fail(msg, HD_ERR_INVALID, "request: the number of tokens must not be negative");
    if (!(r->timeout_s >= 0 && r->timeout_s < 1e9))
        return hd_fail(msg, HD_ERR_INVALID, "request: the timeout must be 0 or more seconds");
    if (r->n_bias > HD_BIAS_MAX)
        return hd_fail(msg, HD_ERR_INVALID, "logit_bias: at most %d tokens", HD_BIAS_MAX);
    for (size_t i = 0; i < r->n_bias; i++)
        if (!(r->bias[i].bias >= -1000 && r->bias[i].bias <= 1000))
            return hd_fail(msg, HD_ERR_INVALID, "logit_bias: values of -1000 to 1000");
    if (r->n_top < 0 || r->n_top > HD_TOP_MAX)
        return hd_fail(msg, HD_ERR_INVALID, "logprobs: at most %d tokens", HD_TOP_MAX);
    if (r->suffix && !r->prompt)
        return hd_fail(msg, HD_ERR_INVALID, "suffix: only beside a prompt of text");
    if (r->n_watch > HD_WATCH_MAX)
        return hd_fail(msg, HD_ERR_INVALID, "watch: at most %d ids", HD_WATCH_MAX);
    return hd_sampling_check(&r->sampling, msg);
}

static enum hd_err copy_watch(struct hd_session *s, const struct hd_request *r,
                              struct hd_errmsg *msg)
{
    for (size_t i = 0; i < r->n_watch; i++) {
        if (r->watch[i] < 0 || r->watch[i] >= s->model->hp->n_vocab)
            return hd_fail(msg, HD_ERR_INVALID, "watch: token id %d is not in 0 … %d", r->watch[i],
                           s->model->hp->n_vocab - 1);
        s->watch[s->n_watch++] = r->watch[i];
    }
    return HD_OK;
}

/* Links a session that is queued into what other threads look at. */
static void list_locked(struct hd_engine *e, struct hd_session *s)
{
    s->w.id = e->next_id++;
    e->stats.requests++;
    s->all_next = e->all;
    if (e->all)
        e->all->all_prev = s;
    e->all = s;
}

/* list: sessions of one request, linked by next. The first goes into the inbox, with the others as
 * its siblings. */
static enum hd_err enqueue(struct hd_engine *e, struct hd_session *list, int n, uint64_t *first_id,
                           struct hd_errmsg *msg)
{
    enum hd_err err = HD_OK;
    pthread_mutex_lock(&e->mu);
    if (e->stopping) {
        err = hd_fail(msg, HD_ERR_UNAVAILABLE, "engine: shutting down");
    } else if (e->n_session + n > e->options.max_sessions + e->options.max_queue) {
        err = hd_fail(msg, HD_ERR_BUSY, "engine: %d requests run or wait already (try again later)",
                      e->n_session);
        e->stats.refused++;
    } else {
        if (!e->n_session)
            e->last_step_end = hd_clock_seconds(); /* idle until now */
        e->n_session += n;
        if (first_id) /* before anyone else can call back with it */
            *first_id = e->next_id;
        for (struct hd_session *s = list; s; s = s->next) {
            list_locked(e, s);
            s->engine = e;
            s->work_before = hd_scheduler__work_locked(e);
        }
        list->siblings = list->next;
        list->next = NULL;
        if (e->inbox_tail)
            e->inbox_tail->next = list;
        else
            e->inbox = list;
        e->inbox_tail = list;
        pthread_cond_signal(&e->wake);
    }
    pthread_mutex_unlock(&e->mu);
    return err;
}

static void count_refused(struct hd_engine *e)
{
    pthread_mutex_lock(&e->mu);
    e->stats.refused++;
    pthread_mutex_unlock(&e->mu);
}

static void free_list(struct hd_session *list)
{
    for (struct hd_session *s = list, *next; s; s = next) {
        next = s->next;
        hd_session__free(s);
    }
}

/* One answer's session. */
static enum hd_err new_session(struct hd_session **out, struct hd_loaded *m,
                               const struct hd_request *r, const struct hd_ids *ids,
                               const struct rendering *how, const struct hd_callbacks *callbacks,
                               struct hd_errmsg *msg)
{
    struct hd_session *s = *out = calloc(1, sizeof *s);
    if (!s)
        return hd_fail(msg, HD_ERR_NOMEM, "request: out of memory");
    s->model = m;
    s->callbacks = *callbacks;
    enum hd_err err = copy_watch(s, r, msg);
    return err ? err : fill_session(s, r, ids, how, msg);
}

static enum hd_err new_sessions(struct hd_session **out, struct hd_loaded *m,
                                const struct hd_request *r, const struct hd_callbacks *callbacks,
                                size_t n, struct hd_errmsg *msg)
{
    struct hd_ids ids;
    struct rendering how = {0};
    struct hd_request each = *r;
    hd_ids_init(&ids, (size_t)m->n_ctx + 1);
    enum hd_err err = fit_thought(m, &ids, r, &how, msg);
    if (!err)
        err = check_ids(m, &ids, msg);
    for (size_t i = 0; !err && i < n; i++) {
        each.sampling.seed = r->sampling.seed + i;
        each.prepare_next = r->prepare_next && !i; /* which of them goes on is not known */
        err = new_session(out, m, &each, &ids, &how, &callbacks[i], msg);
        out = *out ? &(*out)->next : out;
    }
    hd_ids_dispose(&ids);
    return err;
}

enum hd_err hd_engine_submit_many(struct hd_engine *e, uint64_t *first_id,
                                  const struct hd_request *r, const struct hd_callbacks *callbacks,
                                  size_t n, struct hd_errmsg *msg)
{
    struct hd_session *list = NULL;
    double now = hd_clock_seconds();
    struct hd_loaded *m;
    enum hd_err err = hd_engine__language(&m, e, r->model, msg);
    if (!err && (!n || n > HD_ANSWERS_MAX))
        err = hd_fail(msg, HD_ERR_INVALID, "request: 1 to %d answers", HD_ANSWERS_MAX);
    for (size_t i = 0; !err && i < n; i++)
        err = check_request(r, &callbacks[i], msg);
    if (err)
        return err;
    err = new_sessions(&list, m, r, callbacks, n, msg);
    for (struct hd_session *s = list; s; s = s->next) {
        s->t_submit = now;
        s->deadline = r->timeout_s > 0 ? now + r->timeout_s : 0;
    }
    if (err)
        count_refused(e);
    else
        err = enqueue(e, list, (int)n, first_id, msg);
    if (err)
        free_list(list);
    return err;
}

enum hd_err hd_engine_submit(struct hd_engine *e, uint64_t *out_id, const struct hd_request *r,
                             const struct hd_callbacks *callbacks, struct hd_errmsg *msg)
{
    return hd_engine_submit_many(e, out_id, r, callbacks, 1, msg);
}

void hd_engine_cancel(struct hd_engine *e, uint64_t id)
{
    pthread_mutex_lock(&e->mu);
    for (struct hd_session *s = e->all; s; s = s->all_next)
        if (s->w.id == id)
            atomic_store(&s->cancelled, true);
    for (struct hd_embed_job *job = e->all_jobs; job; job = job->all_next)
        if (job->id == id)
            atomic_store(&job->cancelled, true);
    pthread_cond_signal(&e->wake);
    pthread_mutex_unlock(&e->mu);
}
