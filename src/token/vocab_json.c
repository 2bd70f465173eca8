/* A tokenizer from tokenizer.json (the tokenizers library's format, Apache-2.0) and
 * tokenizer_config.json. What we cannot do exactly is refused by name. */
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "token/token_impl.h"

static const char *type_of(json_t *object)
{
    const char *type = json_string_value(json_object_get(object, "type"));
    return type ? type : "";
}

/* --- pre_tokenizer ---------------------------------------------------------------------------- */

static enum hd_err add_regex(struct hd_tokenizer *tok, const char *regex, bool removes,
                             bool inverted, struct hd_errmsg *msg)
{
    struct hd_errmsg why = {0};
    enum hd_err err = hd_token__pretok_add(&tok->pretok, regex, removes, inverted, &why);
    return err ? hd_fail(msg, err, "tokenizer.json: %.300s", why.text) : HD_OK;
}

static enum hd_err read_split(struct hd_tokenizer *tok, json_t *split, struct hd_errmsg *msg)
{
    json_t *pattern = json_object_get(split, "pattern");
    const char *behavior = json_string_value(json_object_get(split, "behavior"));
    bool inverted = json_is_true(json_object_get(split, "invert"));
    bool removes = behavior && !strcmp(behavior, "Removed");
    if (!removes && (!behavior || strcmp(behavior, "Isolated") != 0))
        return hd_token__json_unsupported(msg, "Split behavior", behavior ? behavior : "(none)");
    char *regex = hd_token__json_pattern(pattern, msg);
    if (!regex)
        return HD_ERR_UNSUPPORTED;
    enum hd_err err = add_regex(tok, regex, removes, inverted, msg);
    free(regex);
    return err;
}

/* *byte_level becomes true at ByteLevel, which has to be the last step. */
static enum hd_err read_pretokenizer(struct hd_tokenizer *tok, json_t *step, int depth,
                                     bool *byte_level, struct hd_errmsg *msg)
{
    const char *type = type_of(step);
    if (*byte_level)
        return hd_token__json_unsupported(msg, "pre_tokenizer after ByteLevel", type);
    if (!strcmp(type, "Sequence") && depth < 4) {
        json_t *list = json_object_get(step, "pretokenizers");
        enum hd_err err = HD_OK;
        for (size_t i = 0; i < json_array_size(list) && !err; i++)
            err = read_pretokenizer(tok, json_array_get(list, i), depth + 1, byte_level, msg);
        return err;
    }
    if (!strcmp(type, "Split"))
        return read_split(tok, step, msg);
    if (!strcmp(type, "Digits"))
        return add_regex(
            tok, json_is_true(json_object_get(step, "individual_digits")) ? "\\p{N}" : "\\p{N}+",
            false, false, msg);
    if (strcmp(type, "ByteLevel") != 0)
        return hd_token__json_unsupported(msg, "pre_tokenizer", type);
    *byte_level = true;
    if (json_is_true(json_object_get(step, "add_prefix_space")))
        return hd_token__json_unsupported(msg, "ByteLevel", "add_prefix_space");
    if (json_is_false(json_object_get(step, "use_regex")))
        return HD_OK;
    return add_regex(tok, hd_token__gpt2_regex, false, false, msg);
}

/* --- model ------------------------------------------------------------------------------------ */

/* Settings that change the ids in ways that no model of ours uses. */
static enum hd_err check_model(json_t *model, struct hd_errmsg *msg)
{
    static const char *const texts[] = {"continuing_subword_prefix", "end_of_word_suffix"};
    if (strcmp(type_of(model), "BPE") != 0)
        return hd_token__json_unsupported(msg, "model", type_of(model));
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        const char *text = json_string_value(json_object_get(model, texts[i]));
        if (text && *text)
            return hd_token__json_unsupported(msg, texts[i], text);
    }
    if (json_number_value(json_object_get(model, "dropout")) > 0)
        return hd_token__json_unsupported(msg, "model", "dropout");
    if (json_is_true(json_object_get(model, "byte_fallback")))
        return hd_token__json_unsupported(msg, "model", "byte_fallback");
    return HD_OK;
}

