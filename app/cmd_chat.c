/* holdfast chat: a conversation in the terminal. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "model_run.h"

enum { MAX_MESSAGES = 10000 };

struct chat {
    struct hd_app *app;
    struct hd_engine *engine;
    struct hd_message *messages; /* contents owned; roles static */
    size_t n, cap;
    size_t n_system; /* 1 where the first message is the system's */
    bool terminal;
};

static enum hd_err add(struct chat *c, const char *role, const char *content)
{
    if (c->n == MAX_MESSAGES)
        return HD_ERR_LIMIT;
    if (c->n == c->cap) {
        size_t cap = c->cap ? 2 * c->cap : 16;
        struct hd_message *messages = realloc(c->messages, cap * sizeof *messages);
        if (!messages)
            return HD_ERR_NOMEM;
        c->messages = messages;
        c->cap = cap;
    }
    char *copy = strdup(content);
    if (!copy)
        return HD_ERR_NOMEM;
    c->messages[c->n++] = (struct hd_message){.role = role, .content = copy};
    return HD_OK;
}

/* Removes messages [from, from + n). */
static void drop(struct chat *c, size_t from, size_t n)
{
    for (size_t i = from; i < from + n; i++)
        free((char *)c->messages[i].content);
    memmove(c->messages + from, c->messages + from + n, (c->n - from - n) * sizeof *c->messages);
    c->n -= n;
}

/* An end that the text does not explain. */
static void tell_end(const struct hd_result *r)
{
    static const char *const thoughts[HD_REASONING_N] = {
        [HD_REASONING_BUDGET] = "the thought's budget was spent",
        [HD_REASONING_LENGTH] = "the thought was ended to leave room for the answer",
        [HD_REASONING_LOOP] = "the thought went round in circles and was ended",
        [HD_REASONING_ENDED] = "the model stopped thinking without an answer and was asked for one",
    };
    if (thoughts[r->reasoning_stop])
        fprintf(stderr, "\n(%s)", thoughts[r->reasoning_stop]);
    if (r->answer_loops)
        fputs("\n(the answer went round in circles and was cut)", stderr);
    else if (r->context_full)
        fputs("\n(the context is full)", stderr);
}

static enum hd_err answer(struct chat *c, struct hd_app_answer *a, struct hd_errmsg *msg)
{
    const char *truncation = hd_options_str(c->app->options, "truncation");
    struct hd_request r = {.principal = &HD_PRINCIPAL_LOCAL,
                           .messages = c->messages,
                           .n_message = c->n,
                           .sampling = hd_app_sampling(c->app),
                           .drop_turns = !strcmp(truncation, "auto")};
    r.n_max = hd_options_str(c->app->options, "n") ? (int)hd_options_int(c->app->options, "n") : 0;
    r.n_stop = hd_options_list(c->app->options, "stop", &r.stop);
    enum hd_err err = hd_app_thinking(&r, c->app, msg);
    if (err)
        return err;
    err = hd_app_answer_run(a, c->engine, &r, c->terminal ? HD_SHOW_TERMINAL : HD_SHOW_PIPE, msg);
    if (a->result.n_dropped) {
        fprintf(stderr, "(the oldest %d messages no longer fit and were dropped)\n",
                a->result.n_dropped);
        drop(c, c->n_system, (size_t)a->result.n_dropped);
    }
    if (!err)
        tell_end(&a->result);
    return err;
}

static enum hd_err turn(struct chat *c, const char *line)
{
    struct hd_errmsg msg = {0};
    struct hd_app_answer a;
    hd_app_answer_init(&a);
    enum hd_err err = add(c, "user", line);
    if (!err) {
        err = answer(c, &a, &msg);
        putchar('\n');
        if (err)
            drop(c, c->n - 1, 1);
        else
            err = add(c, "assistant", hd_buf_str(&a.answer));
    }
    if (err)
        hd_app_fail(err, &msg);
    fflush(stdout);
    hd_app_answer_dispose(&a);
    return err == HD_ERR_NOMEM ? err : HD_OK;
}

/* Returns false at the end. */
static bool command(struct chat *c, const char *line)
{
    if (!strcmp(line, "/exit") || !strcmp(line, "/quit"))
        return false;
    if (!strcmp(line, "/clear")) {
        drop(c, c->n_system, c->n - c->n_system);
        puts("(new conversation)");
    } else {
        puts("/exit ends, /clear begins anew, Ctrl-C stops an answer");
    }
    return true;
}

static enum hd_err converse(struct chat *c)
{
    char *line = NULL;
    size_t cap = 0;
    enum hd_err err = HD_OK;
    while (!err) {
        if (c->terminal) {
            fputs("> ", stdout);
            fflush(stdout);
        }
        ssize_t len = getline(&line, &cap, stdin);
        if (len < 0 && hd_app_interrupted()) {
            clearerr(stdin);
            puts("\n(/exit ends)");
            continue;
        }
        if (len < 0)
            break;
        while (len && (line[len - 1] == '\n' || line[len - 1] == '\r'))
            line[--len] = 0;
        if (line[0] == '/' && !command(c, line))
            break;
        if (len && line[0] != '/')
            err = turn(c, line);
    }
    free(line);
    return err;
}

int hd_cmd_chat(struct hd_app *app)
{
    struct hd_errmsg msg = {0};
    struct hd_model_info info;
    struct chat c = {.app = app, .terminal = isatty(STDIN_FILENO) && isatty(STDOUT_FILENO)};
    const char *system = hd_options_str(app->options, "system");
    const char *truncation = hd_options_str(app->options, "truncation");
    struct hd_request check = {0};
    enum hd_err err = hd_app_thinking(&check, app, &msg);
    if (!err && strcmp(truncation, "auto") && strcmp(truncation, "disabled"))
        err =
            hd_fail(&msg, HD_ERR_USAGE, "--truncation %s: unknown (auto or disabled)", truncation);
    if (!err)
        err = hd_app_engine(&c.engine, &info, app, 1, 0, &msg);
    if (!err && system) {
        err = add(&c, "system", system);
        c.n_system = 1;
    }
    if (!err) {
        hd_app_catch_interrupt();
        if (c.terminal)
            printf("%s, context of %d tokens. /exit ends, Ctrl-C stops an answer.\n", info.name,
                   info.n_ctx);
        err = converse(&c);
    }
    hd_engine_free(c.engine);
    drop(&c, 0, c.n);
    free(c.messages);
    return err ? hd_app_fail(err, &msg) : HD_EXIT_OK;
}
