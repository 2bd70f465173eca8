/* A tokenizer from a GGUF's own metadata (tokenizer.ggml.*): byte-level BPE
 * ("gpt2"), WordPiece ("bert") and Unigram ("t5"). */
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "token/token_impl.h"

/* tokenizer.ggml.token_type */
enum { TYPE_NORMAL = 1, TYPE_UNKNOWN, TYPE_CONTROL, TYPE_USER, TYPE_UNUSED, TYPE_BYTE };

static const char tokens_key[] = "tokenizer.ggml.tokens", types_key[] = "tokenizer.ggml.token_type",
                  merges_key[] = "tokenizer.ggml.merges", scores_key[] = "tokenizer.ggml.scores";

/* A token that is text, as the model keeps it. */
static enum hd_err add_normal(struct hd_tokenizer *tok, size_t id, const char *text, size_t len,
                              double score)
{
    bool first = len >= 3 && !memcmp(text, "▁", 3);
    if (tok->model == HD_MODEL_UNIGRAM)
        return hd_token__unigram_set(tok, id, text, len, score, HD_TOKEN_NORMAL);
    if (tok->model == HD_MODEL_WORDPIECE)
        return hd_token__wordpiece_set(tok, id, text + 3 * first, len - 3 * first, !first);
    return hd_token__vocab_set_normal(&tok->vocab, id, text, len);
}

static enum hd_err add_token(struct hd_tokenizer *tok, size_t id, int type, const char *text,
                             size_t len, double score)
{
    struct hd_token__added added = {.id = (int32_t)id};
    unsigned flags = HD_TOKEN_ADDED;
    if (type == TYPE_UNUSED)
        return hd_token__vocab_set(&tok->vocab, id, text, len, HD_TOKEN_ABSENT);
    if (type == TYPE_BYTE && tok->model != HD_MODEL_BPE)
        return hd_token__vocab_set(&tok->vocab, id, text, len, HD_TOKEN_ADDED);
    if (type != TYPE_CONTROL && type != TYPE_UNKNOWN && type != TYPE_USER)
        return add_normal(tok, id, text, len, score);
    if (type != TYPE_USER)
        flags |= HD_TOKEN_CONTROL;
    enum hd_err err = hd_token__vocab_set(&tok->vocab, id, text, len, flags);
    return err || !len ? err : hd_token__added_push(&tok->raw, &added);
}

