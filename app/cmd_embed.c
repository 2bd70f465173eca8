/* holdfast embed: one text per line of standard input, one JSON value per line of output.
 *
 * Lines that have arrived are computed together and answered at once, so the command serves a file
 * and a conversation through a pipe alike. */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "model_run.h"

enum { MAX_INPUT = 1 << 30, READ_SIZE = 1 << 16, MAX_LINES = 256 };

struct embed {
    struct hd_engine *engine;
    const char *model; /* its name in the engine */
    enum hd_embed_what what;
    enum hd_embed_as as;
    bool ids;
    size_t line; /* of the first text of the batch, from 1 */
};

/* --- output ---------------------------------------------------------------------------------- */

/* Nine digits bring back the very float. */
static void put_floats(const float *v, size_t n)
{
    putchar('[');
    for (size_t i = 0; i < n; i++)
        printf("%s%.9g", i ? "," : "", (double)v[i]);
    putchar(']');
}

static void put_item(const struct embed *job, const struct hd_embeddings *all,
                     const struct hd_embedding *item)
{
    size_t dim = (size_t)all->n_colbert_dim;
    switch (job->what) {
    case HD_EMBED_DENSE:
        put_floats(item->dense, (size_t)all->n_dim);
        break;
    case HD_EMBED_SPARSE:
        putchar('{');
        for (size_t i = 0; i < item->n_sparse; i++)
            printf("%s\"%d\":%.9g", i ? "," : "", item->sparse_ids[i],
                   (double)item->sparse_weight[i]);
        putchar('}');
        break;
    case HD_EMBED_COLBERT:
        putchar('[');
        for (size_t i = 0; i < item->n_colbert; i++) {
            if (i)
                putchar(',');
            put_floats(item->colbert + i * dim, dim);
        }
        putchar(']');
        break;
    case HD_EMBED_SCORE:
        printf("{\"score\":%.9g,\"logit\":%.9g}", (double)item->score, (double)item->logit);
        break;
    }
    putchar('\n');
}

/* --- input ----------------------------------------------------------------------------------- */

/* What a line holds beside plain text; owned. */
struct parsed {
    json_t *json;
    int32_t *ids;
};

static enum hd_err parse_ids(struct parsed *p, struct hd_embed_text *text, struct hd_errmsg *msg)
{
    size_t n = json_array_size(p->json);
    p->ids = malloc((n ? n : 1) * sizeof *p->ids);
    if (!p->ids)
        return hd_fail(msg, HD_ERR_NOMEM, "embed: out of memory");
    for (size_t i = 0; i < n; i++) {
        const json_t *id = json_array_get(p->json, i);
        if (!json_is_integer(id) || json_integer_value(id) < 0 ||
            json_integer_value(id) > INT32_MAX)
            return HD_ERR_FORMAT;
        p->ids[i] = (int32_t)json_integer_value(id);
    }
    *text = (struct hd_embed_text){.ids = p->ids, .n_id = n};
    return n ? HD_OK : HD_ERR_FORMAT;
}

/* A line is a text; with --ids an array of ids; for scores an array of two texts. */
static enum hd_err parse_line(const struct embed *job, struct parsed *p, struct hd_embed_text *text,
                              const char *line, size_t len, size_t number, struct hd_errmsg *msg)
{
    *text = (struct hd_embed_text){.text = line, .len = len};
    if (!job->ids && job->what != HD_EMBED_SCORE)
        return HD_OK;
    p->json = json_loadb(line, len, JSON_ALLOW_NUL, NULL);
    enum hd_err err = json_is_array(p->json) ? HD_OK : HD_ERR_FORMAT;
    if (!err && job->ids)
        err = parse_ids(p, text, msg);
    if (!err && !job->ids) {
        const json_t *query = json_array_get(p->json, 0), *document = json_array_get(p->json, 1);
        *text = (struct hd_embed_text){.text = json_string_value(query),
                                       .len = json_string_length(query),
                                       .pair = json_string_value(document),
                                       .pair_len = json_string_length(document)};
        if (json_array_size(p->json) != 2 || !text->text || !text->pair)
            err = HD_ERR_FORMAT;
    }
    if (err == HD_ERR_FORMAT)
        hd_fail(msg, err, "standard input, line %zu: must be %s", number,
                job->ids ? "a JSON array of token ids"
                         : "a JSON array of two strings, query and document");
    return err;
}

