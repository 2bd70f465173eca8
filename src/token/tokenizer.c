/* The tokenizer's handle: loading, encoding, pieces. */
#include <stdlib.h>
#include <string.h>

#include "token/token_impl.h"

void hd_token__add_end(struct hd_tokenizer *tok, int64_t id)
{
    if (id < 0 || id > INT32_MAX || hd_tokenizer_is_end(tok, (int32_t)id) ||
        tok->n_end == HD_TOKEN_MAX_END)
        return;
    tok->end[tok->n_end++] = (int32_t)id;
}

/* Turns and texts end at these, whatever else the checkpoint names as EOS. */
static void add_known_ends(struct hd_tokenizer *tok)
{
    static const char *const ends[] = {"<|im_end|>",      "<|endoftext|>", "<|eot_id|>",
                                       "<|end_of_text|>", "<|eom_id|>",    "<｜end▁of▁sentence｜>"};
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
        hd_token__add_end(tok, hd_tokenizer_special(tok, ends[i]));
}

enum hd_err hd_tokenizer_new(struct hd_tokenizer **out, const struct hd_store *store,
                             struct hd_errmsg *msg)
{
    *out = NULL;
    struct hd_tokenizer *tok = calloc(1, sizeof *tok);
    if (!tok)
        return hd_fail(msg, HD_ERR_NOMEM, "%s: out of memory", hd_store_path(store));
    hd_token__vocab_init(&tok->vocab);
    tok->bos = -1;
    enum hd_err err = hd_store_format(store) == HD_STORE_GGUF
                          ? hd_token__load_gguf(tok, store, msg)
                          : hd_token__load_json(tok, store, msg);
    if (err) {
        hd_tokenizer_free(tok);
        return err;
    }
    for (int byte = 0; tok->model == HD_MODEL_BPE && byte < 256; byte++) {
        char c = (char)byte;
        tok->byte_id[byte] = hd_token__vocab_find(&tok->vocab, &c, 1);
    }
    hd_token__added_sort(tok);
    add_known_ends(tok);
    err = hd_token__chat_detect(tok);
    if (err) {
        hd_tokenizer_free(tok);
        return hd_fail(msg, err, "%s: %s", hd_store_path(store), hd_err_text(err));
    }
    *out = tok;
    return HD_OK;
}

void hd_tokenizer_free(struct hd_tokenizer *tok)
{
    if (!tok)
        return;
    hd_token__vocab_dispose(&tok->vocab);
    hd_token__merges_dispose(&tok->merges);
    hd_token__pretok_dispose(&tok->pretok);
    hd_token__trie_dispose(&tok->trie);
    hd_token__charsmap_dispose(&tok->charsmap);
    free(tok->unigram.score);
    for (size_t i = 0; i < tok->n_norm; i++)
        hd_token__norm_dispose(&tok->norm[i]);
    free(tok->raw.token);
    free(tok->normalized.token);
    hd_token__chat_dispose(tok);
    free(tok);
}

enum hd_err hd_token__set_special(struct hd_tokenizer *tok, enum hd_token__special which,
                                  int32_t id)
{
    if (id < 0 || (size_t)id >= tok->vocab.n)
        return HD_OK;
    const struct hd_token__entry *entry = &tok->vocab.entry[id];
    free(tok->special_text[which]);
    tok->special_text[which] = strndup(tok->vocab.blob.data + entry->at, entry->len);
    return tok->special_text[which] ? HD_OK : HD_ERR_NOMEM;
}

size_t hd_tokenizer_n_vocab(const struct hd_tokenizer *tok)
{
    return tok->vocab.n;
}

int32_t hd_tokenizer_bos(const struct hd_tokenizer *tok)
{
    return tok->bos;
}

bool hd_tokenizer_is_end(const struct hd_tokenizer *tok, int32_t id)
{
    for (size_t i = 0; i < tok->n_end; i++)
        if (tok->end[i] == id)
            return true;
    return false;
}

static int32_t find_in(const struct hd_tokenizer *tok, const struct hd_token__added_set *set,
                       const char *text, size_t len)
{
    for (size_t i = 0; i < set->n; i++) {
        const struct hd_token__entry *entry = &tok->vocab.entry[set->token[i].id];
        if (entry->len == len && !memcmp(tok->vocab.blob.data + entry->at, text, len))
            return set->token[i].id;
    }
    return -1;
}

int32_t hd_tokenizer_special(const struct hd_tokenizer *tok, const char *text)
{
    size_t len = strlen(text);
    int32_t id = find_in(tok, &tok->raw, text, len);
    return id >= 0 ? id : find_in(tok, &tok->normalized, text, len);
}

/* --- encoding --------------------------------------------------------------------------------- */

struct encoding {
    const struct hd_tokenizer *tok;
    struct hd_ids *out;
};

