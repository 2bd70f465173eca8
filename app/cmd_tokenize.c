/* holdfast tokenize: standard input, byte for byte, to a JSON array of ids. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "app.h"
#include "base/file.h"
#include "token/token.h"

enum { MAX_INPUT = 1 << 30, MAX_IDS = 1 << 30 };

struct tokenize {
    struct hd_tokenizer *tok;
    bool bos, special;
};

static enum hd_err print_ids(const struct tokenize *job, const char *text, size_t len,
                             struct hd_errmsg *msg)
{
    struct hd_ids ids;
    hd_ids_init(&ids, MAX_IDS);
    if (job->bos && hd_tokenizer_bos(job->tok) >= 0)
        hd_ids_push(&ids, hd_tokenizer_bos(job->tok));
    enum hd_err err = hd_tokenizer_encode(job->tok, &ids, text, len, job->special);
    if (err)
        hd_fail(msg, err, "tokenize: %s", hd_err_text(err));
    for (size_t i = 0; i < ids.n && !err; i++)
        printf("%s%d", i ? "," : "[", ids.id[i]);
    if (!err)
        puts(ids.n ? "]" : "[]");
    hd_ids_dispose(&ids);
    return err;
}

static enum hd_err tokenize_lines(const struct tokenize *job, struct hd_errmsg *msg)
{
    char *line = NULL;
    size_t cap = 0, n = 0;
    ssize_t len;
    enum hd_err err = HD_OK;
    while (!err && (len = getline(&line, &cap, stdin)) >= 0) {
        json_error_t error;
        n++;
        json_t *value = json_loadb(line, (size_t)len, JSON_DECODE_ANY | JSON_ALLOW_NUL, &error);
        if (!value || !json_is_string(value))
            err = hd_fail(msg, HD_ERR_FORMAT, "standard input, line %zu: %s", n,
                          value ? "not a JSON string" : error.text);
        else
            err = print_ids(job, json_string_value(value), json_string_length(value), msg);
        json_decref(value);
    }
    free(line);
    return err;
}

static enum hd_err tokenize_all(const struct tokenize *job, struct hd_errmsg *msg)
{
    char *text = NULL;
    size_t len = 0;
    enum hd_err err = hd_fd_read(&text, &len, STDIN_FILENO, MAX_INPUT, msg);
    if (!err)
        err = print_ids(job, text, len, msg);
    free(text);
    return err;
}

int hd_cmd_tokenize(struct hd_app *app)
{
    struct hd_errmsg msg = {0};
    struct hd_store *store = NULL;
    struct tokenize job = {.bos = hd_options_flag(app->options, "bos"),
                           .special = hd_options_flag(app->options, "special")};
    const char *const *models;
    char *path = NULL;
    size_t n = hd_options_list(app->options, "model", &models);
    enum hd_err err = hd_app_model_path(&path, app, n ? models[0] : NULL, &msg);
    if (!err)
        err = hd_store_open_header(&store, path, &msg);
    if (!err)
        err = hd_tokenizer_new(&job.tok, store, &msg);
    if (!err)
        err = hd_options_flag(app->options, "jsonl") ? tokenize_lines(&job, &msg)
                                                     : tokenize_all(&job, &msg);
    if (!err && (fflush(stdout) || ferror(stdout)))
        err = hd_fail(&msg, HD_ERR_IO, "standard output: cannot write");
    hd_tokenizer_free(job.tok);
    hd_store_close(store);
    free(path);
    return err ? hd_app_fail(err, &msg) : HD_EXIT_OK;
}
