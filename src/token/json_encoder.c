/* tokenizer.json of WordPiece and Unigram models, and the normalisers of all models. What we cannot
 * do exactly as the tokenizers library is refused by name. */
#include <stdlib.h>
#include <string.h>

#include "token/token_impl.h"

static const char *type_of(json_t *object)
{
    const char *type = json_string_value(json_object_get(object, "type"));
    return type ? type : "";
}

static bool flag_of(json_t *object, const char *key, bool absent)
{
    json_t *value = json_object_get(object, key);
    return json_is_boolean(value) ? json_is_true(value) : absent;
}

enum hd_err hd_token__json_unsupported(struct hd_errmsg *msg, const char *what, const char *name)
{
    return hd_fail(msg, HD_ERR_UNSUPPORTED, "tokenizer.json: %s \"%.64s\": not supported", what,
                   name);
}

char *hd_token__json_pattern(json_t *pattern, struct hd_errmsg *msg)
{
    const char *regex = json_string_value(json_object_get(pattern, "Regex"));
    const char *literal = json_string_value(json_object_get(pattern, "String"));
    char *text = NULL;
    if (regex)
        text = strdup(regex);
    else if (!literal || !*literal)
        hd_fail(msg, HD_ERR_FORMAT, "tokenizer.json: a step without a pattern");
    else if (strstr(literal, "\\E") || asprintf(&text, "\\Q%s\\E", literal) < 0)
        hd_token__json_unsupported(msg, "pattern", literal);
    return text;
}

/* --- normalizer ------------------------------------------------------------------------------- */

static enum hd_err add_charsmap(struct hd_tokenizer *tok, json_t *step, struct hd_errmsg *msg)
{
    const char *text = json_string_value(json_object_get(step, "precompiled_charsmap"));
    struct hd_token__norm norm = {.kind = HD_NORM_CHARSMAP};
    if (!text || !*text) /* a model without one */
        return HD_OK;
    if (tok->charsmap.n_unit)
        return hd_token__json_unsupported(msg, "normalizer", "two Precompiled steps");
    enum hd_err err = hd_token__charsmap_init_base64(&tok->charsmap, text);
    if (!err)
        err = hd_token__norm_push(tok, &norm);
    return err ? hd_fail(msg, err, "tokenizer.json: precompiled_charsmap: %s", hd_err_text(err))
               : HD_OK;
}

static enum hd_err add_replace(struct hd_tokenizer *tok, json_t *step, struct hd_errmsg *msg)
{
    struct hd_token__norm norm = {.kind = HD_NORM_REPLACE};
    struct hd_errmsg why = {0};
    const char *content = json_string_value(json_object_get(step, "content"));
    char *regex = hd_token__json_pattern(json_object_get(step, "pattern"), msg);
    if (!regex)
        return HD_ERR_UNSUPPORTED;
    norm.code = hd_token__regex(regex, &why);
    free(regex);
    if (!norm.code)
        return hd_fail(msg, HD_ERR_UNSUPPORTED, "tokenizer.json: Replace: %.300s", why.text);
    norm.text = strdup(content ? content : "");
    if (!norm.text) {
        hd_token__norm_dispose(&norm);
        return HD_ERR_NOMEM;
    }
    return hd_token__norm_push(tok, &norm);
}

static enum hd_err add_bert(struct hd_tokenizer *tok, json_t *step)
{
    bool lower = flag_of(step, "lowercase", true);
    struct hd_token__norm norm = {
        .kind = HD_NORM_BERT,
        .clean = flag_of(step, "clean_text", true),
        .chinese = flag_of(step, "handle_chinese_chars", true),
        .accents = flag_of(step, "strip_accents", lower),
        .lower = lower,
    };
    return hd_token__norm_push(tok, &norm);
}

static enum hd_err add_prepend(struct hd_tokenizer *tok, json_t *step)
{
    const char *text = json_string_value(json_object_get(step, "prepend"));
    struct hd_token__norm norm = {.kind = HD_NORM_PREPEND, .text = strdup(text ? text : "")};
    return norm.text ? hd_token__norm_push(tok, &norm) : HD_ERR_NOMEM;
}