/* Text that holds no added tokens, normalised already. */
static enum hd_err encode_words(struct encoding *encoding, const char *text, size_t len)
{
    struct hd_token__work work;
    if (encoding->tok->model == HD_MODEL_WORDPIECE)
        return hd_token__wordpiece(encoding->tok, encoding->out, text, len);
    if (encoding->tok->model == HD_MODEL_UNIGRAM)
        return hd_token__unigram(encoding->tok, encoding->out, text, len);
    enum hd_err err = hd_token__work_init(&work, encoding->tok, encoding->out, len);
    if (!err)
        err = hd_token__pretokenize(&work, text, len);
    hd_token__work_dispose(&work);
    return err;
}

static enum hd_err normalized_stretch(void *ud, int32_t id, const char *text, size_t len)
{
    struct encoding *encoding = ud;
    return id >= 0 ? hd_ids_push(encoding->out, id) : encode_words(encoding, text, len);
}

/* Text between the added tokens that are sought before normalising. */
static enum hd_err raw_stretch(void *ud, int32_t id, const char *text, size_t len)
{
    struct encoding *encoding = ud;
    char *owned = NULL;
    if (id >= 0)
        return hd_ids_push(encoding->out, id);
    enum hd_err err = hd_token__normalize(encoding->tok, &owned, &text, &len);
    if (!err)
        err = hd_token__added_split(encoding->tok, &encoding->tok->normalized, text, len,
                                    normalized_stretch, encoding);
    free(owned);
    return err;
}

enum hd_err hd_tokenizer_encode(const struct hd_tokenizer *tok, struct hd_ids *out,
                                const char *text, size_t len, bool special)
{
    struct encoding encoding = {.tok = tok, .out = out};
    char *owned = NULL;
    if (len > HD_TOKEN_MAX_TEXT)
        return HD_ERR_LIMIT;
    if (!len)
        return out->err;
    enum hd_err err = hd_token__repair(&owned, &text, &len);
    if (!err && len > HD_TOKEN_MAX_TEXT)
        err = HD_ERR_LIMIT;
    if (!err && special)
        err = hd_token__added_split(tok, &tok->raw, text, len, raw_stretch, &encoding);
    if (!err && !special) {
        err = hd_token__normalize(tok, &owned, &text, &len);
        if (!err)
            err = encode_words(&encoding, text, len);
    }
    free(owned);
    return err;
}

/* A piece of WordPiece or Unigram: ▁ is a space, <0x0A> with byte fallback a byte. */
static enum hd_err put_piece(const struct hd_tokenizer *tok, struct hd_buf *out, int32_t id)
{
    const struct hd_token__entry *entry = &tok->vocab.entry[id];
    const char *text = tok->vocab.blob.data + entry->at;
    for (int byte = 0; tok->unigram.byte_fallback && entry->len == 6 && byte < 256; byte++)
        if (tok->unigram.byte[byte] == id)
            return hd_buf_putc(out, (char)byte);
    for (size_t i = 0; i < entry->len;) {
        bool space = entry->len - i >= 3 && !memcmp(text + i, "▁", 3);
        hd_buf_putc(out, space ? ' ' : text[i]);
        i += space ? 3 : 1;
    }
    return out->err;
}

enum hd_err hd_tokenizer_piece(const struct hd_tokenizer *tok, struct hd_buf *out, int32_t id,
                               bool special)
{
    if (id < 0 || (size_t)id >= tok->vocab.n)
        return out->err;
    const struct hd_token__entry *entry = &tok->vocab.entry[id];
    if (!entry->flags || (entry->flags & HD_TOKEN_CONTROL && !special))
        return out->err;
    if (tok->model != HD_MODEL_BPE && entry->flags & HD_TOKEN_NORMAL)
        return put_piece(tok, out, id);
    return hd_buf_append(out, tok->vocab.blob.data + entry->at, entry->len);
}

bool hd_tokenizer_is_control(const struct hd_tokenizer *tok, int32_t id)
{
    return id >= 0 && (size_t)id < tok->vocab.n && tok->vocab.entry[id].flags & HD_TOKEN_CONTROL;
}

enum hd_err hd_tokenizer_decode(const struct hd_tokenizer *tok, struct hd_buf *out,
                                const int32_t *ids, size_t n, bool special, struct hd_errmsg *msg)
{
    struct hd_buf bytes;
    char *owned = NULL;
    enum hd_err err = HD_OK;
    hd_buf_init(&bytes, HD_TOKEN_MAX_TEXT);
    for (size_t i = 0; i < n && !err; i++) {
        if (ids[i] < 0 || (size_t)ids[i] >= tok->vocab.n)
            err = hd_fail(msg, HD_ERR_INVALID, "id %d: the vocabulary has ids 0 to %zu", ids[i],
                          tok->vocab.n - 1);
        else
            err = hd_tokenizer_piece(tok, &bytes, ids[i], special);
    }
    /* The space in front of the first word is the tokenizer's own. */
    bool led = tok->model != HD_MODEL_BPE && bytes.len && *bytes.data == ' ';
    const char *text = hd_buf_str(&bytes) + led;
    size_t len = bytes.len - led;
    if (!err)
        err = hd_token__repair(&owned, &text, &len);
    if (!err)
        err = hd_buf_append(out, text, len);
    free(owned);
    hd_buf_dispose(&bytes);
    return err;
}
