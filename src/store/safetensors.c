/* safetensors (huggingface/safetensors, Apache-2.0: the format's README):
 *
 *   n u64 | n bytes of JSON {"name": {"dtype", "shape", "data_offsets": [begin, end]}, …} | data
 *
 * Offsets count from the end of the JSON, so no tensor can overlap the header. */
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "store/store_impl.h"

/* dtype names, their element size, and our type where we read it. */
static const struct st_type {
    const char *name;
    int bytes;
    enum hd_dtype dtype;
} st_types[] = {
    {"F32", 4, HD_F32},
    {"F16", 2, HD_F16},
    {"BF16", 2, HD_BF16},
    {"I32", 4, HD_I32},
    {"F64", 8, HD_STORE_UNREAD},
    {"I64", 8, HD_STORE_UNREAD},
    {"U64", 8, HD_STORE_UNREAD},
    {"U32", 4, HD_STORE_UNREAD},
    {"I16", 2, HD_STORE_UNREAD},
    {"U16", 2, HD_STORE_UNREAD},
    {"I8", 1, HD_STORE_UNREAD},
    {"U8", 1, HD_STORE_UNREAD},
    {"BOOL", 1, HD_STORE_UNREAD},
    {"F8_E4M3", 1, HD_STORE_UNREAD},
    {"F8_E5M2", 1, HD_STORE_UNREAD},
    {"F8_E8M0", 1, HD_STORE_UNREAD},
};

/* Where we are, for sentences. */
struct place {
    const char *path, *tensor;
    size_t data_start;
};

static enum hd_err bad(const struct place *at, const char *why, struct hd_errmsg *msg)
{
    char shown[96];
    return hd_fail(msg, HD_ERR_FORMAT, "%s: tensor \"%s\": %s", at->path,
                   hd_store__shown(shown, at->tensor, SIZE_MAX), why);
}

static enum hd_err read_type(struct hd_store *store, const struct place *at, json_t *entry,
                             struct hd_store_tensor *tensor, size_t *bytes, struct hd_errmsg *msg)
{
    char shown[96];
    const char *name = json_string_value(json_object_get(entry, "dtype"));
    if (!name)
        return bad(at, "no dtype", msg);
    *bytes = 0;
    tensor->dtype = HD_STORE_UNREAD;
    for (size_t i = 0; i < sizeof st_types / sizeof *st_types; i++) {
        if (strcmp(st_types[i].name, name) != 0)
            continue;
        tensor->dtype = st_types[i].dtype;
        tensor->type_name = st_types[i].name;
        *bytes = (size_t)st_types[i].bytes;
        return HD_OK;
    }
    hd_store__shown(shown, name, SIZE_MAX);
    tensor->type_name = hd_store__strdup(store, shown, strlen(shown));
    return tensor->type_name ? HD_OK : hd_fail(msg, HD_ERR_NOMEM, "%s: out of memory", at->path);
}

/* HF writes the slowest dimension first; ours is the reverse. A scalar is one element. */
static enum hd_err read_shape(const struct place *at, json_t *entry, struct hd_store_tensor *tensor,
                              struct hd_errmsg *msg)
{
    json_t *shape = json_object_get(entry, "shape");
    size_t n = json_array_size(shape), total;
    if (!json_is_array(shape) || n > 4)
        return bad(at, n > 4 ? "more than 4 dimensions" : "no shape", msg);
    tensor->n_dim = n ? (int)n : 1;
    for (size_t d = 0; d < 4; d++)
        tensor->ne[d] = 1;
    for (size_t d = 0; d < n; d++) {
        json_t *dim = json_array_get(shape, d);
        if (!json_is_integer(dim) || json_integer_value(dim) < 1)
            return bad(at, "a dimension is no whole number above 0", msg);
        tensor->ne[n - 1 - d] = json_integer_value(dim);
    }
    return hd_store__n_element(tensor, &total) ? HD_OK : bad(at, "its shape overflows", msg);
}

static enum hd_err read_offsets(const struct place *at, json_t *entry, size_t *begin, size_t *end,
                                struct hd_errmsg *msg)
{
    json_t *pair = json_object_get(entry, "data_offsets");
    json_t *b = json_array_get(pair, 0), *e = json_array_get(pair, 1);
    if (json_array_size(pair) != 2 || !json_is_integer(b) || !json_is_integer(e) ||
        json_integer_value(b) < 0 || json_integer_value(e) < json_integer_value(b))
        return bad(at, "data_offsets is no pair of ascending offsets", msg);
    *begin = (size_t)json_integer_value(b);
    *end = (size_t)json_integer_value(e);
    return HD_OK;
}

