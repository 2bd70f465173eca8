/* holdfast inspect: what a model file holds, read from its header; also of a truncated file. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "app.h"
#include "base/utf8.h"
#include "store/store.h"
#include "token/token.h"

/* A string of the file made printable: control bytes become '?'. */
static json_t *text_json(const char *text, size_t len)
{
    char shown[201];
    size_t n = len < 200 ? len : 200;
    for (size_t i = 0; i < n; i++)
        shown[i] = (unsigned char)text[i] < 0x20 ? '?' : text[i];
    json_t *value = json_stringn(shown, hd_utf8_complete(shown, n));
    return value ? value : json_string("(not UTF-8)");
}

/* Scalars of a GGUF's metadata; lists by their length alone. */
static json_t *gguf_keys(const struct hd_store *store)
{
    json_t *keys = json_object();
    for (size_t i = 0; i < hd_store_n_key(store); i++) {
        int type;
        const char *key = hd_store_key_at(store, i, &type), *text;
        size_t len;
        uint64_t n;
        double number;
        bool truth;
        json_t *value = NULL;
        if (!strcmp(key, "tokenizer.chat_template"))
            continue;
        if (hd_store_str(store, key, &text, &len))
            value = text_json(text, len);
        else if (hd_store_bool(store, key, &truth))
            value = json_boolean(truth);
        else if (hd_store_u64(store, key, &n) && n <= INT64_MAX)
            value = json_integer((json_int_t)n);
        else if (hd_store_f64(store, key, &number))
            value = json_real(number);
        else if (hd_store_array(store, key, &type, &n))
            value = json_sprintf("list of %llu", (unsigned long long)n);
        json_object_set_new(keys, key, value ? value : json_null());
    }
    return keys;
}

/* The scalars of config.json. */
static json_t *hf_keys(const struct hd_store *store)
{
    json_t *keys = json_object(), *value;
    const char *key;
    json_object_foreach(hd_store_config(store), key, value)
    {
        json_object_set(keys, key, value);
    }
    return keys;
}

static json_t *architecture(const struct hd_store *store)
{
    const char *text;
    size_t len;
    if (hd_store_str(store, "general.architecture", &text, &len))
        return text_json(text, len);
    json_t *type = json_object_get(hd_store_config(store), "model_type");
    return json_is_string(type) ? json_incref(type) : json_null();
}

static json_t *types(const struct hd_store *store)
{
    json_t *out = json_object();
    for (size_t i = 0; i < hd_store_n_tensor(store); i++) {
        const struct hd_store_tensor *tensor = hd_store_tensor_at(store, i);
        json_t *entry = json_object_get(out, tensor->type_name);
        json_int_t count = json_integer_value(json_object_get(entry, "tensors"));
        json_int_t bytes = json_integer_value(json_object_get(entry, "bytes"));
        json_object_set_new(out, tensor->type_name,
                            json_pack("{s:I,s:I,s:b}", "tensors", count + 1, "bytes",
                                      bytes + (json_int_t)tensor->bytes, "readable",
                                      tensor->dtype != HD_STORE_UNREAD));
        if (tensor->dtype == HD_STORE_UNREAD && tensor->advice)
            json_object_set_new(json_object_get(out, tensor->type_name), "advice",
                                json_string(tensor->advice));
    }
    return out;
}

static json_t *tensors(const struct hd_store *store)
{
    json_t *out = json_array();
    for (size_t i = 0; i < hd_store_n_tensor(store); i++) {
        const struct hd_store_tensor *tensor = hd_store_tensor_at(store, i);
        json_t *shape = json_array();
        for (int d = 0; d < tensor->n_dim; d++)
            json_array_append_new(shape, json_integer(tensor->ne[d]));
        json_array_append_new(out, json_pack("{s:o,s:s,s:o,s:I}", "name",
                                             text_json(tensor->name, strlen(tensor->name)), "type",
                                             tensor->type_name, "shape", shape, "bytes",
                                             (json_int_t)tensor->bytes));
    }
    return out;
}