static enum hd_err read_vocab(struct hd_tokenizer *tok, json_t *model, struct hd_errmsg *msg)
{
    json_t *vocab = json_object_get(model, "vocab"), *value;
    const char *text;
    enum hd_err err = HD_OK;
    if (!json_is_object(vocab) || !json_object_size(vocab))
        return hd_fail(msg, HD_ERR_FORMAT, "tokenizer.json: no model.vocab");
    json_object_foreach(vocab, text, value)
    {
        json_int_t id = json_is_integer(value) ? json_integer_value(value) : -1;
        if (id < 0 || id >= HD_TOKEN_MAX_VOCAB)
            return hd_fail(msg, HD_ERR_FORMAT, "tokenizer.json: token \"%.64s\" has no usable id",
                           text);
        if ((size_t)id < tok->vocab.n && tok->vocab.entry[id].flags)
            return hd_fail(msg, HD_ERR_FORMAT, "tokenizer.json: two tokens with id %lld",
                           (long long)id);
        err = hd_token__vocab_set_normal(&tok->vocab, (size_t)id, text, strlen(text));
        if (err)
            return hd_fail(msg, err, "tokenizer.json: vocabulary: %s", hd_err_text(err));
    }
    return HD_OK;
}

static enum hd_err read_merges(struct hd_tokenizer *tok, json_t *model, struct hd_errmsg *msg)
{
    json_t *merges = json_object_get(model, "merges");
    size_t n = json_array_size(merges);
    if (!json_is_array(merges) || n > 2 * HD_TOKEN_MAX_VOCAB)
        return hd_fail(msg, HD_ERR_FORMAT, "tokenizer.json: no usable model.merges");
    if (hd_token__merges_init(&tok->merges, n))
        return hd_fail(msg, HD_ERR_NOMEM, "tokenizer.json: out of memory");
    for (size_t i = 0; i < n; i++) {
        /* Older files write "a b", newer ones ["a", "b"]. */
        json_t *merge = json_array_get(merges, i);
        const char *left = json_string_value(merge);
        const char *right = left ? strchr(left, ' ') : NULL;
        size_t n_left = right ? (size_t)(right - left) : 0;
        if (right) {
            right++;
        } else if (json_array_size(merge) == 2) {
            left = json_string_value(json_array_get(merge, 0));
            right = json_string_value(json_array_get(merge, 1));
            n_left = left ? strlen(left) : 0;
        }
        enum hd_err err = left && right
                              ? hd_token__merges_add(tok, left, n_left, right, strlen(right))
                              : HD_ERR_FORMAT;
        if (err)
            return hd_fail(msg, HD_ERR_FORMAT, "tokenizer.json: merge %zu (\"%.64s\"): %s", i,
                           left ? left : "?",
                           err == HD_ERR_NOTFOUND ? "not in the vocabulary" : "no pair of tokens");
    }
    return HD_OK;
}

static enum hd_err read_added(struct hd_tokenizer *tok, json_t *list, struct hd_errmsg *msg)
{
    for (size_t i = 0; i < json_array_size(list); i++) {
        json_t *entry = json_array_get(list, i);
        json_t *id = json_object_get(entry, "id");
        const char *text = json_string_value(json_object_get(entry, "content"));
        bool special = json_is_true(json_object_get(entry, "special"));
        if (!text || !*text || !json_is_integer(id) || json_integer_value(id) < 0 ||
            json_integer_value(id) >= HD_TOKEN_MAX_VOCAB)
            return hd_fail(msg, HD_ERR_FORMAT,
                           "tokenizer.json: added_tokens, entry %zu: no usable id and content", i);
        struct hd_token__added added = {
            .id = (int32_t)json_integer_value(id),
            .single_word = json_is_true(json_object_get(entry, "single_word")),
            .lstrip = json_is_true(json_object_get(entry, "lstrip")),
            .rstrip = json_is_true(json_object_get(entry, "rstrip")),
            .normalized = json_is_true(json_object_get(entry, "normalized")),
        };
        if ((size_t)added.id < tok->vocab.n && tok->vocab.entry[added.id].flags & HD_TOKEN_ADDED)
            return hd_fail(msg, HD_ERR_FORMAT, "tokenizer.json: two added tokens with id %d",
                           added.id);
        enum hd_err err = hd_token__vocab_set(&tok->vocab, (size_t)added.id, text, strlen(text),
                                              HD_TOKEN_ADDED | (special ? HD_TOKEN_CONTROL : 0));
        if (!err)
            err = hd_token__added_push(added.normalized ? &tok->normalized : &tok->raw, &added);
        if (err)
            return hd_fail(msg, err, "tokenizer.json: added_tokens: %s", hd_err_text(err));
    }
    return HD_OK;
}