enum hd_err hd_token__json_normalizer(struct hd_tokenizer *tok, json_t *step, int depth,
                                      struct hd_errmsg *msg)
{
    const char *type = type_of(step);
    struct hd_token__norm norm = {.kind = HD_NORM_FORM};
    enum hd_err err = HD_OK;
    if (!step || json_is_null(step))
        return HD_OK;
    if (!strcmp(type, "Sequence") && depth < 4) {
        json_t *list = json_object_get(step, "normalizers");
        for (size_t i = 0; i < json_array_size(list) && !err; i++)
            err = hd_token__json_normalizer(tok, json_array_get(list, i), depth + 1, msg);
        return err;
    }
    if (!strcmp(type, "Precompiled"))
        return add_charsmap(tok, step, msg);
    if (!strcmp(type, "Replace"))
        return add_replace(tok, step, msg);
    if (!strcmp(type, "BertNormalizer")) {
        err = add_bert(tok, step);
    } else if (!strcmp(type, "Prepend")) {
        err = add_prepend(tok, step);
    } else if (!strcmp(type, "Lowercase") || !strcmp(type, "StripAccents")) {
        norm.kind = *type == 'L' ? HD_NORM_LOWERCASE : HD_NORM_STRIP_ACCENTS;
        err = hd_token__norm_push(tok, &norm);
    } else if (!strcmp(type, "Strip")) {
        norm.kind = HD_NORM_STRIP;
        norm.left = flag_of(step, "strip_left", true);
        norm.right = flag_of(step, "strip_right", true);
        err = hd_token__norm_push(tok, &norm);
    } else {
        err = hd_token__normalizer_add(tok, type);
    }
    return err ? hd_token__json_unsupported(msg, "normalizer", type) : HD_OK;
}

/* --- pre_tokenizer ---------------------------------------------------------------------------- */

static enum hd_err read_metaspace(struct hd_tokenizer *tok, json_t *step, struct hd_errmsg *msg)
{
    struct hd_token__unigram *uni = &tok->unigram;
    const char *scheme = json_string_value(json_object_get(step, "prepend_scheme"));
    const char *replacement = json_string_value(json_object_get(step, "replacement"));
    if (replacement && strcmp(replacement, "▁") != 0)
        return hd_token__json_unsupported(msg, "Metaspace replacement", replacement);
    if (!scheme)
        scheme = flag_of(step, "add_prefix_space", true) ? "always" : "never";
    if (!strcmp(scheme, "always"))
        uni->prepend = HD_PREPEND_ALWAYS;
    else if (!strcmp(scheme, "first"))
        uni->prepend = HD_PREPEND_FIRST;
    else if (!strcmp(scheme, "never"))
        uni->prepend = HD_PREPEND_NEVER;
    else
        return hd_token__json_unsupported(msg, "Metaspace prepend_scheme", scheme);
    uni->meta_split = flag_of(step, "split", true);
    return HD_OK;
}

/* Unigram: WhitespaceSplit, Metaspace or one after the other. *meta: Metaspace was seen. */
static enum hd_err read_unigram_split(struct hd_tokenizer *tok, json_t *step, int depth, bool *meta,
                                      struct hd_errmsg *msg)
{
    const char *type = type_of(step);
    if (!strcmp(type, "Sequence") && depth < 4) {
        json_t *list = json_object_get(step, "pretokenizers");
        enum hd_err err = HD_OK;
        for (size_t i = 0; i < json_array_size(list) && !err; i++)
            err = read_unigram_split(tok, json_array_get(list, i), depth + 1, meta, msg);
        return err;
    }
    if (!*meta && !strcmp(type, "WhitespaceSplit")) {
        tok->unigram.white_split = true;
        return HD_OK;
    }
    if (*meta || strcmp(type, "Metaspace") != 0)
        return hd_token__json_unsupported(msg, "pre_tokenizer of a Unigram model", type);
    *meta = true;
    return read_metaspace(tok, step, msg);
}

static enum hd_err read_wordpiece_split(struct hd_tokenizer *tok, json_t *step,
                                        struct hd_errmsg *msg)
{
    const char *type = type_of(step);
    tok->wordpiece.bert_split = !strcmp(type, "BertPreTokenizer");
    if (tok->wordpiece.bert_split || !strcmp(type, "WhitespaceSplit"))
        return HD_OK;
    return hd_token__json_unsupported(msg, "pre_tokenizer of a WordPiece model", type);
}

/* --- model ------------------------------------------------------------------------------------ */

