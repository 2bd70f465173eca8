/* The next turn's beginning, computed while nobody waits.
 *
 * A conversation's next prompt begins with its turns so far, in the form in which the template
 * writes history: thoughts left out, the answer as prompt rows. What generation left in the cache
 * is of no use for that (other form, other rows). So once the engine is idle, the history is
 * rendered and computed up to its last whole block; the next turn finds it.
 *
 * How far the next prompt is known is asked of the template itself: it is rendered with two
 * different messages behind the answer, of a user or, after calls of functions, of a tool, and what
 * both have in common is known. The messages repeat the last one, since a template may look at the
 * question's language. A client that sends something else back finds less of it. */
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
        free((char *)t->message[i].role);
        free((char *)t->message[i].content);
        free((char *)t->message[i].tool_calls);
        free((char *)t->message[i].tool_call_id);
        free((char *)t->message[i].name);
    }
    hd_buf_dispose(&t->answer);
    hd_buf_dispose(&t->calls);
    free(t->message);
    free(t->tools);
    free(t->tenant);
    free(t);
}

static bool copy(const char **to, const char *from)
{
    *to = from ? strdup(from) : NULL;
    return *to || !from;
}

static bool copy_message(struct hd_chat_message *to, const struct hd_message *from)
{
    bool ok = copy(&to->role, from->role);
    ok &= copy(&to->content, from->content);
    ok &= copy(&to->tool_calls, from->tool_calls);
    ok &= copy(&to->tool_call_id, from->tool_call_id);
    return copy(&to->name, from->name) && ok;
}

struct hd_turn *hd_turn__new(struct hd_loaded *m, const struct hd_request *r, const char *tenant)
{
    struct hd_turn *t = r->n_message ? calloc(1, sizeof *t) : NULL;
    if (!t)
        return NULL;
    hd_buf_init(&t->answer, MAX_ANSWER);
    hd_buf_init(&t->calls, MAX_ANSWER);
    t->model = m;
    t->no_think = r->no_think;
    t->ask_think = r->ask_think;
    t->message = calloc(r->n_message, sizeof *t->message);
    t->tools = r->tools ? strdup(r->tools) : NULL;
    t->tenant = strdup(tenant);
    bool ok = t->message && t->tenant && (!r->tools || t->tools);
    for (size_t i = 0; ok && i < r->n_message; i++) {
        t->n_message = i + 1;
        ok = copy_message(&t->message[i], &r->messages[i]);
    }
    if (ok)
        return t;
    hd_turn__free(t);
    return NULL;
}

void hd_turn__text(struct hd_turn *t, enum hd_text_kind kind, const char *text, size_t len)
{
    if (kind == HD_TEXT_ANSWER)
        hd_buf_append(&t->answer, text, len);
    if (kind == HD_TEXT_CALL) {
        hd_buf_append(&t->calls, text, len);
        hd_buf_putc(&t->calls, 0);
    }
}

void hd_turn__push(struct hd_engine *e, struct hd_turn *t)
{
    int n = 0;
    if (t->answer.err || t->calls.err || !(t->answer.len || t->calls.len)) {
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

/* The calls as a client sends them back. */
static void put_calls(const struct hd_turn *t, struct hd_buf *out, const char *id)
{
    const char *at = hd_buf_str(&t->calls), *end = at + t->calls.len;
    for (char before = '['; at < end; at += strlen(at) + 1, before = ',')
        hd_buf_printf(out, "%c{\"id\":\"%s\",\"type\":\"function\",\"function\":%s}", before, id,
                      at);
    hd_buf_putc(out, ']');
}

/* The conversation with its answer and, behind that, a message that begins with `next`: of a user,
 * or, where functions were called, the first one's result. */
static enum hd_err render(const struct hd_turn *t, struct hd_ids *ids, const char *next)
{
    size_t n = t->n_message;
    struct hd_chat_message *messages = calloc(n + 2, sizeof *messages);
    struct hd_buf calls, text;
    const char *last = t->message[n - 1].content;
    enum hd_err err = messages ? HD_OK : HD_ERR_NOMEM;
    bool called = t->calls.len;
    hd_buf_init(&calls, 2 * MAX_ANSWER);
    hd_buf_init(&text, 2 * MAX_ANSWER);
    hd_buf_printf(&text, "%s%s", next, last ? last : "");
    if (called)
        put_calls(t, &calls, next); /* ids differ too: a template that writes them ends here */
    if (!err)
        err = calls.err ? calls.err : text.err;
    if (!err) {
        memcpy(messages, t->message, n * sizeof *messages);
        messages[n] = (struct hd_chat_message){
            .role = "assistant",
            .content = called && !t->answer.len ? NULL : hd_buf_str(&t->answer),
            .tool_calls = called ? hd_buf_str(&calls) : NULL};
        messages[n + 1] = (struct hd_chat_message){.role = called ? "tool" : "user",
                                                   .content = hd_buf_str(&text),
                                                   .tool_call_id = called ? next : NULL};
        const struct hd_chat_options options = {
            .no_think = t->no_think, .ask_think = t->ask_think, .tools = t->tools};
        err = hd_chat_render(t->model->tokenizer, ids, messages, n + 2, &options, NULL);
    }
    hd_buf_dispose(&calls);
    hd_buf_dispose(&text);
    free(messages);
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
