/* The streaming splitter: token ids in, whole characters out, thought apart from answer.
 *
 *   id ─ bytes ─► [half a character] ─► characters ─► [may become a marker or stop] ─► fn
 *
 * What stands in brackets is held back until the next token decides. Held-back text is at most as
 * long as the longest marker or stop string. */
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "token/token_impl.h"

static const char open_mark[] = "<think>", close_mark[] = "</think>";
enum { MAX_HELD = 1 << 26 };

struct hd_splitter {
    const struct hd_tokenizer *tok;
    struct hd_split_options options;
    int32_t open_id, close_id; /* -1 where the vocabulary lacks them */
    enum hd_split_kind kind;
    struct hd_buf bytes; /* the beginning of a character, at most 3 bytes between calls */
    struct hd_buf held;  /* whole characters that may begin a marker or a stop string */
    bool after_mark;     /* line breaks that follow a marker go with it */
    bool stopped;
};

enum hd_err hd_splitter_new(struct hd_splitter **out, const struct hd_tokenizer *tok,
                            const struct hd_split_options *options)
{
    *out = NULL;
    for (size_t i = 0; i < options->n_stop; i++)
        if (!hd_utf8_valid(options->stop[i], strlen(options->stop[i])))
            return HD_ERR_INVALID; /* it could match half a character */
    struct hd_splitter *splitter = calloc(1, sizeof *splitter);
    if (!splitter)
        return HD_ERR_NOMEM;
    bool starts = options->split_think && options->starts_in_think;
    *splitter = (struct hd_splitter){
        .tok = tok,
        .options = *options,
        .open_id = hd_tokenizer_special(tok, open_mark),
        .close_id = hd_tokenizer_special(tok, close_mark),
        .kind = starts ? HD_SPLIT_REASONING : HD_SPLIT_ANSWER,
        .after_mark = starts,
    };
    hd_buf_init(&splitter->bytes, MAX_HELD);
    hd_buf_init(&splitter->held, MAX_HELD);
    *out = splitter;
    return HD_OK;
}

void hd_splitter_free(struct hd_splitter *splitter)
{
    if (!splitter)
        return;
    hd_buf_dispose(&splitter->bytes);
    hd_buf_dispose(&splitter->held);
    free(splitter);
}

static void drop_front(struct hd_buf *buf, size_t n)
{
    memmove(buf->data, buf->data + n, buf->len - n);
    buf->len -= n;
    buf->data[buf->len] = 0;
}

/* Moves whole characters from bytes to held; what is no UTF-8 becomes U+FFFD. */
static enum hd_err decode(struct hd_splitter *splitter, bool at_end)
{
    struct hd_buf *bytes = &splitter->bytes;
    size_t i = 0;
    while (i < bytes->len) {
        unsigned codepoint;
        size_t need;
        size_t step = hd_utf8_decode(&codepoint, bytes->data + i, bytes->len - i, &need);
        if (!step && need && !at_end)
            break;
        if (step)
            hd_buf_append(&splitter->held, bytes->data + i, step);
        else
            hd_buf_put_utf8(&splitter->held, HD_UTF8_REPLACEMENT);
        i += step ? step : hd_token__broken_len(bytes->data + i, bytes->len - i);
    }
    if (i)
        drop_front(bytes, i);
    return splitter->held.err;
}

/* What may interrupt the text now: pattern i, or NULL past the last. Stop strings come first, so
 * that they win where a marker begins at the same place. */
static const char *pattern(const struct hd_splitter *splitter, size_t i)
{
    size_t n_stop = splitter->kind == HD_SPLIT_ANSWER ? splitter->options.n_stop : 0;
    if (i < n_stop)
        return splitter->options.stop[i];
    if (!splitter->options.split_think || i > n_stop + 1)
        return NULL;
    return i == n_stop ? open_mark : close_mark;
}

/* The first pattern that stands in held, at *at; NULL where none does. */
static const char *find(const struct hd_splitter *splitter, size_t *at)
{
    const struct hd_buf *held = &splitter->held;
    const char *found = NULL, *text;
    *at = held->len;
    for (size_t i = 0; (text = pattern(splitter, i)); i++) {
        size_t len = strlen(text);
        const char *where = len && held->len ? memmem(held->data, held->len, text, len) : NULL;
        if (where && (size_t)(where - held->data) < *at) {
            *at = (size_t)(where - held->data);
            found = text;
        }
    }
    return found;
}

/* Length of the longest end of held that a pattern begins with. */
static size_t undecided(const struct hd_splitter *splitter)
{
    const struct hd_buf *held = &splitter->held;
    const char *text;
    size_t most = 0;
    for (size_t i = 0; (text = pattern(splitter, i)); i++) {
        size_t k = strlen(text);
        k = k ? k - 1 : 0;
        for (k = k < held->len ? k : held->len; k > most; k--)
            if (!memcmp(held->data + held->len - k, text, k))
                most = k;
    }
    return most;
}

static void emit(struct hd_splitter *splitter, size_t len, hd_split_fn fn, void *ud)
{
    if (len) {
        fn(splitter->kind, splitter->held.data, len, ud);
        drop_front(&splitter->held, len);
    }
}

/* Drops line breaks behind a marker. */
static void skip_breaks(struct hd_splitter *splitter)
{
    size_t n = 0;
    while (n < splitter->held.len &&
           (splitter->held.data[n] == '\n' || splitter->held.data[n] == '\r'))
        n++;
    if (n < splitter->held.len)
        splitter->after_mark = false;
    if (n)
        drop_front(&splitter->held, n);
}

static void settle(struct hd_splitter *splitter, bool at_end, hd_split_fn fn, void *ud)
{
    const char *found;
    size_t at;
    for (;;) {
        if (splitter->after_mark)
            skip_breaks(splitter);
        found = find(splitter, &at);
        if (!found)
            break;
        emit(splitter, at, fn, ud);
        if (found != open_mark && found != close_mark) {
            splitter->stopped = true;
            return;
        }
        drop_front(&splitter->held, strlen(found));
        splitter->kind = found == open_mark ? HD_SPLIT_REASONING : HD_SPLIT_ANSWER;
        splitter->after_mark = true;
    }
    emit(splitter, splitter->held.len - (at_end ? 0 : undecided(splitter)), fn, ud);
}

enum hd_err hd_splitter_push(struct hd_splitter *splitter, int32_t id, hd_split_fn fn, void *ud,
                             bool *stopped)
{
    enum hd_err err;
    *stopped = splitter->stopped;
    if (splitter->stopped)
        return HD_OK;
    /* The markers may be control tokens, whose text is otherwise not shown. */
    bool marker = id >= 0 && (id == splitter->open_id || id == splitter->close_id);
    err = hd_tokenizer_piece(splitter->tok, &splitter->bytes, id, marker);
    if (!err)
        err = decode(splitter, false);
    if (err)
        return err;
    settle(splitter, false, fn, ud);
    *stopped = splitter->stopped;
    return HD_OK;
}

enum hd_err hd_splitter_finish(struct hd_splitter *splitter, hd_split_fn fn, void *ud)
{
    if (splitter->stopped)
        return HD_OK;
    enum hd_err err = decode(splitter, true);
    if (!err)
        settle(splitter, true, fn, ud);
    return err;
}