static enum hd_err read_wordpiece(struct hd_tokenizer *tok, json_t *model, struct hd_errmsg *msg)
{
    json_t *vocab = json_object_get(model, "vocab"), *value;
    json_t *max_chars = json_object_get(model, "max_input_chars_per_word");
    const char *unk = json_string_value(json_object_get(model, "unk_token")), *text;
    const char *prefix = json_string_value(json_object_get(model, "continuing_subword_prefix"));
    enum hd_err err = HD_OK;
    prefix = prefix ? prefix : "##";
    if (!json_object_size(vocab))
        return hd_fail(msg, HD_ERR_FORMAT, "tokenizer.json: no model.vocab");
    tok->wordpiece.unk = -1;
    tok->wordpiece.max_chars = json_is_integer(max_chars) && json_integer_value(max_chars) > 0
                                   ? (size_t)json_integer_value(max_chars)
                                   : 100;
    json_object_foreach(vocab, text, value)
    {
        json_int_t id = json_is_integer(value) ? json_integer_value(value) : -1;
        bool later = *prefix && !strncmp(text, prefix, strlen(prefix));
        if (id < 0 || id >= HD_TOKEN_MAX_VOCAB)
            return hd_fail(msg, HD_ERR_FORMAT, "tokenizer.json: token \"%.64s\" has no usable id",
                           text);
        if ((size_t)id < tok->vocab.n && tok->vocab.entry[id].flags)
            return hd_fail(msg, HD_ERR_FORMAT, "tokenizer.json: two tokens with id %lld",
                           (long long)id);
        if (unk && !strcmp(text, unk))
            tok->wordpiece.unk = (int32_t)id;
        const char *piece = later ? text + strlen(prefix) : text;
        err = hd_token__wordpiece_set(tok, (size_t)id, piece, strlen(piece), later);
        if (err)
            return hd_fail(msg, err, "tokenizer.json: token \"%.64s\": %s", text, hd_err_text(err));
    }
    if (tok->wordpiece.unk < 0)
        return hd_fail(msg, HD_ERR_FORMAT, "tokenizer.json: the vocabulary lacks its unk_token");
    return HD_OK;
}

static enum hd_err read_unigram(struct hd_tokenizer *tok, json_t *model, struct hd_errmsg *msg)
{
    json_t *vocab = json_object_get(model, "vocab");
    json_t *unk = json_object_get(model, "unk_id");
    size_t n = json_array_size(vocab);
    if (!n || n > HD_TOKEN_MAX_VOCAB)
        return hd_fail(msg, HD_ERR_FORMAT, "tokenizer.json: no usable model.vocab");
    if (!json_is_integer(unk) || json_integer_value(unk) < 0 ||
        json_integer_value(unk) >= (json_int_t)n)
        return hd_fail(msg, HD_ERR_FORMAT, "tokenizer.json: no usable model.unk_id");
    tok->unigram.unk = (int32_t)json_integer_value(unk);
    tok->unigram.byte_fallback = flag_of(model, "byte_fallback", false);
    for (size_t id = 0; id < n; id++) {
        json_t *entry = json_array_get(vocab, id);
        const char *piece = json_string_value(json_array_get(entry, 0));
        json_t *score = json_array_get(entry, 1);
        unsigned flags = HD_TOKEN_NORMAL;
        if (!piece || !json_is_number(score))
            return hd_fail(msg, HD_ERR_FORMAT, "tokenizer.json: model.vocab[%zu]: no [text, score]",
                           id);
        if ((int32_t)id == tok->unigram.unk)
            flags = HD_TOKEN_CONTROL; /* matches no text, whatever added_tokens says */
        enum hd_err err =
            hd_token__unigram_set(tok, id, piece, strlen(piece), json_number_value(score), flags);
        if (err)
            return hd_fail(msg, err, "tokenizer.json: model.vocab[%zu]: %s", id, hd_err_text(err));
    }
    return HD_OK;
}

enum hd_err hd_token__json_encoder(struct hd_tokenizer *tok, json_t *root, struct hd_errmsg *msg)
{
    json_t *model = json_object_get(root, "model"), *split = json_object_get(root, "pre_tokenizer");
    bool meta = false;
    enum hd_err err = hd_token__json_normalizer(tok, json_object_get(root, "normalizer"), 0, msg);
    if (err)
        return err;
    if (tok->model == HD_MODEL_WORDPIECE) {
        err = read_wordpiece_split(tok, split, msg);
        return err ? err : read_wordpiece(tok, model, msg);
    }
    tok->unigram.prepend = HD_PREPEND_NEVER;
    if (split && !json_is_null(split))
        err = read_unigram_split(tok, split, 0, &meta, msg);
    if (!err && !meta)
        err = hd_token__json_unsupported(msg, "Unigram model without pre_tokenizer", "Metaspace");
    return err ? err : read_unigram(tok, model, msg);
}
