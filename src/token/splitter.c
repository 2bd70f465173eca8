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
static const char *const answer_tags[] = {
    "<answer>",        "</answer>",      "<final answer>",  "</final answer>", "<final_answer>",
    "</final_answer>", "<Final Answer>", "</Final Answer>", "<最终答案>",      "</最终答案>",
};
enum { MAX_HELD = 1 << 26, N_SHOWN = 10, N_ANSWER_TAGS = sizeof answer_tags / sizeof *answer_tags };

struct hd_splitter {
    const struct hd_tokenizer *tok;
    struct hd_split_options options;
    enum hd_split_kind kind;
    struct hd_buf bytes; /* the beginning of a character, at most 3 bytes between calls */
    struct hd_buf held;  /* whole characters that may begin a marker or a stop string */
    bool after_mark;     /* line breaks that follow a marker go with it */
    bool stopped;
    size_t stopped_by; /* 1 + index of the stop string; 0: none */
    /* calls of functions */
    json_t *tools;          /* their names as keys; NULL: none are looked for */
    const char *in_call;    /* held begins with this mark of a call */
    bool fresh, after_call; /* nothing of the answer is out yet; white space behind a call goes */
    int32_t shown[N_SHOWN]; /* ids whose text is never lost, or -1 */
};

static enum hd_err read_tools(struct hd_splitter *splitter, const char *tools)
{
    json_t *list = json_loads(tools, JSON_REJECT_DUPLICATES, NULL), *tool;
    size_t i;
    splitter->tools = json_object();
    json_array_foreach(list, i, tool)
    {
        json_t *function = json_object_get(tool, "function");
        const char *name = json_string_value(json_object_get(function ? function : tool, "name"));
        if (name)
            json_object_set_new(splitter->tools, name, json_true());
    }
    bool fine = json_is_array(list) && splitter->tools;
    json_decref(list);
    splitter->fresh = true;
    return fine ? HD_OK : HD_ERR_INVALID;
}

/* The markers may be control tokens, whose text is otherwise not shown. */
static void find_shown(struct hd_splitter *splitter)
{
    const char *text;
    size_t n = 0;
    splitter->shown[n++] = hd_tokenizer_special(splitter->tok, open_mark);
    splitter->shown[n++] = hd_tokenizer_special(splitter->tok, close_mark);
    for (size_t i = 0; splitter->tools && n < N_SHOWN && (text = hd_token__call_token(i)); i++)
        splitter->shown[n++] = hd_tokenizer_special(splitter->tok, text);
    while (n < N_SHOWN)
        splitter->shown[n++] = -1;
}

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
        .kind = starts ? HD_SPLIT_REASONING : HD_SPLIT_ANSWER,
        .after_mark = starts,
    };
    hd_buf_init(&splitter->bytes, MAX_HELD);
    hd_buf_init(&splitter->held, MAX_HELD);
    enum hd_err err = options->tools ? read_tools(splitter, options->tools) : HD_OK;
    find_shown(splitter);
    if (err)
        hd_splitter_free(splitter);
    else
        *out = splitter;
    return err;
}

void hd_splitter_free(struct hd_splitter *splitter)
{
    if (!splitter)
        return;
    hd_buf_dispose(&splitter->bytes);
    hd_buf_dispose(&splitter->held);
    json_decref(splitter->tools);
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
    bool answer = splitter->kind == HD_SPLIT_ANSWER;
    size_t n_stop = answer ? splitter->options.n_stop : 0;
    bool plain = answer && splitter->options.plain_answer;
    size_t n_think = splitter->options.split_think && !plain ? 2 : 0;
    if (i < n_stop)
        return splitter->options.stop[i];
    i -= n_stop;
    if (i < n_think)
        return i ? close_mark : open_mark;
    i -= n_think;
    size_t n_tags = splitter->options.answer_tags && !plain ? N_ANSWER_TAGS : 0;
    if (i < n_tags)
        return answer_tags[i];
    i -= n_tags;
    return splitter->tools ? hd_token__call_mark(i, answer) : NULL;
}

static bool is_answer_tag(const char *pattern)
{
    for (size_t i = 0; i < N_ANSWER_TAGS; i++)
        if (answer_tags[i] == pattern)
            return true;
    return false;
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
        splitter->fresh = splitter->fresh && splitter->kind != HD_SPLIT_ANSWER;
    }
}

/* --- calls of functions ----------------------------------------------------------------------- */

static size_t leading_space(const struct hd_buf *held)
{
    size_t n = 0;
    while (n < held->len && held->data[n] && strchr(" \t\r\n", held->data[n]))
        n++;
    return n;
}

