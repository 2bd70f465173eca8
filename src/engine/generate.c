/* The blocking call, and text to ids and back. */
#include <stdlib.h>
#include <string.h>

#include "engine/engine_impl.h"

enum { MAX_TEXT = 64 << 20 };

struct waiter {
    pthread_mutex_t mu;
    pthread_cond_t done_cond;
    bool done;
    struct hd_buf text[2]; /* reasoning; answer, calls among it */
    struct hd_result *result;
};

static void on_text(void *ud, enum hd_text_kind kind, const char *text, size_t len)
{
    struct waiter *w = ud;
    hd_buf_append(&w->text[kind != HD_TEXT_REASONING], text, len);
}

static void on_done(void *ud, const struct hd_result *result)
{
    struct waiter *w = ud;
    pthread_mutex_lock(&w->mu);
    *w->result = *result;
    w->done = true;
    pthread_cond_signal(&w->done_cond);
    pthread_mutex_unlock(&w->mu);
}

static enum hd_err take_text(char **out, struct hd_buf *buf)
{
    if (!out || buf->err)
        return out ? buf->err : HD_OK;
    *out = hd_buf_take(buf);
    return *out ? HD_OK : HD_ERR_NOMEM;
}

enum hd_err hd_engine_generate(struct hd_engine *e, char **answer, char **reasoning,
                               struct hd_result *result, const struct hd_request *request,
                               struct hd_errmsg *msg)
{
    struct hd_result local;
    struct waiter w = {.result = result ? result : &local};
    const struct hd_callbacks callbacks = {.on_text = on_text, .on_done = on_done, .ud = &w};
    if (answer)
        *answer = NULL;
    if (reasoning)
        *reasoning = NULL;
    pthread_mutex_init(&w.mu, NULL);
    pthread_cond_init(&w.done_cond, NULL);
    hd_buf_init(&w.text[0], MAX_TEXT);
    hd_buf_init(&w.text[1], MAX_TEXT);
    enum hd_err err = hd_engine_submit(e, NULL, request, &callbacks, msg);
    if (!err) {
        pthread_mutex_lock(&w.mu);
        while (!w.done)
            pthread_cond_wait(&w.done_cond, &w.mu);
        pthread_mutex_unlock(&w.mu);
        if (w.result->err)
            err = hd_fail(msg, w.result->err, "%s", w.result->message.text);
    }
    if (!err) {
        err = take_text(answer, &w.text[1]);
        if (!err)
            err = take_text(reasoning, &w.text[0]);
        if (err) {
            free(answer ? *answer : NULL);
            if (answer)
                *answer = NULL;
            hd_fail(msg, err, "answer: %s", hd_err_text(err));
        }
    }
    hd_buf_dispose(&w.text[0]);
    hd_buf_dispose(&w.text[1]);
    pthread_cond_destroy(&w.done_cond);
    pthread_mutex_destroy(&w.mu);
    return err;
}

static enum hd_err with_tokenizer(struct hd_loaded **out, struct hd_engine *e, const char *model,
                                  struct hd_errmsg *msg)
{
    *out = hd_engine__find(e, model);
    if (!*out)
        return hd_fail(msg, HD_ERR_NOTFOUND, "model %s is not loaded",
                       model && *model ? model : "(default)");
    if (!(*out)->tokenizer)
        return hd_fail(msg, HD_ERR_UNSUPPORTED,
                       "%s: the model carries no tokenizer (a folder needs tokenizer.json)",
                       (*out)->name);
    return HD_OK;
}

enum hd_err hd_engine_tokenize(struct hd_engine *e, const char *model, const char *text, size_t len,
                               int32_t **ids, size_t *n, struct hd_errmsg *msg)
{
    struct hd_loaded *m;
    struct hd_ids list;
    *ids = NULL;
    *n = 0;
    enum hd_err err = with_tokenizer(&m, e, model, msg);
    if (err)
        return err;
    hd_ids_init(&list, len + 16);
    err = hd_tokenizer_encode(m->tokenizer, &list, text, len, false);
    if (!err)
        err = list.err;
    if (!err && !list.id && !(list.id = malloc(sizeof *list.id)))
        err = HD_ERR_NOMEM;
    if (err) {
        hd_ids_dispose(&list);
        return hd_fail(msg, err, "tokenize: %s", hd_err_text(err));
    }
    *ids = list.id;
    *n = list.n;
    return HD_OK;
}

enum hd_err hd_engine_detokenize(struct hd_engine *e, const char *model, const int32_t *ids,
                                 size_t n, char **text, struct hd_errmsg *msg)
{
    struct hd_loaded *m;
    struct hd_buf buf;
    *text = NULL;
    enum hd_err err = with_tokenizer(&m, e, model, msg);
    hd_buf_init(&buf, MAX_TEXT);
    for (size_t i = 0; !err && i < n; i++)
        if ((err = hd_tokenizer_piece(m->tokenizer, &buf, ids[i], true)))
            hd_fail(msg, err, "detokenize: %s", hd_err_text(err));
    if (!err && !(*text = hd_buf_take(&buf)))
        err = hd_fail(msg, HD_ERR_NOMEM, "detokenize: out of memory");
    hd_buf_dispose(&buf);
    return err;
}