static enum hd_err read_tokens(struct hd_tokenizer *tok, const struct hd_store *store,
                               struct hd_errmsg *msg)
{
    int elem;
    uint64_t n, n_type = 0, n_score = 0, cursor = 0;
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
    if (tok->model == HD_MODEL_UNIGRAM &&
        (!hd_store_array(store, scores_key, &elem, &n_score) || n_score != n))
        return hd_fail(msg, HD_ERR_FORMAT, "%s: %s has %llu entries, %s %llu", hd_store_path(store),
                       scores_key, (unsigned long long)n_score, tokens_key, (unsigned long long)n);
    struct hd_store_view tokens, types = {0}, scores = {0};
    hd_store_array_view(store, tokens_key, &tokens);
    hd_store_array_view(store, types_key, &types);
    hd_store_array_view(store, scores_key, &scores);
    for (size_t id = 0; id < n && !err; id++) {
        double type = TYPE_NORMAL, score = 0;
        if (!hd_store_view_next_str(&tokens, &cursor, &text, &len))
            return hd_fail(msg, HD_ERR_FORMAT, "%s: %s ends at %zu", hd_store_path(store),
                           tokens_key, id);
        hd_store_view_f64(&types, id, &type);
        if (tok->model == HD_MODEL_UNIGRAM)
            hd_store_view_f64(&scores, id, &score);
        err =
            add_token(tok, id, type >= 1 && type <= 6 ? (int)type : TYPE_NORMAL, text, len, score);
    }
    if (!err && tok->model == HD_MODEL_BPE)
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
    struct hd_store_view view;
    hd_store_array_view(store, merges_key, &view);
    for (bool more = true; more;) {
        struct hd_token__merge_batch batch;
        batch.n = 0;
        while (batch.n < HD_TOKEN_BATCH &&
               (more = hd_store_view_next_str(&view, &cursor, &text, &len))) {
            /* A part may itself begin with a space only in files that are not byte-level. */
            const char *space = len > 1 ? memchr(text + 1, ' ', len - 1) : NULL;
            size_t left = space ? (size_t)(space - text) : 0;
            if (!space || hd_token__batch_put(&batch, tok, text, left, space + 1, len - left - 1))
                return hd_fail(msg, HD_ERR_FORMAT, "%s: %s: entry %zu is no pair of tokens",
                               hd_store_path(store), merges_key, tok->merges.n + batch.n);
        }
        n_skipped += hd_token__batch_add(&batch, tok);
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

/* --- encoders --------------------------------------------------------------------------------- */

/* An id by its key, else by the text that it has in every such vocabulary. */
static int32_t id_or_text(const struct hd_tokenizer *tok, const struct hd_store *store,
                          const char *key, const char *text)
{
    int32_t id = id_at(tok, store, key);
    return id >= 0 ? id : hd_tokenizer_special(tok, text);
}

static enum hd_err load_wordpiece(struct hd_tokenizer *tok, const struct hd_store *store,
                                  struct hd_errmsg *msg)
{
    struct hd_token__norm norm = {
        .kind = HD_NORM_BERT, .clean = true, .chinese = true, .accents = true, .lower = true};
    tok->wordpiece.bert_split = true;
    tok->wordpiece.max_chars = 100;
    enum hd_err err = hd_token__norm_push(tok, &norm);
    if (!err)
        err = read_tokens(tok, store, msg);
    if (err)
        return err;
    int32_t cls = id_or_text(tok, store, "tokenizer.ggml.cls_token_id", "[CLS]");
    /* The key is spelt like this in every file. */
    int32_t sep = id_or_text(tok, store, "tokenizer.ggml.seperator_token_id", "[SEP]");
    tok->wordpiece.unk = id_or_text(tok, store, "tokenizer.ggml.unknown_token_id", "[UNK]");
    if (cls < 0 || sep < 0 || tok->wordpiece.unk < 0)
        return hd_fail(msg, HD_ERR_FORMAT, "%s: no [CLS], [SEP] and [UNK] among its tokens",
                       hd_store_path(store));
    tok->bos = cls;
    hd_token__template_ids(tok, cls, sep, -1, 1);
    err = hd_token__wordpiece_finish(tok);
    return err ? hd_fail(msg, err, "%s: vocabulary: %s", hd_store_path(store), hd_err_text(err))
               : HD_OK;
}

/* llama.cpp's converter writes the bytes as i8 or u8, older ones as another integer type. */
static enum hd_err read_charsmap(struct hd_tokenizer *tok, const struct hd_store *store,
                                 struct hd_errmsg *msg)
{
    static const char key[] = "tokenizer.ggml.precompiled_charsmap";
    int elem;
    uint64_t n;
    double value;
    if (!hd_store_array(store, key, &elem, &n) || !n)
        return HD_OK;
    uint8_t *bytes = n <= HD_TOKEN_MAX_CHARSMAP ? malloc(n) : NULL;
    enum hd_err err = bytes ? HD_OK : HD_ERR_LIMIT;
    for (uint64_t i = 0; i < n && !err; i++) {
        if (hd_store_array_f64(store, key, i, &value) && value >= -128 && value <= 255)
            bytes[i] = (uint8_t)(int)value;
        else
            err = HD_ERR_FORMAT;
    }
    if (!err)
        err = hd_token__charsmap_init(&tok->charsmap, bytes, n);
    free(bytes);
    return err ? hd_fail(msg, err, "%s: %s: %s", hd_store_path(store), key, hd_err_text(err))
               : HD_OK;
}

static enum hd_err load_unigram(struct hd_tokenizer *tok, const struct hd_store *store,
                                struct hd_errmsg *msg)
{
    struct hd_token__norm norm = {.kind = HD_NORM_SENTENCEPIECE, .prefix = true, .merge = true};
    bool add_bos = false, add_eos = true;
    hd_store_bool(store, "tokenizer.ggml.add_space_prefix", &norm.prefix);
    hd_store_bool(store, "tokenizer.ggml.remove_extra_whitespaces", &norm.merge);
    hd_store_bool(store, "tokenizer.ggml.add_bos_token", &add_bos);
    hd_store_bool(store, "tokenizer.ggml.add_eos_token", &add_eos);
    tok->unigram.prepend = HD_PREPEND_NEVER;
    tok->unigram.meta_split = tok->unigram.whole_text = true;
    enum hd_err err = read_charsmap(tok, store, msg);
    if (!err)
        err = hd_token__norm_push(tok, &norm);
    if (!err)
        err = read_tokens(tok, store, msg);
    if (err)
        return err;
    tok->unigram.unk = id_or_text(tok, store, "tokenizer.ggml.unknown_token_id", "<unk>");
    if (tok->unigram.unk < 0)
        return hd_fail(msg, HD_ERR_FORMAT, "%s: no <unk> among its tokens", hd_store_path(store));
    int32_t bos = add_bos ? id_or_text(tok, store, "tokenizer.ggml.bos_token_id", "<s>") : -1;
    int32_t eos = add_eos ? id_or_text(tok, store, "tokenizer.ggml.eos_token_id", "</s>") : -1;
    tok->bos = bos;
    hd_token__template_ids(tok, bos, eos, bos >= 0 ? eos : -1, 0);
    err = hd_token__unigram_finish(tok);
    return err ? hd_fail(msg, err, "%s: vocabulary: %s", hd_store_path(store), hd_err_text(err))
               : HD_OK;
}

/* --- all -------------------------------------------------------------------------------------- */

/* A BOS that the model's tokenizer does not set and that ends a text is none: Qwen's files name
 * <|endoftext|> so, where its own tokenizer has no BOS. */
static enum hd_err read_special_texts(struct hd_tokenizer *tok, const struct hd_store *store)
{
    int32_t bos = id_at(tok, store, "tokenizer.ggml.bos_token_id");
    int32_t eos = id_at(tok, store, "tokenizer.ggml.eos_token_id");
    int32_t end = hd_tokenizer_special(tok, "<|endoftext|>");
    if (tok->bos < 0 && (bos == eos || bos == end))
        bos = -1;
    enum hd_err err = hd_token__set_special(tok, HD_TOKEN_BOS, bos);
    if (!err)
        err = hd_token__set_special(tok, HD_TOKEN_EOS, eos);
    if (!err)
        err = hd_token__set_special(tok, HD_TOKEN_PAD,
                                    id_at(tok, store, "tokenizer.ggml.padding_token_id"));
    if (!err)
        err = hd_token__set_special(tok, HD_TOKEN_UNK,
                                    id_at(tok, store, "tokenizer.ggml.unknown_token_id"));
    return err;
}

static enum hd_err read_template(char **out, const struct hd_store *store, const char *key)
{
    const char *text;
    size_t len;
    if (!hd_store_str(store, key, &text, &len) || len >= HD_TOKEN_MAX_TEMPLATE)
        return HD_OK;
    *out = strndup(text, len);
    return *out ? HD_OK : HD_ERR_NOMEM;
}

static enum hd_err load_bpe(struct hd_tokenizer *tok, const struct hd_store *store,
                            struct hd_errmsg *msg)
{
    const char *pre = "";
    size_t n_pre = 0;
    struct hd_errmsg why = {0};
    hd_store_str(store, "tokenizer.ggml.pre", &pre, &n_pre);
    enum hd_err err = hd_token__pretok_named(tok, pre, n_pre, &why);
    if (err)
        return hd_fail(msg, err, "%s: %.300s", hd_store_path(store), why.text);
    err = read_tokens(tok, store, msg);
    if (!err)
        err = read_merges(tok, store, msg);
    if (!err)
        read_special_ids(tok, store, pre, n_pre);
    return err;
}

enum hd_err hd_token__load_gguf(struct hd_tokenizer *tok, const struct hd_store *store,
                                struct hd_errmsg *msg)
{
    static const struct {
        const char *name;
        enum hd_token__model model;
        enum hd_err (*load)(struct hd_tokenizer *, const struct hd_store *, struct hd_errmsg *);
    } models[] = {{"gpt2", HD_MODEL_BPE, load_bpe},
                  {"bert", HD_MODEL_WORDPIECE, load_wordpiece},
                  {"t5", HD_MODEL_UNIGRAM, load_unigram}};
    const char *model;
    size_t n_model;
    enum hd_err err = HD_ERR_UNSUPPORTED;
    if (!hd_store_str(store, "tokenizer.ggml.model", &model, &n_model))
        return hd_fail(msg, HD_ERR_NOTFOUND, "%s: no tokenizer in this file", hd_store_path(store));
    size_t i = 0, n = sizeof models / sizeof *models;
    while (i < n && (strlen(models[i].name) != n_model || memcmp(models[i].name, model, n_model)))
        i++;
    if (i == n)
        return hd_fail(msg, err,
                       "%s: tokenizer.ggml.model \"%.*s\": not supported (read are gpt2, bert, t5)",
                       hd_store_path(store), (int)(n_model < 32 ? n_model : 32), model);
    tok->model = models[i].model;
    err = models[i].load(tok, store, msg);
    if (err)
        return err;
    err = read_special_texts(tok, store);
    if (!err)
        err = read_template(&tok->chat_template, store, "tokenizer.chat_template");
    if (!err)
        err = read_template(&tok->tool_template, store, "tokenizer.chat_template.tool_use");
    return err ? hd_fail(msg, err, "%s: out of memory", hd_store_path(store)) : HD_OK;
}