static json_t *files(const struct hd_store *store)
{
    json_t *out = json_array();
    for (size_t i = 0; i < hd_store_n_file(store); i++) {
        size_t bytes;
        const char *path = hd_store_file_at(store, i, &bytes);
        json_array_append_new(out, json_pack("{s:o,s:I}", "path", text_json(path, strlen(path)),
                                             "bytes", (json_int_t)bytes));
    }
    return out;
}

static json_t *missing_parts(const struct hd_store *store)
{
    json_t *out = json_array();
    const char *name;
    for (size_t i = 0; (name = hd_store_missing_part(store, i)); i++)
        json_array_append_new(out, text_json(name, strlen(name)));
    return out;
}

/* A tokenizer that cannot be used is no failure here: its reason is shown. */
static json_t *tokenizer(const struct hd_store *store)
{
    struct hd_errmsg msg = {0};
    struct hd_tokenizer *tok;
    enum hd_err err = hd_tokenizer_new(&tok, store, &msg);
    if (err == HD_ERR_NOTFOUND)
        return json_null();
    if (err)
        return json_pack("{s:s}", "error", msg.text);
    const char *pre = "";
    size_t n_pre = 0;
    hd_store_str(store, "tokenizer.ggml.pre", &pre, &n_pre);
    json_t *out = json_pack("{s:s,s:o,s:I,s:i,s:s,s:s,s:b}", "kind", "byte-level BPE", "pre",
                            n_pre ? text_json(pre, n_pre) : json_null(), "vocabulary",
                            (json_int_t)hd_tokenizer_n_vocab(tok), "bos", hd_tokenizer_bos(tok),
                            "chat", hd_chat_form_name(hd_chat_form(tok)), "template",
                            hd_chat_source(tok), "thinks", hd_chat_thinks(tok));
    hd_tokenizer_free(tok);
    return out;
}

static json_t *describe(const struct hd_store *store, bool with_tensors)
{
    bool gguf = hd_store_format(store) == HD_STORE_GGUF;
    json_t *out =
        json_pack("{s:s,s:s,s:o,s:I,s:I,s:o,s:o,s:I,s:o,s:o,s:o}", "path", hd_store_path(store),
                  "format", gguf ? "gguf" : "huggingface", "architecture", architecture(store),
                  "file_bytes", (json_int_t)hd_store_file_bytes(store), "missing_bytes",
                  (json_int_t)hd_store_missing_bytes(store), "files", files(store), "missing_parts",
                  missing_parts(store), "n_tensor", (json_int_t)hd_store_n_tensor(store), "types",
                  types(store), "tokenizer", tokenizer(store), "metadata",
                  gguf ? gguf_keys(store) : hf_keys(store));
    const struct hd_store_cut *cut = hd_store_cut(store);
    if (out && cut)
        json_object_set_new(out, "cut",
                            json_pack("{s:o,s:o,s:I,s:I,s:I}", "file",
                                      text_json(cut->path, strlen(cut->path)), "tensor",
                                      text_json(cut->tensor, strlen(cut->tensor)), "have",
                                      (json_int_t)cut->have, "need", (json_int_t)cut->need,
                                      "more_tensors", (json_int_t)cut->n_more));
    if (out && with_tensors)
        json_object_set_new(out, "tensors", tensors(store));
    return out;
}

/* --- text --------------------------------------------------------------------------------------
 */

static void print_value(const char *name, json_t *value)
{
    char *text = json_is_string(value) ? NULL : json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
    printf("  %-44s %s\n", name, text ? text : json_string_value(value));
    free(text);
}

static void print_tokenizer(json_t *tok)
{
    const char *error = json_string_value(json_object_get(tok, "error"));
    if (json_is_null(tok)) {
        puts("tokenizer     none in this file");
    } else if (error) {
        printf("tokenizer     cannot be used: %s\n", error);
    } else {
        const char *pre = json_string_value(json_object_get(tok, "pre"));
        printf("tokenizer     %s%s%s, %lld ids\nchat form     %s\n",
               json_string_value(json_object_get(tok, "kind")), pre ? ", " : "", pre ? pre : "",
               (long long)json_integer_value(json_object_get(tok, "vocabulary")),
               json_string_value(json_object_get(tok, "chat")));
    }
}