/* --- bos, eos, template ----------------------------------------------------------------------- */

/* A token in tokenizer_config.json is its text, or an object with it. */
static int32_t named_token(const struct hd_tokenizer *tok, json_t *token)
{
    const char *text = json_string_value(token);
    if (!text)
        text = json_string_value(json_object_get(token, "content"));
    return text ? hd_tokenizer_special(tok, text) : -1;
}

/* The special token that the template puts first, or -1. */
static int32_t template_bos(const struct hd_tokenizer *tok)
{
    const struct hd_token__part *first = &tok->single.part[0];
    return tok->single.n && first->kind == HD_PART_SPECIAL ? first->id : -1;
}

static void read_bos(struct hd_tokenizer *tok, json_t *config)
{
    json_t *add_bos = json_object_get(config, "add_bos_token");
    const char *class = json_string_value(json_object_get(config, "tokenizer_class"));
    int32_t named = named_token(tok, json_object_get(config, "bos_token"));
    if (json_is_false(add_bos))
        return;
    tok->bos = template_bos(tok);
    if (tok->bos < 0 && (json_is_true(add_bos) || (class && !strncmp(class, "Llama", 5))))
        tok->bos = named;
}

/* eos_token_id is a number or a list of numbers. */
static void read_end_ids(struct hd_tokenizer *tok, json_t *config)
{
    json_t *eos = json_object_get(config, "eos_token_id");
    if (json_is_integer(eos))
        hd_token__add_end(tok, json_integer_value(eos));
    for (size_t i = 0; i < json_array_size(eos); i++)
        if (json_is_integer(json_array_get(eos, i)))
            hd_token__add_end(tok, json_integer_value(json_array_get(eos, i)));
}

static enum hd_err take_template(char **out, const char *text)
{
    if (!text || strlen(text) >= HD_TOKEN_MAX_TEMPLATE)
        return HD_OK;
    free(*out);
    *out = strdup(text);
    return *out ? HD_OK : HD_ERR_NOMEM;
}

/* A template is a string, or a list of named ones. */
static enum hd_err read_templates(struct hd_tokenizer *tok, json_t *template)
{
    enum hd_err err = take_template(&tok->chat_template, json_string_value(template));
    for (size_t i = 0; i < json_array_size(template) && !err; i++) {
        json_t *entry = json_array_get(template, i);
        const char *name = json_string_value(json_object_get(entry, "name"));
        const char *text = json_string_value(json_object_get(entry, "template"));
        if (name && !strcmp(name, "default"))
            err = take_template(&tok->chat_template, text);
        else if (name && !strcmp(name, "tool_use"))
            err = take_template(&tok->tool_template, text);
    }
    return err;
}

/* The files beside the tokenizer: chat_template.json, and chat_template.jinja, which newer
 * checkpoints have and which counts more than tokenizer_config.json. */
static enum hd_err read_template_file(struct hd_tokenizer *tok, const struct hd_store *store,
                                      const char *name)
{
    char *path = hd_path_join(hd_store_path(store), name), *text = NULL;
    size_t len;
    if (!path)
        return HD_ERR_NOMEM;
    bool found =
        hd_path_exists(path) && !hd_file_read(&text, &len, path, HD_TOKEN_MAX_TEMPLATE - 1, NULL);
    free(path);
    enum hd_err err = HD_OK;
    if (found && strstr(name, ".json")) {
        json_t *json = json_loadb(text, len, JSON_REJECT_DUPLICATES, NULL);
        err = read_templates(tok, json_object_get(json, "chat_template"));
        json_decref(json);
    } else if (found) {
        err = take_template(&tok->chat_template, text);
    }
    free(text);
    return err;
}

