/* GGUF v3 (ggml's docs/gguf.md, MIT): header, tensor table, data section.
 *
 *   "GGUF" | version u32 | n_tensor u64 | n_kv u64 | kv… | tensor info… | pad | data
 *
 * Version 2 has the same layout and is read too. A tensor's offset counts from the start of the
 * data section, which begins at the next multiple of general.alignment. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "store/store_impl.h"

struct header {
    uint32_t version;
    uint64_t n_tensor, n_kv;
};

/* What a file that is no GGUF probably is, as a hint. */
static const char *guess(const uint8_t *data, size_t size, const char *path)
{
    size_t n = strlen(path);
    if (size >= 4 && !memcmp(data, "PK\3\4", 4))
        return "a zip: PyTorch checkpoints are not read; use safetensors or GGUF";
    if (size >= 9 && data[8] == '{')
        return "a safetensors file: name its folder, with config.json in it";
    if (size >= 12 && !memcmp(data, "version http", 12))
        return "a Git LFS pointer: the weights themselves were not fetched";
    if (n > 5 && !strcmp(path + n - 5, ".gguf"))
        return "damaged or not fetched in full";
    return "MODEL is a .gguf file or a Hugging Face folder";
}

static enum hd_err read_header(const struct hd_store *store, struct hd_store__reader *reader,
                               struct header *out, struct hd_errmsg *msg)
{
    char magic[4];
    if (!hd_store__take(reader, magic, 4) || memcmp(magic, "GGUF", 4) != 0)
        return hd_fail(msg, HD_ERR_FORMAT, "%s: not a GGUF file (%s)", store->path,
                       guess(reader->data, reader->size, store->path));
    if (!hd_store__take(reader, &out->version, 4) || !hd_store__take(reader, &out->n_tensor, 8) ||
        !hd_store__take(reader, &out->n_kv, 8))
        return hd_fail(msg, HD_ERR_FORMAT,
                       "%s: the header is cut off after %zu bytes (fetch it again)", store->path,
                       reader->size);
    if (out->version && !(out->version & 0xffff))
        return hd_fail(msg, HD_ERR_UNSUPPORTED,
                       "%s: a big-endian GGUF: not supported (convert it again for x86)",
                       store->path);
    if (out->version < 2 || out->version > 3)
        return hd_fail(msg, HD_ERR_UNSUPPORTED, "%s: GGUF version %u: versions 2 and 3 are read",
                       store->path, out->version);
    /* A tensor's entry takes at least 8 + 1 + 4 + 8 + 4 + 8 bytes. */
    if (out->n_tensor > HD_STORE_MAX_TENSORS || out->n_tensor > reader->size / 33)
        return hd_fail(msg, HD_ERR_FORMAT, "%s: byte 8: %llu tensors in a file of %zu bytes",
                       store->path, (unsigned long long)out->n_tensor, reader->size);
    return HD_OK;
}

static enum hd_err read_alignment(const struct hd_store *store, size_t *out, struct hd_errmsg *msg)
{
    uint64_t value = 32;
    hd_store_u64(store, "general.alignment", &value);
    if (value < 1 || value > 1 << 20 || value & (value - 1))
        return hd_fail(msg, HD_ERR_FORMAT, "%s: general.alignment is %llu (a power of two is due)",
                       store->path, (unsigned long long)value);
    *out = (size_t)value;
    return HD_OK;
}

/* One entry of the tensor table; *offset counts from the data section. */
static enum hd_err read_info(struct hd_store *store, struct hd_store__reader *reader,
                             struct hd_store_tensor *tensor, uint64_t *offset,
                             struct hd_errmsg *msg)
{
    size_t at = reader->pos;
    uint64_t len, dim;
    uint32_t n_dim, type;
    char shown[96];
    if (!hd_store__take(reader, &len, 8) || !hd_within(reader->pos, len, reader->size))
        goto cut;
    const char *name = (const char *)reader->data + reader->pos;
    hd_store__shown(shown, name, len);
    if (len < 1 || len > HD_STORE_MAX_NAME_LEN || memchr(name, 0, len))
        return hd_fail(msg, HD_ERR_FORMAT, "%s: byte %zu: a tensor name of %llu bytes", store->path,
                       at, (unsigned long long)len);
    reader->pos += len;
    if (!hd_store__take(reader, &n_dim, 4))
        goto cut;
    if (n_dim < 1 || n_dim > 4)
        return hd_fail(msg, HD_ERR_FORMAT, "%s: tensor \"%s\": %u dimensions (1 to 4 are possible)",
                       store->path, shown, n_dim);
    *tensor = (struct hd_store_tensor){.n_dim = (int)n_dim, .ne = {1, 1, 1, 1}};
    for (uint32_t d = 0; d < n_dim; d++) {
        if (!hd_store__take(reader, &dim, 8))
            goto cut;
        if (dim < 1 || dim > INT64_MAX)
            return hd_fail(msg, HD_ERR_FORMAT, "%s: tensor \"%s\": dimension %u is %llu",
                           store->path, shown, d, (unsigned long long)dim);
        tensor->ne[d] = (int64_t)dim;
    }
    if (!hd_store__take(reader, &type, 4) || !hd_store__take(reader, offset, 8))
        goto cut;
    if (type > INT32_MAX)
        return hd_fail(msg, HD_ERR_FORMAT, "%s: tensor \"%s\": type %u", store->path, shown, type);
    const struct hd_dtype_info *info = type < HD_OWN_TYPES ? hd_dtype_info((int)type) : NULL;
    tensor->dtype = info ? (enum hd_dtype)type : HD_STORE_UNREAD;
    tensor->type_name = info ? info->name : hd_dtype_gguf_name((int)type);
    if (!strcmp(tensor->type_name, "unknown")) {
        int n = snprintf(shown, sizeof shown, "type %u", type);
        if (!(tensor->type_name = hd_store__strdup(store, shown, (size_t)n)))
            return hd_fail(msg, HD_ERR_NOMEM, "%s: out of memory", store->path);
    }
    tensor->advice = info ? NULL : hd_dtype_gguf_advice((int)type);
    tensor->name = hd_store__strdup(store, name, len);
    return tensor->name ? HD_OK : hd_fail(msg, HD_ERR_NOMEM, "%s: out of memory", store->path);
cut:
    return hd_fail(msg, HD_ERR_FORMAT,
                   "%s: the tensor table is cut off: entry at byte %zu, file of %zu bytes (fetch "
                   "it again)",
                   store->path, at, reader->size);
}

