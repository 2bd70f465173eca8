/* A Hugging Face folder: config.json, tokenizer files, and weights as one model.safetensors, as the
 * shards that model.safetensors.index.json names, or as one pytorch_model.bin. BGE-M3's two heads
 * lie beside them. Every file is optional, but not all. */
#include <stdlib.h>
#include <string.h>

#include "store/store_impl.h"

enum { MAX_SMALL_JSON = 16 << 20, MAX_TOKENIZER_JSON = 256 << 20 };

/* An absent file leaves *out NULL. */
static enum hd_err load_json(json_t **out, const struct hd_store *store, const char *name,
                             size_t max, struct hd_errmsg *msg)
{
    json_error_t error;
    char *path = hd_path_join(store->path, name), *text = NULL;
    size_t len;
    enum hd_err err = HD_OK;
    if (!path)
        return hd_fail(msg, HD_ERR_NOMEM, "%s: out of memory", store->path);
    if (!hd_path_exists(path))
        goto out;
    err = hd_file_read(&text, &len, path, max, msg);
    if (err)
        goto out;
    *out = json_loadb(text, len, JSON_REJECT_DUPLICATES, &error);
    /* transformers writes model_max_length = 1000000000000000019884624838656 for "none". */
    if (!*out && json_error_code(&error) == json_error_numeric_overflow)
        *out = json_loadb(text, len, JSON_REJECT_DUPLICATES | JSON_DECODE_INT_AS_REAL, &error);
    if (!*out)
        err = hd_fail(msg, HD_ERR_FORMAT, "%s: line %d, column %d: %s", path, error.line,
                      error.column, error.text);
    else if (!json_is_object(*out) && strcmp(name, "modules.json"))
        err = hd_fail(msg, HD_ERR_FORMAT, "%s: not a JSON object", path);
out:
    free(text);
    free(path);
    return err;
}

/* A shard's name comes from a file: it may name nothing outside the folder. */
static bool plain_file_name(const char *name)
{
    return name[0] && name[0] != '.' && strlen(name) < 256 && !strpbrk(name, "/\\");
}

/* A PyTorch file; its names go behind `prefix`. */
static enum hd_err read_torch_file(struct hd_store *store, const char *name, const char *prefix,
                                   struct hd_errmsg *msg)
{
    struct hd_store__file *file;
    char *path = hd_path_join(store->path, name);
    if (!path)
        return hd_fail(msg, HD_ERR_NOMEM, "%s: out of memory", store->path);
    enum hd_err err = hd_store__add_file(&file, store, path, msg);
    if (!err)
        err = hd_store__read_torch(store, file, prefix, msg);
    free(path);
    return err;
}

/* The shards of the index, each once, in the index's order of first mention. */
static enum hd_err list_shards(json_t *shards, const struct hd_store *store, json_t *map,
                               struct hd_errmsg *msg)
{
    const char *tensor;
    json_t *value;
    char shown[96];
    if (!json_is_object(map))
        return hd_fail(msg, HD_ERR_FORMAT, "%s/model.safetensors.index.json: no weight_map",
                       store->path);
    json_object_foreach(map, tensor, value)
    {
        const char *name = json_string_value(value);
        if (!name || !plain_file_name(name))
            return hd_fail(msg, HD_ERR_FORMAT,
                           "%s/model.safetensors.index.json: \"%s\" is no plain file name (shards "
                           "lie beside the index)",
                           store->path, hd_store__shown(shown, name ? name : "", SIZE_MAX));
        if (!json_object_get(shards, name) && json_object_set_new(shards, name, json_true()))
            return hd_fail(msg, HD_ERR_NOMEM, "%s: out of memory", store->path);
        if (json_object_size(shards) > HD_STORE_MAX_SHARDS)
            return hd_fail(msg, HD_ERR_LIMIT, "%s: more than %d shards", store->path,
                           HD_STORE_MAX_SHARDS);
    }
    return HD_OK;
}

/* A download that is not finished: shards that are absent, or end within their header, are noted
 * where only looking is wanted. */
static enum hd_err read_shard(struct hd_store *store, const char *name, size_t n_shard,
                              struct hd_errmsg *msg)
{
    struct hd_store__file *file;
    char shown[96], *path = hd_path_join(store->path, name);
    if (!path)
        return hd_fail(msg, HD_ERR_NOMEM, "%s: out of memory", store->path);
    enum hd_err err = HD_OK;
    bool there = hd_path_exists(path);
    hd_store__shown(shown, name, SIZE_MAX);
    if (!there && !store->header_only)
        err = hd_fail(msg, HD_ERR_NOTFOUND,
                      "%s: shard %s is missing, one of %zu that the index names (`holdfast pull "
                      "NAME` goes on where a pull stopped; by hand, fetch that file)",
                      store->path, shown, n_shard);
    if (!err && there)
        err = hd_store__add_file(&file, store, path, msg);
    if (!err && (!there || (store->header_only && !hd_store__header_is_there(file))))
        err = hd_store__note_missing(store, shown, n_shard, msg);
    else if (!err)
        err = hd_store__read_safetensors(store, file, msg);
    free(path);
    return err;
}

/* What the index counts and no shard lists. */
static void count_missing(struct hd_store *store, json_t *index)
{
    json_t *total = json_object_get(json_object_get(index, "metadata"), "total_size");
    size_t listed = 0, all = json_is_integer(total) && json_integer_value(total) > 0
                                 ? (size_t)json_integer_value(total)
                                 : 0;
    for (size_t i = 0; i < store->n_tensor; i++)
        listed += store->tensor[i].bytes;
    if (store->n_missing_part && all > listed)
        store->missing += all - listed;
}