static enum hd_err read_chat(struct hd_tokenizer *tok, const struct hd_store *store, json_t *config)
{
    static const struct {
        const char *key;
        enum hd_token__special which;
    } names[] = {{"bos_token", HD_TOKEN_BOS},
                 {"eos_token", HD_TOKEN_EOS},
                 {"pad_token", HD_TOKEN_PAD},
                 {"unk_token", HD_TOKEN_UNK}};
    enum hd_err err = HD_OK;
    for (size_t i = 0; i < sizeof names / sizeof *names && !err; i++)
        err = hd_token__set_special(tok, names[i].which,
                                    named_token(tok, json_object_get(config, names[i].key)));
    if (!err)
        err = read_template_file(tok, store, "chat_template.json");
    if (!err)
        err = read_templates(tok, json_object_get(config, "chat_template"));
    return err ? err : read_template_file(tok, store, "chat_template.jinja");
}

static enum hd_err read_bpe(struct hd_tokenizer *tok, json_t *root, struct hd_errmsg *msg)
{
    json_t *model = json_object_get(root, "model");
    bool byte_level = false;
    enum hd_err err = check_model(model, msg);
    if (!err)
        err = hd_token__json_normalizer(tok, json_object_get(root, "normalizer"), 0, msg);
    if (!err)
        err = read_pretokenizer(tok, json_object_get(root, "pre_tokenizer"), 0, &byte_level, msg);
    if (!err && !byte_level)
        err = hd_token__json_unsupported(msg, "pre_tokenizer without", "ByteLevel");
    if (!err)
        err = read_vocab(tok, model, msg);
    if (!err && hd_token__vocab_index(&tok->vocab))
        err = hd_fail(msg, HD_ERR_NOMEM, "tokenizer.json: out of memory");
    if (!err)
        err = read_merges(tok, model, msg);
    tok->ignore_merges = json_is_true(json_object_get(model, "ignore_merges"));
    return err;
}

static enum hd_err read_model(struct hd_tokenizer *tok, json_t *root, struct hd_errmsg *msg)
{
    const char *type = type_of(json_object_get(root, "model"));
    enum hd_err err;
    if (!strcmp(type, "WordPiece"))
        tok->model = HD_MODEL_WORDPIECE;
    else if (!strcmp(type, "Unigram"))
        tok->model = HD_MODEL_UNIGRAM;
    err = tok->model == HD_MODEL_BPE ? read_bpe(tok, root, msg)
                                     : hd_token__json_encoder(tok, root, msg);
    if (!err)
        err = read_added(tok, json_object_get(root, "added_tokens"), msg);
    if (!err && tok->model == HD_MODEL_WORDPIECE)
        err = hd_token__wordpiece_finish(tok);
    if (!err && tok->model == HD_MODEL_UNIGRAM)
        err = hd_token__unigram_finish(tok);
    return err;
}

enum hd_err hd_token__load_json(struct hd_tokenizer *tok, const struct hd_store *store,
                                struct hd_errmsg *msg)
{
    json_t *root = hd_store_tokenizer(store), *config = hd_store_tokenizer_config(store);
    struct hd_errmsg why = {0};
    if (!root)
        return hd_fail(msg, HD_ERR_NOTFOUND,
                       "%s: no tokenizer.json in this folder (text needs it, and "
                       "tokenizer_config.json beside it; logits, bench and inspect do without)",
                       hd_store_path(store));
    enum hd_err err = read_model(tok, root, &why);
    if (!err)
        err = hd_token__template_json(tok, json_object_get(root, "post_processor"), &why);
    if (err)
        return hd_fail(msg, err, "%s/%.300s", hd_store_path(store),
                       *why.text ? why.text : "tokenizer.json: out of memory");
    read_bos(tok, config);
    hd_token__add_end(tok, named_token(tok, json_object_get(config, "eos_token")));
    read_end_ids(tok, hd_store_generation_config(store));
    read_end_ids(tok, hd_store_config(store));
    err = read_chat(tok, store, config);
    return err ? hd_fail(msg, err, "%s: out of memory", hd_store_path(store)) : HD_OK;
}