static void print_tensors(json_t *list)
{
    size_t i;
    json_t *tensor;
    json_array_foreach(list, i, tensor)
    {
        char *shape = json_dumps(json_object_get(tensor, "shape"), JSON_COMPACT);
        printf("  %-44s %-8s %-20s %lld\n", json_string_value(json_object_get(tensor, "name")),
               json_string_value(json_object_get(tensor, "type")), shape ? shape : "?",
               (long long)json_integer_value(json_object_get(tensor, "bytes")));
        free(shape);
    }
}

static void print_cut(json_int_t missing, json_t *cut)
{
    printf("TRUNCATED     %lld bytes are missing", (long long)missing);
    if (cut)
        printf("; %s has %lld of %lld and ends at tensor %s, %lld more lie behind it",
               json_string_value(json_object_get(cut, "file")),
               (long long)json_integer_value(json_object_get(cut, "have")),
               (long long)json_integer_value(json_object_get(cut, "need")),
               json_string_value(json_object_get(cut, "tensor")),
               (long long)json_integer_value(json_object_get(cut, "more_tensors")));
    puts(" (holdfast pull NAME goes on where a pull stopped)");
}

static void print_text(json_t *all)
{
    const char *name = json_string_value(json_object_get(all, "architecture"));
    json_int_t missing = json_integer_value(json_object_get(all, "missing_bytes"));
    json_t *value, *parts = json_object_get(all, "files"),
                   *absent = json_object_get(all, "missing_parts");
    const char *key;
    size_t i;
    printf("path          %s\nformat        %s\narchitecture  %s\n",
           json_string_value(json_object_get(all, "path")),
           json_string_value(json_object_get(all, "format")), name ? name : "not named");
    printf("size          %.3f GB, %lld tensors\n",
           (double)json_integer_value(json_object_get(all, "file_bytes")) / 1e9,
           (long long)json_integer_value(json_object_get(all, "n_tensor")));
    if (json_array_size(parts) + json_array_size(absent) > 1)
        printf("files         %zu of %zu\n", json_array_size(parts),
               json_array_size(parts) + json_array_size(absent));
    json_array_foreach(absent, i, value)
    {
        printf("MISSING       part %s (fetch it and put it into the same folder)\n",
               json_string_value(value));
    }
    if (missing)
        print_cut(missing, json_object_get(all, "cut"));
    print_tokenizer(json_object_get(all, "tokenizer"));
    puts("types");
    json_object_foreach(json_object_get(all, "types"), key, value)
    {
        const char *advice = json_string_value(json_object_get(value, "advice"));
        bool readable = json_is_true(json_object_get(value, "readable"));
        printf("  %-8s %6lld tensors  %10.3f MB%s%s%s\n", key,
               (long long)json_integer_value(json_object_get(value, "tensors")),
               (double)json_integer_value(json_object_get(value, "bytes")) / 1e6,
               readable ? "" : "  not supported", advice ? ": " : "", advice ? advice : "");
    }
    puts("metadata");
    json_object_foreach(json_object_get(all, "metadata"), key, value)
    {
        print_value(key, value);
    }
    if (json_object_get(all, "tensors")) {
        puts("tensors (row length first)");
        print_tensors(json_object_get(all, "tensors"));
    }
}

int hd_cmd_inspect(struct hd_app *app)
{
    struct hd_errmsg msg = {0};
    struct hd_store *store = NULL;
    char *path = NULL;
    const char *name = hd_options_positional(app->options, 0);
    if (!name) {
        hd_fail(&msg, HD_ERR_USAGE, "inspect: which model (inspect PATH)");
        return hd_app_fail(HD_ERR_USAGE, &msg);
    }
    enum hd_err err = hd_app_model_path(&path, app, name, &msg);
    if (!err)
        err = hd_store_open_header(&store, path, &msg);
    json_t *all = NULL;
    if (!err && !(all = describe(store, app->json || hd_options_flag(app->options, "verbose"))))
        err = hd_fail(&msg, HD_ERR_FORMAT, "%s: cannot be shown (a name in it is not UTF-8)", path);
    if (!err && app->json) {
        json_dumpf(all, stdout, JSON_COMPACT);
        putchar('\n');
    } else if (!err) {
        print_text(all);
    }
    json_decref(all);
    hd_store_close(store);
    free(path);
    return err ? hd_app_fail(err, &msg) : HD_EXIT_OK;
}
