/* The next turn's beginning, computed while nobody waits.
 *
 * A conversation's next prompt begins with its turns so far, in the form in which the template
 * writes history: thoughts left out, the answer as prompt rows. What generation left in the cache
 * is of no use for that (other form, other rows). So once the engine is idle, the history is
 * rendered and computed up to its last whole block; the next turn finds it.
 *
 * How far the next prompt is known is asked of the template itself: it is rendered with two
 * different messages of a user behind the answer, and what both have in common is known. The
 * messages repeat the last one, since a template may look at the question's language. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/engine_impl.h"

enum { MAX_TURNS = 32, MAX_ANSWER = 8 << 20 };

void hd_turn__free(struct hd_turn *t)
{
    if (!t)
        return;
    for (size_t i = 0; i < t->n_message; i++) {
        free(t->role[i]);
        free(t->content[i]);
    }
    hd_buf_dispose(&t->answer);
    free(t->role);
    free(t->content);
    free(t->tools);
    free(t->tenant);
    free(t);
}

/* Conversations with calls in them are left alone: what clients send back of them varies. */
static bool is_plain(const struct hd_request *r)
{
    for (size_t i = 0; i < r->n_message; i++)
        if (r->messages[i].tool_calls || r->messages[i].tool_call_id || r->messages[i].name ||
            !r->messages[i].content)
            return false;
    return r->n_message > 0;
}

struct hd_turn *hd_turn__new(struct hd_loaded *m, const struct hd_request *r, const char *tenant)
{
    struct hd_turn *t = is_plain(r) ? calloc(1, sizeof *t) : NULL;
    if (!t)
        return NULL;
    hd_buf_init(&t->answer, MAX_ANSWER);
    t->model = m;
    t->no_think = r->no_think;
    t->ask_think = r->ask_think;
    t->role = calloc(r->n_message, sizeof *t->role);
    t->content = calloc(r->n_message, sizeof *t->content);
    t->tools = r->tools ? strdup(r->tools) : NULL;
    t->tenant = strdup(tenant);
    bool ok = t->role && t->content && t->tenant && (!r->tools || t->tools);
    for (size_t i = 0; ok && i < r->n_message; i++) {
        t->role[i] = strdup(r->messages[i].role);
        t->content[i] = strdup(r->messages[i].content);
        t->n_message = i + 1;
        ok = t->role[i] && t->content[i];
    }
    if (ok)
        return t;
    hd_turn__free(t);
    return NULL;
}

void hd_turn__text(struct hd_turn *t, enum hd_text_kind kind, const char *text, size_t len)
{
    t->has_call |= kind == HD_TEXT_CALL;
    if (kind == HD_TEXT_ANSWER)
        hd_buf_append(&t->answer, text, len);
}

void hd_turn__push(struct hd_engine *e, struct hd_turn *t)
{
    int n = 0;
    if (t->has_call || t->answer.err || !t->answer.len) {
        hd_turn__free(t);
        return;
    }
    t->next = e->turns; /* the latest first: it is asked for soonest */
    e->turns = t;
    for (struct hd_turn **at = &e->turns; *at; at = &(*at)->next)
        if (++n > MAX_TURNS) {
            hd_turn__free(*at);
            *at = NULL;
            break;
        }
}

static enum hd_err render(const struct hd_turn *t, struct hd_ids *ids, const char *next)
{
    size_t n = t->n_message;
    struct hd_chat_message *messages = calloc(n + 2, sizeof *messages);
    if (!messages)
        return HD_ERR_NOMEM;
    for (size_t i = 0; i < n; i++)
        messages[i] = (struct hd_chat_message){.role = t->role[i], .content = t->content[i]};
    messages[n] = (struct hd_chat_message){.role = "assistant", .content = hd_buf_str(&t->answer)};
    char *question = NULL;
    if (asprintf(&question, "%s%s", next, t->content[n - 1]) < 0) {
        free(messages);
        return HD_ERR_NOMEM;
    }
    messages[n + 1] = (struct hd_chat_message){.role = "user", .content = question};
    const struct hd_chat_options options = {
        .no_think = t->no_think, .ask_think = t->ask_think, .tools = t->tools};
    enum hd_err err = hd_chat_render(t->model->tokenizer, ids, messages, n + 2, &options, NULL);
    free(messages);
    free(question);
    return err ? err : ids->err;
}

/* A session that has a prompt and no answer. NULL where nothing is worth it. */
static struct hd_session *make_session(const struct hd_turn *t)
{
    struct hd_ids a, b;
    struct hd_session *s = NULL;
    size_t n = 0, most = (size_t)t->model->n_ctx;
    hd_ids_init(&a, most);
    hd_ids_init(&b, most);
    if (!render(t, &a, "Yes") && !render(t, &b, "no"))
        while (n < a.n && n < b.n && a.id[n] == b.id[n])
            n++;
    n -= n % HD_KV_BLOCK;
    if (n && (s = calloc(1, sizeof *s))) {
        s->model = t->model;
        s->w.n_prompt = s->w.n_id = (int)n;
        s->ids = malloc(n * sizeof *s->ids);
        s->w.table = malloc(n / HD_KV_BLOCK * sizeof *s->w.table);
        s->w.keys = calloc(n / HD_KV_BLOCK, sizeof *s->w.keys);
        if (s->ids)
            memcpy(s->ids, a.id, n * sizeof *s->ids);
        if (!s->ids || !s->w.table || !s->w.keys ||
            hd_work_make_keys(s->w.keys, &t->model->root_key, t->tenant, s->ids, (int)n)) {
            hd_session__free(s);
            s = NULL;
        }
    }
    hd_ids_dispose(&a);
    hd_ids_dispose(&b);
    return s;
}

void hd_turn__start(struct hd_engine *e)
{
    while (e->turns) {
        struct hd_turn *t = e->turns;
        struct hd_loaded *m = t->model;
        if (hd_policy_background(m->policy))
            return;
        struct hd_session *s = make_session(t);
        e->turns = t->next;
        hd_turn__free(t);
        if (s) {
            hd_policy_set_background(m->policy, &s->w);
            return;
        }
    }
}

void hd_turn__end(struct hd_engine *e, struct hd_session *s)
{
    hd_policy_remove(s->model->policy, &s->w);
    hd_session__free(s);
}
