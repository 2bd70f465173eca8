/* holdfast eval perplexity: how well a model predicts a text, and how far two sets of kernels are
 * apart on it.
 *
 * The text's ids are cut into stretches of --ctx; each is fed as a prompt of its own, and every id
 * but a stretch's first is weighed by the log-probability that the ids before it gave it.
 * Perplexity = exp(-mean). With --against a second engine with other kernels gets the same ids, and
 * the two distributions behind every id are compared over the whole vocabulary. */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/file.h"
#include "model_run.h"

#define KEPT_MAX ((size_t)2 << 30) /* bytes of one stretch's distributions */
enum { TEXT_MAX = 64 << 20, CTX_DEFAULT = 512 };

struct tally {
    double sum;       /* of log-probabilities */
    int64_t n_scored; /* ids weighed */
};

struct evaluation {
    struct hd_engine *engine, *other; /* other: of --against, or NULL */
    struct hd_model_info info, other_info;
    size_t n_ctx, n_prefill;
    struct tally tally, other_tally;
    double kl_sum, kl_max;
    int64_t n_compared, n_same_top;
};

/* The rows of a stretch on their way through one engine. */
struct rows {
    struct evaluation *run;
    const int32_t *ids;
    size_t n_id;
    struct tally *tally;
    float *kept; /* [n_ctx, n_vocab] what the other engine said of each row; NULL without one */
    bool fill;   /* this is the other engine: kept is filled */
};

static int32_t likeliest(const float *logprob, int n)
{
    int32_t top = 0;
    for (int32_t i = 1; i < n; i++)
        if (logprob[i] > logprob[top])
            top = i;
    return top;
}

/* KL(p‖q) in nats. */
static double divergence(const float *p, const float *q, int n)
{
    double sum = 0;
    for (int i = 0; i < n; i++)
        if (p[i] > -80)
            sum += exp((double)p[i]) * ((double)p[i] - (double)q[i]);
    return sum > 0 ? sum : 0;
}

static void take_row(void *ud, int32_t row, const float *logprob, int n_vocab)
{
    struct rows *r = ud;
    if ((size_t)row + 1 < r->n_id) {
        r->tally->sum += (double)logprob[r->ids[row + 1]];
        r->tally->n_scored++;
    }
    if (!r->kept)
        return;
    float *kept = r->kept + (size_t)row * (size_t)n_vocab;
    if (r->fill) {
        memcpy(kept, logprob, (size_t)n_vocab * sizeof *kept);
        return;
    }
    double kl = divergence(kept, logprob, n_vocab);
    r->run->kl_sum += kl;
    r->run->kl_max = fmax(r->run->kl_max, kl);
    r->run->n_compared++;
    r->run->n_same_top += likeliest(kept, n_vocab) == likeliest(logprob, n_vocab);
}

/* One stretch: first the other engine, whose distributions are kept, then the one in question. */
static enum hd_err score_stretch(struct evaluation *run, const int32_t *ids, size_t n,
                                 const int32_t *at, float *kept, struct hd_errmsg *msg)
{
    struct rows rows = {.run = run, .ids = ids, .n_id = n, .kept = kept};
    size_t n_prefill = run->n_prefill < n ? run->n_prefill : n;
    enum hd_err err = HD_OK;
    if (run->other) {
        rows.fill = true;
        rows.tally = &run->other_tally;
        err = hd_engine_logits(run->other, NULL, ids, n, at, n, n_prefill, take_row, &rows, msg);
    }
    rows.fill = false;
    rows.tally = &run->tally;
    return err ? err
               : hd_engine_logits(run->engine, NULL, ids, n, at, n, n_prefill, take_row, &rows,
                                  msg);
}

static enum hd_err score(struct evaluation *run, const int32_t *ids, size_t n_id,
                         struct hd_errmsg *msg)
{
    int32_t *at = malloc(run->n_ctx * sizeof *at);
    float *kept = NULL;
    size_t bytes = 0;
    enum hd_err err = HD_OK;
    if (run->other &&
        (!hd_mul(&bytes, run->n_ctx * sizeof *kept, (size_t)run->info.n_vocab) || bytes > KEPT_MAX))
        err = hd_fail(msg, HD_ERR_LIMIT,
                      "eval: --against keeps the distributions of a stretch, which with --ctx %zu "
                      "and %d tokens in the vocabulary is more than 2 GiB (lower --ctx)",
                      run->n_ctx, run->info.n_vocab);
    else if (run->other)
        kept = malloc(bytes);
    if (!err && (!at || (run->other && !kept)))
        err = hd_fail(msg, HD_ERR_NOMEM, "eval: out of memory");
    for (size_t i = 0; !err && i < run->n_ctx; i++)
        at[i] = (int32_t)i;
    for (size_t from = 0; !err && from + 1 < n_id; from += run->n_ctx) {
        size_t n = n_id - from < run->n_ctx ? n_id - from : run->n_ctx;
        err = score_stretch(run, ids + from, n, at, kept, msg);
    }
    free(at);
    free(kept);
    return err;
}

static double perplexity(const struct tally *t)
{
    return exp(-t->sum / (double)t->n_scored);
}

