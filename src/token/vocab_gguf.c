/* A tokenizer from a GGUF's own metadata (tokenizer.ggml.*, model "gpt2"). */
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "token/token_impl.h"

/* tokenizer.ggml.token_type */
enum { TYPE_NORMAL = 1, TYPE_UNKNOWN, TYPE_CONTROL, TYPE_USER, TYPE_UNUSED, TYPE_BYTE };

static const char tokens_key[] = "tokenizer.ggml.tokens", types_key[] = "tokenizer.ggml.token_type",
                  merges_key[] = "tokenizer.ggml.merges";

static enum hd_err add_token(struct hd_tokenizer *tok, size_t id, int type, const char *text,
                             size_t len)
{
    struct hd_token__added added = {.id = (int32_t)id};
    unsigned flags = HD_TOKEN_ADDED;
    if (type == TYPE_UNUSED)
        return hd_token__vocab_set(&tok->vocab, id, text, len, HD_TOKEN_ABSENT);
    if (type != TYPE_CONTROL && type != TYPE_UNKNOWN && type != TYPE_USER)
        return hd_token__vocab_set_normal(&tok->vocab, id, text, len);
    if (type != TYPE_USER)
        flags |= HD_TOKEN_CONTROL;
    enum hd_err err = hd_token__vocab_set(&tok->vocab, id, text, len, flags);
    return err || !len ? err : hd_token__added_push(&tok->raw, &added);
}

static enum hd_err read_tokens(struct hd_tokenizer *tok, const struct hd_store *store,
                               struct hd_errmsg *msg)
{
    int elem;
    uint64_t n, n_type = 0, cursor = 0;
    const char *text;
    size_t len;
    enum hd_err err = HD_OK;
    if (!hd_store_array(store, tokens_key, &elem, &n) || elem != 8 || n < 1)
        return hd_fail(msg, HD_ERR_FORMAT, "%s: %s is no list of strings", hd_store_path(store),
                       tokens_key);
    if (n > HD_TOKEN_MAX_VOCAB)
        return hd_fail(msg, HD_ERR_LIMIT, "%s: %s has %llu entries (at most %d)",
                       hd_store_path(store), tokens_key, (unsigned long long)n, HD_TOKEN_MAX_VOCAB);
    if (hd_store_array(store, types_key, &elem, &n_type) && n_type != n)
        return hd_fail(msg, HD_ERR_FORMAT, "%s: %s has %llu entries, %s %llu", hd_store_path(store),
                       types_key, (unsigned long long)n_type, tokens_key, (unsigned long long)n);
    for (size_t id = 0; id < n && !err; id++) {
        double type = TYPE_NORMAL;
        if (!hd_store_array_next_str(store, tokens_key, &cursor, &text, &len))
            return hd_fail(msg, HD_ERR_FORMAT, "%s: %s ends at %zu", hd_store_path(store),
                           tokens_key, id);
        hd_store_array_f64(store, types_key, id, &type);
        err = add_token(tok, id, type >= 1 && type <= 6 ? (int)type : TYPE_NORMAL, text, len);
    }
    if (!err)
        err = hd_token__vocab_index(&tok->vocab);
    return err ? hd_fail(msg, err, "%s: vocabulary: %s", hd_store_path(store), hd_err_text(err))
               : HD_OK;
}