/* Every tensor of the index must be in the shards. */
static enum hd_err check_index(const struct hd_store *store, json_t *map, struct hd_errmsg *msg)
{
    const struct hd_store_tensor *tensor;
    struct hd_errmsg why;
    const char *name;
    json_t *value;
    char shown[96], shard[96];
    json_object_foreach(map, name, value)
    {
        if (hd_store_tensor_get(&tensor, store, name, &why) == HD_ERR_NOTFOUND)
            return hd_fail(msg, HD_ERR_FORMAT,
                           "%s: the index places tensor \"%s\" in %s, which "
                           "lacks it (files of two downloads?)",
                           store->path, hd_store__shown(shown, name, SIZE_MAX),
                           hd_store__shown(shard, json_string_value(value), SIZE_MAX));
    }
    return HD_OK;
}

static enum hd_err read_shards(struct hd_store *store, json_t *index, struct hd_errmsg *msg)
{
    json_t *map = json_object_get(index, "weight_map"), *shards = json_object(), *value;
    const char *name;
    enum hd_err err = shards ? list_shards(shards, store, map, msg)
                             : hd_fail(msg, HD_ERR_NOMEM, "%s: out of memory", store->path);
    if (err)
        goto out;
    json_object_foreach(shards, name, value)
    {
        err = read_shard(store, name, json_object_size(shards), msg);
        if (err)
            goto out;
    }
    count_missing(store, index);
    err = hd_store__index_tensors(store, msg);
    if (!err && !store->n_missing_part)
        err = check_index(store, map, msg);
out:
    json_decref(shards);
    return err;
}

static bool has_file(const struct hd_store *store, const char *name)
{
    char *path = hd_path_join(store->path, name);
    bool there = path && hd_path_exists(path);
    free(path);
    return there;
}

static enum hd_err read_single_files(struct hd_store *store, struct hd_errmsg *msg)
{
    static const struct {
        const char *file, *prefix;
    } heads[] = {{"sparse_linear.pt", "sparse_linear."}, {"colbert_linear.pt", "colbert_linear."}};
    enum hd_err err = HD_OK;
    if (has_file(store, "model.safetensors"))
        err = read_shard(store, "model.safetensors", 1, msg);
    else if (has_file(store, "pytorch_model.bin"))
        err = read_torch_file(store, "pytorch_model.bin", "", msg);
    for (size_t i = 0; !err && i < sizeof heads / sizeof *heads; i++)
        if (has_file(store, heads[i].file))
            err = read_torch_file(store, heads[i].file, heads[i].prefix, msg);
    return err;
}

static enum hd_err read_weights(struct hd_store *store, struct hd_errmsg *msg)
{
    json_t *index = NULL;
    enum hd_err err =
        load_json(&index, store, "model.safetensors.index.json", HD_STORE_MAX_ST_HEADER, msg);
    if (!err && index) {
        err = read_shards(store, index, msg);
    } else if (!err) {
        err = read_single_files(store, msg);
        if (!err)
            err = hd_store__index_tensors(store, msg);
    }
    json_decref(index);
    return err;
}

/* What sentence-transformers and the like keep beside the model. */
static enum hd_err load_side_files(struct hd_store *store, struct hd_errmsg *msg)
{
    static const char *const names[HD_STORE_N_SIDE] = {"modules.json", "1_Pooling/config.json",
                                                       "sentence_bert_config.json",
                                                       "config_sentence_transformers.json"};
    enum hd_err err = HD_OK;
    for (int i = 0; !err && i < HD_STORE_N_SIDE; i++) {
        store->side[i].name = names[i];
        err = load_json(&store->side[i].json, store, names[i], MAX_SMALL_JSON, msg);
    }
    return err;
}

json_t *hd_store_side_file(const struct hd_store *store, const char *name)
{
    for (int i = 0; i < HD_STORE_N_SIDE; i++)
        if (store->side[i].name && !strcmp(store->side[i].name, name))
            return store->side[i].json;
    return NULL;
}

/* Older GPTQ and AWQ checkpoints keep their settings beside config.json. */
static enum hd_err join_parts(struct hd_store *store, struct hd_errmsg *msg)
{
    static const char *const names[] = {"quantize_config.json", "quant_config.json"};
    json_t *file = NULL;
    enum hd_err err = HD_OK;
    for (int i = 0; i < 2 && !err && !file; i++)
        err = load_json(&file, store, names[i], MAX_SMALL_JSON, msg);
    if (!err)
        err = hd_store__join_parts(store, file, msg);
    json_decref(file);
    return err;
}

enum hd_err hd_store__open_hf(struct hd_store *store, struct hd_errmsg *msg)
{
    store->format = HD_STORE_HF;
    enum hd_err err = load_json(&store->config, store, "config.json", MAX_SMALL_JSON, msg);
    if (!err)
        err = load_json(&store->tokenizer, store, "tokenizer.json", MAX_TOKENIZER_JSON, msg);
    if (!err)
        err = load_json(&store->tokenizer_config, store, "tokenizer_config.json", MAX_SMALL_JSON,
                        msg);
    if (!err)
        err = load_json(&store->generation_config, store, "generation_config.json", MAX_SMALL_JSON,
                        msg);
    if (!err)
        err = load_side_files(store, msg);
    if (!err && !store->config && !store->tokenizer)
        err = hd_fail(msg, HD_ERR_NOTFOUND,
                      "%s: neither config.json nor tokenizer.json in this folder (MODEL is a .gguf "
                      "file or a Hugging Face folder)",
                      store->path);
    if (!err)
        err = read_weights(store, msg);
    return err ? err : join_parts(store, msg);
}
