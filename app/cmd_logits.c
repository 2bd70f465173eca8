/* holdfast logits: log-probabilities of the next token after rows of a sequence of ids. */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

#include "model_run.h"

struct list {
    int32_t *value;
    size_t n;
};

/* "1,2,3" */
static enum hd_err parse_list(struct list *out, const char *text, const char *option,
                              struct hd_errmsg *msg)
{
    size_t cap = 1;
    for (const char *p = text; *p; p++)
        cap += *p == ',';
    out->value = malloc(cap * sizeof *out->value);
    if (!out->value)
        return hd_fail(msg, HD_ERR_NOMEM, "logits: out of memory");
    for (const char *p = text;;) {
        char *end;
        errno = 0;
        long value = strtol(p, &end, 10);
        if (end == p || errno || value < 0 || value > INT32_MAX || (*end && *end != ','))
            return hd_fail(msg, HD_ERR_USAGE,
                           "--%s: \"%.40s\" is no list of ids like 1,2,3 (numbers from 0 up, "
                           "separated by commas)",
                           option, text);
        out->value[out->n++] = (int32_t)value;
        if (!*end)
            return HD_OK;
        p = end + 1;
    }
}

struct ranked {
    float logprob;
    int32_t id;
};

struct output {
    FILE *to; /* memory: nothing is printed of a run that fails */
    int top, n_row;
    struct ranked *ranked; /* [n_vocab] */
    /* with --next */
    const struct list *ids;
    size_t ahead; /* a row is about the id so many places on: 1, with --mtp 2 */
    float *next;  /* [ids] log-probability of that id, per reported row */
    bool *has_next;
};

static int by_rank(const void *a, const void *b)
{
    const struct ranked *x = a, *y = b;
    if (x->logprob != y->logprob)
        return x->logprob > y->logprob ? -1 : 1;
    return x->id < y->id ? -1 : x->id > y->id;
}

static void print_row(void *ud, int32_t row, const float *logprob, int n_vocab)
{
    struct output *out = ud;
    int top = out->top < n_vocab ? out->top : n_vocab;
    for (int32_t i = 0; i < n_vocab; i++)
        out->ranked[i] = (struct ranked){logprob[i], i};
    qsort(out->ranked, (size_t)n_vocab, sizeof *out->ranked, by_rank);
    fprintf(out->to, "%s\"%d\":[", out->n_row++ ? "," : "", row);
    for (int i = 0; i < top; i++)
        fprintf(out->to, "%s[%d,%.7g]", i ? "," : "", out->ranked[i].id,
                (double)out->ranked[i].logprob);
    fputc(']', out->to);
    if (out->next && (size_t)row + out->ahead < out->ids->n) {
        out->next[row] = logprob[out->ids->value[(size_t)row + out->ahead]];
        out->has_next[row] = true;
    }
}

/* ,"next":{"0":-2.5,…}: what the ids themselves have got, for a perplexity. */
static void print_next(const struct output *out)
{
    const char *comma = "";
    fputs(",\"next\":{", stdout);
    for (size_t i = 0; i < out->ids->n; i++)
        if (out->has_next[i]) {
            printf("%s\"%zu\":%.7g", comma, i, (double)out->next[i]);
            comma = ",";
        }
    putchar('}');
}

static enum hd_err run(struct hd_app *app, const struct list *ids, const struct list *at,
                       struct hd_errmsg *msg)
{
    struct hd_engine *engine;
    struct hd_model_info info;
    struct output out = {.top = (int)hd_options_int(app->options, "top"), .ids = ids};
    bool next = hd_options_flag(app->options, "next"), mtp = hd_options_flag(app->options, "mtp");
    out.ahead = mtp ? 2 : 1;
    int32_t last = (int32_t)(ids->n - out.ahead);
    size_t n_prefill = (size_t)hd_options_int(app->options, "prefill");
    enum hd_err err = hd_app_engine(&engine, &info, app, 1, (int)ids->n, msg);
    if (err)
        return err;
    char *text = NULL;
    size_t len = 0;
    out.ranked = malloc((size_t)info.n_vocab * sizeof *out.ranked);
    out.to = open_memstream(&text, &len);
    if (next) {
        out.next = calloc(ids->n, sizeof *out.next);
        out.has_next = calloc(ids->n, sizeof *out.has_next);
    }
    if (!out.ranked || !out.to || (next && (!out.next || !out.has_next)))
        err = hd_fail(msg, HD_ERR_NOMEM, "logits: out of memory");
    else
        err = (mtp ? hd_engine_draft_logits
                   : hd_engine_logits)(engine, NULL, ids->value, ids->n, at->n ? at->value : &last,
                                       at->n ? at->n : 1, n_prefill, print_row, &out, msg);
    if (out.to && fclose(out.to) && !err)
        err = hd_fail(msg, HD_ERR_NOMEM, "logits: out of memory");
    if (!err) {
        printf("{\"rows\":{%s}", text);
        if (next)
            print_next(&out);
        puts("}");
    }
    free(text);
    free(out.ranked);
    free(out.next);
    free(out.has_next);
    hd_engine_free(engine);
    return err;
}

int hd_cmd_logits(struct hd_app *app)
{
    struct hd_errmsg msg = {0};
    struct list ids = {0}, at = {0};
    const char *tokens = hd_options_str(app->options, "tokens");
    const char *rows = hd_options_str(app->options, "at");
    enum hd_err err = HD_OK;
    if (!tokens)
        err = hd_fail(&msg, HD_ERR_USAGE, "logits: no ids given (--tokens 1,2,3)");
    if (!err)
        err = parse_list(&ids, tokens, "tokens", &msg);
    if (!err && rows)
        err = parse_list(&at, rows, "at", &msg);
    bool mtp = hd_options_flag(app->options, "mtp");
    if (!err && mtp && ids.n < 2)
        err = hd_fail(&msg, HD_ERR_USAGE, "--mtp: a draft needs two ids at least");
    for (size_t i = 0; !err && i < at.n; i++)
        if ((size_t)at.value[i] + mtp >= ids.n)
            err = hd_fail(&msg, HD_ERR_USAGE, "--at: row %d is not in 0 … %zu", at.value[i],
                          ids.n - 1 - mtp);
    if (!err)
        err = run(app, &ids, &at, &msg);
    free(ids.value);
    free(at.value);
    return err ? hd_app_fail(err, &msg) : HD_EXIT_OK;
}