static enum hd_err print_json(const struct evaluation *run, size_t n_id)
{
    json_t *json = json_pack("{s:f,s:I,s:I,s:I,s:s}", "perplexity", perplexity(&run->tally),
                             "tokens", (json_int_t)n_id, "scored", (json_int_t)run->tally.n_scored,
                             "ctx", (json_int_t)run->n_ctx, "kernels", run->info.backend);
    if (json && run->other)
        json_object_set_new(
            json, "against",
            json_pack("{s:s,s:f,s:f,s:f,s:f,s:f}", "kernels", run->other_info.backend, "perplexity",
                      perplexity(&run->other_tally), "ratio",
                      perplexity(&run->tally) / perplexity(&run->other_tally), "mean_kl",
                      run->kl_sum / (double)run->n_compared, "max_kl", run->kl_max, "same_top",
                      (double)run->n_same_top / (double)run->n_compared));
    if (!json)
        return HD_ERR_NOMEM;
    json_dumpf(json, stdout, JSON_COMPACT | JSON_REAL_PRECISION(8));
    putchar('\n');
    json_decref(json);
    return HD_OK;
}

static void print_text(const struct evaluation *run, size_t n_id)
{
    printf("%s, %s kernels: perplexity %.4f over %lld of %zu tokens, stretches of %zu\n",
           run->info.path, run->info.backend, perplexity(&run->tally),
           (long long)run->tally.n_scored, n_id, run->n_ctx);
    if (run->other)
        printf("against %s: %.4f, ratio %.5f; KL divergence mean %.3g, largest %.3g; the same "
               "likeliest token behind %.2f%%\n",
               run->other_info.backend, perplexity(&run->other_tally),
               perplexity(&run->tally) / perplexity(&run->other_tally),
               run->kl_sum / (double)run->n_compared, run->kl_max,
               100.0 * (double)run->n_same_top / (double)run->n_compared);
}

static enum hd_err read_ids(int32_t **ids, size_t *n_id, const struct hd_app *app,
                            struct hd_engine *engine, struct hd_errmsg *msg)
{
    const char *path = hd_options_str(app->options, "file");
    char *text = NULL;
    size_t len = 0;
    enum hd_err err = path && strcmp(path, "-")
                          ? hd_file_read(&text, &len, path, TEXT_MAX, msg)
                          : hd_fd_read(&text, &len, STDIN_FILENO, TEXT_MAX, msg);
    if (!err)
        err = hd_engine_tokenize(engine, NULL, text, len, ids, n_id, msg);
    free(text);
    if (!err && hd_options_str(app->options, "n") &&
        (size_t)hd_options_int(app->options, "n") < *n_id)
        *n_id = (size_t)hd_options_int(app->options, "n");
    if (!err && *n_id < 2)
        err = hd_fail(msg, HD_ERR_INVALID,
                      "eval: the text has %zu tokens; a perplexity needs two at least", *n_id);
    return err;
}

static enum hd_err eval_perplexity(const struct hd_app *app, struct hd_errmsg *msg)
{
    struct evaluation run = {.n_ctx = (size_t)hd_options_int(app->options, "ctx"),
                             .n_prefill = (size_t)hd_options_int(app->options, "prefill")};
    const char *against = hd_options_str(app->options, "against");
    int32_t *ids = NULL;
    size_t n_id = 0;
    run.n_ctx = run.n_ctx ? run.n_ctx : CTX_DEFAULT;
    if (run.n_ctx < 2)
        return hd_fail(msg, HD_ERR_USAGE, "--ctx: a stretch needs two tokens at least");
    enum hd_err err = hd_app_engine(&run.engine, &run.info, app, 1, (int)run.n_ctx, msg);
    if (!err && !run.info.has_tokenizer)
        err = hd_fail(msg, HD_ERR_UNSUPPORTED, "%s: no tokenizer, so a text has no tokens",
                      run.info.path);
    if (!err)
        err = read_ids(&ids, &n_id, app, run.engine, msg);
    if (!err && against)
        err = hd_app_engine_kernels(&run.other, &run.other_info, app, against, 1, (int)run.n_ctx,
                                    msg);
    if (!err)
        err = score(&run, ids, n_id, msg);
    if (!err && app->json)
        err = print_json(&run, n_id);
    else if (!err)
        print_text(&run, n_id);
    free(ids);
    hd_engine_free(run.other);
    hd_engine_free(run.engine);
    return err;
}

int hd_cmd_eval(struct hd_app *app)
{
    struct hd_errmsg msg = {0};
    const char *what = hd_options_positional(app->options, 0);
    enum hd_err err;
    if (!what || strcmp(what, "perplexity"))
        err = hd_fail(&msg, HD_ERR_USAGE, "eval: %.40s%sperplexity is what can be evaluated",
                      what ? what : "", what ? " is unknown; " : "");
    else if (hd_options_n_positional(app->options) > 1)
        err = hd_fail(&msg, HD_ERR_USAGE,
                      "eval perplexity: %.80s is one word too many (the text comes with --file or "
                      "on standard input)",
                      hd_options_positional(app->options, 1));
    else
        err = eval_perplexity(app, &msg);
    return err ? hd_app_fail(err, &msg) : HD_EXIT_OK;
}