/* Emits the calls (consumed) that the first len bytes of held are. */
static void emit_calls(struct hd_splitter *splitter, json_t *calls, size_t len, hd_split_fn fn,
                       void *ud)
{
    json_t *call;
    size_t i;
    json_array_foreach(calls, i, call)
    {
        char *text = json_dumps(call, JSON_COMPACT);
        if (text)
            fn(HD_SPLIT_CALL, text, strlen(text), ud);
        free(text);
    }
    json_decref(calls);
    drop_front(&splitter->held, len);
    splitter->kind = HD_SPLIT_ANSWER;
    splitter->fresh = false;
    splitter->after_call = true;
}

/* Held begins with a call's mark. False: its end has not come yet. */
static bool settle_call(struct hd_splitter *splitter, bool at_end, hd_split_fn fn, void *ud)
{
    struct hd_buf *held = &splitter->held;
    size_t len = hd_token__call_block(splitter->in_call, held->data, held->len);
    if (!len && !at_end)
        return false;
    len = len ? len : held->len;
    json_t *calls = hd_token__parse_calls(splitter->in_call, held->data, len);
    splitter->in_call = NULL;
    if (calls)
        emit_calls(splitter, calls, len, fn, ud);
    else
        emit(splitter, len, fn, ud);
    return true;
}

/* The answer's beginning may be a call without marks. False: that is not decided yet. */
static bool settle_bare(struct hd_splitter *splitter, bool at_end, hd_split_fn fn, void *ud)
{
    struct hd_buf *held = &splitter->held;
    if (!splitter->fresh || splitter->kind != HD_SPLIT_ANSWER || !held->len ||
        !hd_token__may_be_call(held->data, held->len))
        return true;
    if (!at_end)
        return false;
    json_t *calls = hd_token__parse_bare(held->data, held->len, splitter->tools);
    if (calls)
        emit_calls(splitter, calls, held->len, fn, ud);
    return true;
}

static bool is_mark(const char *pattern)
{
    const char *mark;
    for (size_t i = 0; (mark = hd_token__call_mark(i, true)); i++)
        if (mark == pattern)
            return true;
    return false;
}

/* At a mark of a call: the text before it comes out, white space alone does not. */
static void begin_call(struct hd_splitter *splitter, const char *mark, size_t at, hd_split_fn fn,
                       void *ud)
{
    if (splitter->fresh && leading_space(&splitter->held) >= at)
        drop_front(&splitter->held, at);
    else
        emit(splitter, at, fn, ud);
    splitter->kind = HD_SPLIT_ANSWER;
    splitter->in_call = mark;
}

/* Drops line breaks behind a marker. */
static void skip_breaks(struct hd_splitter *splitter)
{
    size_t n = 0;
    while (n < splitter->held.len &&
           (splitter->held.data[n] == '\n' || splitter->held.data[n] == '\r' ||
            (splitter->options.answer_tags && splitter->held.data[n] == ' ')))
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
        if (splitter->after_call && (at = leading_space(&splitter->held)))
            drop_front(&splitter->held, at);
        splitter->after_call = splitter->after_call && !splitter->held.len;
        if (splitter->in_call) {
            if (!settle_call(splitter, at_end, fn, ud))
                return;
            continue;
        }
        if (!settle_bare(splitter, at_end, fn, ud))
            return;
        found = find(splitter, &at);
        if (!found)
            break;
        bool tag = is_answer_tag(found);
        bool think = tag || found == open_mark || found == close_mark;
        if (!think && splitter->tools && is_mark(found)) {
            begin_call(splitter, found, at, fn, ud);
            continue;
        }
        emit(splitter, at, fn, ud);
        if (!think) {
            splitter->stopped = true;
            while (splitter->stopped_by < splitter->options.n_stop &&
                   splitter->options.stop[splitter->stopped_by++] != found)
                continue;
            return;
        }
        drop_front(&splitter->held, strlen(found));
        if (!tag)
            splitter->kind = found == open_mark ? HD_SPLIT_REASONING : HD_SPLIT_ANSWER;
        else if (found[1] != '/')
            splitter->kind = HD_SPLIT_ANSWER;
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
    bool marker = false;
    for (size_t i = 0; i < N_SHOWN && id >= 0; i++)
        marker |= id == splitter->shown[i];
    err = hd_tokenizer_piece(splitter->tok, &splitter->bytes, id, marker);
    if (!err)
        err = decode(splitter, false);
    if (err)
        return err;
    settle(splitter, false, fn, ud);
    *stopped = splitter->stopped;
    return HD_OK;
}

size_t hd_splitter_stopped_by(const struct hd_splitter *splitter)
{
    return splitter->stopped_by;
}

enum hd_split_kind hd_splitter_kind(const struct hd_splitter *splitter)
{
    return splitter->in_call ? HD_SPLIT_CALL : splitter->kind;
}

bool hd_splitter_in_character(const struct hd_splitter *splitter)
{
    return splitter->bytes.len > 0;
}

bool hd_splitter_holds_text(const struct hd_splitter *splitter)
{
    return splitter->bytes.len || leading_space(&splitter->held) < splitter->held.len;
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