/* Converters leave merges of unused tokens in some files: those can never apply and are skipped. */
static enum hd_err read_merges(struct hd_tokenizer *tok, const struct hd_store *store,
                               struct hd_errmsg *msg)
{
    int elem;
    uint64_t n, cursor = 0;
    const char *text;
    size_t len, n_skipped = 0;
    if (!hd_store_array(store, merges_key, &elem, &n) || elem != 8)
        return hd_fail(msg, HD_ERR_FORMAT, "%s: %s is no list of strings", hd_store_path(store),
                       merges_key);
    if (n > 2 * (uint64_t)HD_TOKEN_MAX_VOCAB || hd_token__merges_init(&tok->merges, (size_t)n))
        return hd_fail(msg, HD_ERR_LIMIT, "%s: %s has %llu entries", hd_store_path(store),
                       merges_key, (unsigned long long)n);
    while (hd_store_array_next_str(store, merges_key, &cursor, &text, &len)) {
        /* A part may itself begin with a space only in files that are not byte-level. */
        const char *space = len > 1 ? memchr(text + 1, ' ', len - 1) : NULL;
        size_t left = space ? (size_t)(space - text) : 0;
        enum hd_err err = space ? hd_token__merges_add(tok, text, left, space + 1, len - left - 1)
                                : HD_ERR_FORMAT;
        if (err == HD_ERR_FORMAT)
            return hd_fail(msg, err, "%s: %s: entry %zu is no pair of tokens", hd_store_path(store),
                           merges_key, tok->merges.n);
        n_skipped += err != HD_OK;
    }
    if (n_skipped)
        hd_log(HD_LOG_WARN, "token", "merges without tokens skipped=%zu of=%zu file=%s", n_skipped,
               tok->merges.n, hd_store_path(store));
    return HD_OK;
}

static int32_t id_at(const struct hd_tokenizer *tok, const struct hd_store *store, const char *key)
{
    uint64_t id;
    return hd_store_u64(store, key, &id) && id < tok->vocab.n ? (int32_t)id : -1;
}

/* BOS only where the model's own tokenizer would set it: Qwen's files name one but never use it. */
static void read_special_ids(struct hd_tokenizer *tok, const struct hd_store *store,
                             const char *pre, size_t n_pre)
{
    bool add_bos =
        (n_pre >= 5 && !memcmp(pre, "llama", 5)) || (n_pre >= 8 && !memcmp(pre, "deepseek", 8));
    hd_store_bool(store, "tokenizer.ggml.add_bos_token", &add_bos);
    if (add_bos)
        tok->bos = id_at(tok, store, "tokenizer.ggml.bos_token_id");
    hd_token__add_end(tok, id_at(tok, store, "tokenizer.ggml.eos_token_id"));
    hd_token__add_end(tok, id_at(tok, store, "tokenizer.ggml.eot_token_id"));
    hd_token__add_end(tok, id_at(tok, store, "tokenizer.ggml.eom_token_id"));
}

enum hd_err hd_token__load_gguf(struct hd_tokenizer *tok, const struct hd_store *store,
                                struct hd_errmsg *msg)
{
    const char *model, *pre = "", *template;
    size_t n_model, n_pre = 0, n_template;
    struct hd_errmsg why = {0};
    if (!hd_store_str(store, "tokenizer.ggml.model", &model, &n_model))
        return hd_fail(msg, HD_ERR_NOTFOUND, "%s: no tokenizer in this file", hd_store_path(store));
    if (n_model != 4 || memcmp(model, "gpt2", 4) != 0)
        return hd_fail(msg, HD_ERR_UNSUPPORTED,
                       "%s: tokenizer.ggml.model \"%.*s\": only byte-level BPE (gpt2) is read",
                       hd_store_path(store), (int)(n_model < 32 ? n_model : 32), model);
    hd_store_str(store, "tokenizer.ggml.pre", &pre, &n_pre);
    enum hd_err err = hd_token__pretok_named(tok, pre, n_pre, &why);
    if (err)
        return hd_fail(msg, err, "%s: %.300s", hd_store_path(store), why.text);
    err = read_tokens(tok, store, msg);
    if (!err)
        err = read_merges(tok, store, msg);
    if (err)
        return err;
    read_special_ids(tok, store, pre, n_pre);
    if (hd_store_str(store, "tokenizer.chat_template", &template, &n_template) &&
        n_template < HD_TOKEN_MAX_TEMPLATE)
        tok->chat_template = strndup(template, n_template);
    return HD_OK;
}
