/* holdfast detokenize: a JSON array of ids on standard input to text. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "app.h"
#include "base/file.h"
#include "token/token.h"

enum { MAX_INPUT = 1 << 30, MAX_IDS = 1 << 30, MAX_TEXT = 1 << 30 };

static enum hd_err read_ids(struct hd_ids *ids, struct hd_errmsg *msg)
{
    char *text = NULL;
    size_t len = 0;
    json_error_t error;
    json_t *list = NULL;
    enum hd_err err = hd_fd_read(&text, &len, STDIN_FILENO, MAX_INPUT, msg);
    if (err)
        return err;
    list = json_loadb(text, len, 0, &error);
    if (!json_is_array(list))
        err = hd_fail(msg, HD_ERR_FORMAT, "standard input: not a JSON array of ids%s%s",
                      list ? "" : ": ", list ? "" : error.text);
    for (size_t i = 0; i < json_array_size(list) && !err; i++) {
        json_t *id = json_array_get(list, i);
        if (!json_is_integer(id) || json_integer_value(id) < 0 ||
            json_integer_value(id) > INT32_MAX)
            err = hd_fail(msg, HD_ERR_FORMAT, "standard input: entry %zu is no id", i);
        else
            err = hd_ids_push(ids, (int32_t)json_integer_value(id));
    }
    json_decref(list);
    free(text);
    return err;
}

int hd_cmd_detokenize(struct hd_app *app)
{
    struct hd_errmsg msg = {0};
    struct hd_store *store = NULL;
    struct hd_tokenizer *tok = NULL;
    struct hd_ids ids;
    struct hd_buf text;
    const char *const *models;
    char *path = NULL;
    size_t n = hd_options_list(app->options, "model", &models);
    hd_ids_init(&ids, MAX_IDS);
    hd_buf_init(&text, MAX_TEXT);
    enum hd_err err = hd_app_model_path(&path, app, n ? models[0] : NULL, &msg);
    if (!err)
        err = hd_store_open_header(&store, path, &msg);
    if (!err)
        err = hd_tokenizer_new(&tok, store, &msg);
    if (!err)
        err = read_ids(&ids, &msg);
    if (!err)
        err = hd_tokenizer_decode(tok, &text, ids.id, ids.n, true, &msg);
    if (!err && (fwrite(hd_buf_str(&text), 1, text.len, stdout) != text.len || fflush(stdout)))
        err = hd_fail(&msg, HD_ERR_IO, "standard output: cannot write");
    hd_buf_dispose(&text);
    hd_ids_dispose(&ids);
    hd_tokenizer_free(tok);
    hd_store_close(store);
    free(path);
    return err ? hd_app_fail(err, &msg) : HD_EXIT_OK;
}