/* One entry; `data` is the data section. *stop grows to the furthest byte that a tensor needs. */
static enum hd_err read_tensor(struct hd_store *store, const struct place *at, json_t *entry,
                               const uint8_t *data, size_t size, size_t *stop,
                               struct hd_errmsg *msg)
{
    struct hd_store_tensor *tensor = &store->tensor[store->n_tensor];
    size_t elem = 0, begin = 0, end = 0, want;
    size_t n = strlen(at->tensor);
    *tensor = (struct hd_store_tensor){0};
    if (n < 1 || n > HD_STORE_MAX_NAME_LEN)
        return bad(at, "a name of this length", msg);
    enum hd_err err = read_type(store, at, entry, tensor, &elem, msg);
    if (!err)
        err = read_shape(at, entry, tensor, msg);
    if (!err)
        err = read_offsets(at, entry, &begin, &end, msg);
    if (err)
        return err;
    hd_store__n_element(tensor, &want);
    if (elem && (!hd_mul(&want, want, elem) || want != end - begin))
        return bad(at, "data_offsets do not span shape times dtype", msg);
    tensor->bytes = end - begin;
    tensor->name = hd_store__strdup(store, at->tensor, n);
    if (!tensor->name)
        return hd_fail(msg, HD_ERR_NOMEM, "%s: out of memory", at->path);
    if (end > size)
        hd_store__cut_note(&store->cut, at->path, tensor->name, at->data_start + begin,
                           at->data_start + end, at->data_start + size);
    else /* of types that we do not read too: parts.c may */
        tensor->data = data + begin;
    if (end > *stop)
        *stop = end;
    store->n_tensor++;
    return HD_OK;
}

bool hd_store__header_is_there(const struct hd_store__file *file)
{
    struct hd_store__reader reader = {.data = file->map.data, .size = file->map.size};
    uint64_t n;
    return hd_store__take(&reader, &n, sizeof n) && n <= reader.size - reader.pos;
}

/* Parses the JSON in front; *header is owned, *data_start the first byte after it. */
static enum hd_err read_header(const struct hd_store__file *file, json_t **header,
                               size_t *data_start, struct hd_errmsg *msg)
{
    struct hd_store__reader reader = {.data = file->map.data, .size = file->map.size};
    json_error_t error;
    uint64_t n;
    if (!hd_store__take(&reader, &n, sizeof n) || n > HD_STORE_MAX_ST_HEADER ||
        n > reader.size - reader.pos)
        return hd_fail(msg, HD_ERR_FORMAT,
                       "%s: not a safetensors file, or cut off within its header (%zu bytes long)",
                       file->path, reader.size);
    *header =
        json_loadb((const char *)file->map.data + 8, (size_t)n, JSON_REJECT_DUPLICATES, &error);
    if (!*header)
        return hd_fail(msg, HD_ERR_FORMAT, "%s: header: byte %d: %s", file->path,
                       error.position + 8, error.text);
    if (!json_is_object(*header))
        return hd_fail(msg, HD_ERR_FORMAT, "%s: header: no tensor table", file->path);
    *data_start = (size_t)n + 8;
    return HD_OK;
}

enum hd_err hd_store__reserve_tensors(struct hd_store *store, size_t more, const char *path,
                                      struct hd_errmsg *msg)
{
    size_t need = store->n_tensor + more;
    if (need > HD_STORE_MAX_TENSORS)
        return hd_fail(msg, HD_ERR_LIMIT, "%s: more than %d tensors", path, HD_STORE_MAX_TENSORS);
    if (need <= store->cap_tensor)
        return HD_OK;
    size_t cap = need + need / 2;
    struct hd_store_tensor *tensor = realloc(store->tensor, cap * sizeof *tensor);
    if (!tensor)
        return hd_fail(msg, HD_ERR_NOMEM, "%s: out of memory", path);
    store->tensor = tensor;
    store->cap_tensor = cap;
    return HD_OK;
}

enum hd_err hd_store__read_safetensors(struct hd_store *store, const struct hd_store__file *file,
                                       struct hd_errmsg *msg)
{
    json_t *header = NULL, *entry;
    const char *name;
    size_t data_start = 0, stop = 0;
    enum hd_err err = read_header(file, &header, &data_start, msg);
    if (!err)
        err = hd_store__reserve_tensors(store, json_object_size(header) + 1, file->path, msg);
    if (err)
        goto out;
    size_t size = file->map.size - data_start;
    json_object_foreach(header, name, entry)
    {
        if (!strcmp(name, "__metadata__"))
            continue;
        struct place at = {.path = file->path, .tensor = name, .data_start = data_start};
        err = read_tensor(store, &at, entry, file->map.data + data_start, size, &stop, msg);
        if (err)
            goto out;
    }
    if (stop > size) {
        store->missing += stop - size;
        if (!store->header_only)
            err = hd_store__cut_fail(&store->cut, msg);
    }
out:
    json_decref(header);
    return err;
}