/* Computes and prints the lines of [data, data + len), each ended by a line break. */
static enum hd_err run_lines(struct embed *job, const char *data, size_t len, struct hd_errmsg *msg)
{
    struct hd_embed_text texts[MAX_LINES];
    struct parsed parsed[MAX_LINES] = {{0}};
    enum hd_err err = HD_OK;
    const char *end = data + len;
    while (!err && data < end) {
        struct hd_embeddings *result = NULL;
        size_t n = 0;
        for (; !err && n < MAX_LINES && data < end; n++) {
            const char *line_end = memchr(data, '\n', (size_t)(end - data));
            parsed[n] = (struct parsed){0};
            err = parse_line(job, &parsed[n], &texts[n], data, (size_t)(line_end - data),
                             job->line + n, msg);
            data = line_end + 1;
        }
        const struct hd_embed_request request = {
            .model = job->model, .what = job->what, .as = job->as, .texts = texts, .n_text = n};
        if (!err)
            err = hd_engine_embed_wait(job->engine, &result, &request, msg);
        for (size_t i = 0; !err && i < n; i++)
            put_item(job, result, &result->item[i]);
        for (size_t i = 0; !err && i < n; i++)
            if (result->item[i].truncated)
                fprintf(stderr, "holdfast: line %zu: cut to %d tokens, the model's maximum\n",
                        job->line + i, result->item[i].n_token);
        for (size_t i = 0; i < n; i++) {
            json_decref(parsed[i].json);
            free(parsed[i].ids);
        }
        hd_embeddings_free(result);
        job->line += n;
    }
    if (!err && (fflush(stdout) || ferror(stdout)))
        err = hd_fail(msg, HD_ERR_IO, "standard output: cannot write");
    return err;
}

static enum hd_err run_input(struct embed *job, struct hd_errmsg *msg)
{
    struct hd_buf buf;
    ssize_t n = 1;
    enum hd_err err = HD_OK;
    hd_buf_init(&buf, MAX_INPUT);
    while (!err && n > 0) {
        char *to = hd_buf_reserve(&buf, READ_SIZE);
        if (!to) {
            err = hd_fail(msg, buf.err, "standard input: line %zu is too long", job->line);
            break;
        }
        n = read(STDIN_FILENO, to, READ_SIZE);
        if (n < 0)
            err = hd_fail(msg, HD_ERR_IO, "standard input: %s", strerror(errno));
        if (n > 0)
            buf.len += (size_t)n;
        else if (n == 0 && buf.len)
            hd_buf_putc(&buf, '\n'); /* a last line without a line break */
        size_t len = buf.len;
        while (len && buf.data[len - 1] != '\n')
            len--;
        if (!err && len)
            err = run_lines(job, buf.data, len, msg);
        if (len) {
            memmove(buf.data, buf.data + len, buf.len - len);
            buf.len -= len;
        }
    }
    hd_buf_dispose(&buf);
    return err;
}

/* --- options --------------------------------------------------------------------------------- */

static enum hd_err read_options(struct embed *job, const struct hd_app *app, struct hd_errmsg *msg)
{
    static const struct {
        const char *name;
        enum hd_embed_what what;
    } heads[] = {{"dense", HD_EMBED_DENSE},
                 {"sparse", HD_EMBED_SPARSE},
                 {"colbert", HD_EMBED_COLBERT},
                 {"score", HD_EMBED_SCORE}};
    const char *as = hd_options_str(app->options, "as");
    const char *head = hd_options_str(app->options, "head");
    job->ids = hd_options_flag(app->options, "ids");
    if (as && strcmp(as, "query") && strcmp(as, "passage"))
        return hd_fail(msg, HD_ERR_USAGE, "--as: \"%.40s\" is neither query nor passage", as);
    job->as = !as ? HD_AS_GIVEN : !strcmp(as, "query") ? HD_AS_QUERY : HD_AS_PASSAGE;
    for (size_t i = 0; i < sizeof heads / sizeof *heads; i++)
        if (!strcmp(heads[i].name, head))
            job->what = heads[i].what;
    if (!job->what)
        return hd_fail(msg, HD_ERR_USAGE,
                       "--head: \"%.40s\" is none of dense, sparse, colbert, "
                       "score",
                       head);
    if (job->ids && as)
        return hd_fail(msg, HD_ERR_USAGE, "--ids: does not go with --as");
    return HD_OK;
}

int hd_cmd_embed(struct hd_app *app)
{
    struct hd_errmsg msg = {0};
    struct hd_model_info info;
    struct embed job = {.line = 1};
    enum hd_err err = read_options(&job, app, &msg);
    if (!err)
        err = hd_app_engine(&job.engine, &info, app, 1, 0, &msg);
    if (!err) {
        job.model = info.name;
        err = run_input(&job, &msg);
    }
    hd_engine_free(job.engine);
    return err ? hd_app_fail(err, &msg) : HD_EXIT_OK;
}