/* Bytes of a tensor by its shape and type; checked. */
static enum hd_err size_tensor(const struct hd_store *store, struct hd_store_tensor *tensor,
                               struct hd_errmsg *msg)
{
    char shown[96];
    size_t n_element, row;
    hd_store__shown(shown, tensor->name, SIZE_MAX);
    if (!hd_store__n_element(tensor, &n_element))
        return hd_fail(msg, HD_ERR_FORMAT, "%s: tensor \"%s\": its shape overflows", store->path,
                       shown);
    if (tensor->dtype == HD_STORE_UNREAD)
        return HD_OK;
    const struct hd_dtype_info *info = hd_dtype_info((int)tensor->dtype);
    row = hd_dtype_row_bytes((int)tensor->dtype, tensor->ne[0]);
    if (!row)
        return hd_fail(msg, HD_ERR_FORMAT,
                       "%s: tensor \"%s\": rows of %lld elements do not fill %s blocks of %d",
                       store->path, shown, (long long)tensor->ne[0], info->name, info->block);
    if (!hd_mul(&tensor->bytes, row, n_element / (size_t)tensor->ne[0]))
        return hd_fail(msg, HD_ERR_FORMAT, "%s: tensor \"%s\": its size overflows", store->path,
                       shown);
    return HD_OK;
}

/* Where the tensor's bytes are. A file that is too short leaves data NULL; *end grows. */
static enum hd_err place_tensor(struct hd_store *store, struct hd_store_tensor *tensor,
                                uint64_t offset, size_t alignment, size_t data_start, size_t *end,
                                struct hd_errmsg *msg)
{
    const struct hd_map *map = &store->file[0].map;
    char shown[96];
    size_t begin, stop;
    if (offset % alignment || !hd_add(&begin, data_start, (size_t)offset) ||
        !hd_add(&stop, begin, tensor->bytes))
        return hd_fail(msg, HD_ERR_FORMAT, "%s: tensor \"%s\": offset %llu %s", store->path,
                       hd_store__shown(shown, tensor->name, SIZE_MAX), (unsigned long long)offset,
                       offset % alignment ? "is not aligned" : "overflows");
    if (stop > *end)
        *end = stop;
    if (stop > map->size)
        hd_store__cut_note(&store->cut, store->file[0].path, tensor->name, begin, stop, map->size);
    else if (tensor->dtype != HD_STORE_UNREAD)
        tensor->data = map->data + begin;
    return HD_OK;
}

static enum hd_err read_tensors(struct hd_store *store, struct hd_store__reader *reader,
                                const struct header *header, struct hd_errmsg *msg)
{
    size_t n = (size_t)header->n_tensor, alignment = 32, data_start, end = 0;
    uint64_t *offset = calloc(n + 1, sizeof *offset);
    enum hd_err err = HD_OK;
    store->tensor = calloc(n + 1, sizeof *store->tensor);
    if (!store->tensor || !offset)
        err = hd_fail(msg, HD_ERR_NOMEM, "%s: out of memory", store->path);
    for (size_t i = 0; i < n && !err; i++) {
        err = read_info(store, reader, &store->tensor[i], &offset[i], msg);
        if (!err)
            err = size_tensor(store, &store->tensor[i], msg);
    }
    if (!err)
        err = read_alignment(store, &alignment, msg);
    if (err)
        goto out;
    store->n_tensor = n;
    data_start = (reader->pos + alignment - 1) & ~(alignment - 1);
    for (size_t i = 0; i < n && !err; i++)
        err = place_tensor(store, &store->tensor[i], offset[i], alignment, data_start, &end, msg);
    if (!err && end > store->file[0].map.size) {
        store->missing = end - store->file[0].map.size;
        if (!store->header_only)
            err = hd_store__cut_fail(&store->cut, msg);
    }
    if (!err)
        err = hd_store__index_tensors(store, msg);
out:
    free(offset);
    return err;
}

enum hd_err hd_store__read_gguf(struct hd_store *store, struct hd_errmsg *msg)
{
    struct hd_store__file *file;
    struct header header;
    store->format = HD_STORE_GGUF;
    enum hd_err err = hd_store__add_file(&file, store, store->path, msg);
    if (err)
        return err;
    struct hd_store__reader reader = {.data = file->map.data, .size = file->map.size};
    err = read_header(store, &reader, &header, msg);
    if (!err)
        err = hd_store__read_kv(store, &reader, header.n_kv, msg);
    if (!err)
        err = read_tensors(store, &reader, &header, msg);
    return err;
}
