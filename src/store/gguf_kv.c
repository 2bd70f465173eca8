/* GGUF metadata: one walk that checks everything, then lookups that need no checks. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "store/store_impl.h"

/* Bytes of a fixed-size value; 0 for strings, arrays and unknown types. */
static size_t type_bytes(uint32_t type)
{
    static const uint8_t bytes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    return type < sizeof bytes ? bytes[type] : 0;
}

/* A u64 length and that many bytes. */
static bool take_str(struct hd_store__reader *reader, const uint8_t **out, size_t *len)
{
    uint64_t n;
    if (!hd_store__take(reader, &n, sizeof n) || n > reader->size - reader->pos)
        return false;
    *out = reader->data + reader->pos;
    *len = (size_t)n;
    reader->pos += (size_t)n;
    return true;
}

static enum hd_err cut_off(const struct hd_store *store, const struct hd_store__reader *reader,
                           const char *key, struct hd_errmsg *msg)
{
    return hd_fail(msg, HD_ERR_FORMAT,
                   "%s: metadata%s%s: byte %zu: reaches past the end of the file, %zu bytes (the "
                   "file is truncated or damaged: fetch it again)",
                   store->path, key ? " key " : "", key ? key : "", reader->pos, reader->size);
}

static enum hd_err read_array(const struct hd_store *store, struct hd_store__reader *reader,
                              struct hd_store__kv *kv, struct hd_errmsg *msg)
{
    uint32_t elem;
    size_t bytes, len;
    const uint8_t *at;
    if (!hd_store__take(reader, &elem, sizeof elem) ||
        !hd_store__take(reader, &kv->n, sizeof kv->n))
        return cut_off(store, reader, kv->key, msg);
    kv->elem = (int)elem;
    kv->value = reader->data + reader->pos;
    if (elem == HD_KV_STR) {
        for (uint64_t i = 0; i < kv->n; i++)
            if (!take_str(reader, &at, &len))
                return cut_off(store, reader, kv->key, msg);
    } else if (!type_bytes(elem)) {
        return hd_fail(msg, HD_ERR_FORMAT, "%s: metadata key %s: byte %zu: array of type %u",
                       store->path, kv->key, reader->pos - 12, elem);
    } else if (!hd_mul(&bytes, (size_t)kv->n, type_bytes(elem)) ||
               !hd_store__take(reader, NULL, bytes)) {
        return cut_off(store, reader, kv->key, msg);
    }
    kv->bytes = (size_t)(reader->data + reader->pos - kv->value);
    return HD_OK;
}

static enum hd_err read_value(const struct hd_store *store, struct hd_store__reader *reader,
                              struct hd_store__kv *kv, struct hd_errmsg *msg)
{
    kv->n = 1;
    kv->elem = kv->type;
    if (kv->type == HD_KV_ARRAY)
        return read_array(store, reader, kv, msg);
    if (kv->type == HD_KV_STR)
        return take_str(reader, &kv->value, &kv->bytes) ? HD_OK
                                                        : cut_off(store, reader, kv->key, msg);
    kv->bytes = type_bytes((uint32_t)kv->type);
    if (!kv->bytes)
        return hd_fail(msg, HD_ERR_FORMAT, "%s: metadata key %s: byte %zu: unknown value type %d",
                       store->path, kv->key, reader->pos - 4, kv->type);
    kv->value = reader->data + reader->pos;
    if (!hd_store__take(reader, NULL, kv->bytes))
        return cut_off(store, reader, kv->key, msg);
    if (kv->type == HD_KV_BOOL && *kv->value > 1)
        return hd_fail(msg, HD_ERR_FORMAT, "%s: metadata key %s: byte %zu: %u is no truth value",
                       store->path, kv->key, reader->pos - 1, *kv->value);
    return HD_OK;
}

static const char *kv_name(const struct hd_store *store, size_t i)
{
    return store->kv[i].key;
}

static enum hd_err read_entry(struct hd_store *store, struct hd_store__reader *reader,
                              struct hd_store__kv *kv, struct hd_errmsg *msg)
{
    const uint8_t *key;
    size_t len, at = reader->pos;
    uint32_t type;
    if (!take_str(reader, &key, &len))
        return cut_off(store, reader, NULL, msg);
    if (len < 1 || len > HD_STORE_MAX_KEY_LEN || memchr(key, 0, len))
        return hd_fail(msg, HD_ERR_FORMAT, "%s: byte %zu: a metadata key of %zu bytes", store->path,
                       at, len);
    for (size_t i = 0; i < len; i++)
        if (key[i] < 0x21 || key[i] > 0x7e)
            return hd_fail(msg, HD_ERR_FORMAT, "%s: byte %zu: byte %u in a metadata key",
                           store->path, at + 8 + i, key[i]);
    if (!hd_store__take(reader, &type, sizeof type))
        return cut_off(store, reader, NULL, msg);
    kv->type = type > HD_KV_F64 ? -1 : (int)type;
    kv->key = hd_store__strdup(store, (const char *)key, len);
    if (!kv->key)
        return hd_fail(msg, HD_ERR_NOMEM, "%s: out of memory", store->path);
    return read_value(store, reader, kv, msg);
}

enum hd_err hd_store__read_kv(struct hd_store *store, struct hd_store__reader *reader, uint64_t n,
                              struct hd_errmsg *msg)
{
    enum hd_err err;
    /* An entry takes at least a length, one byte of key, a type and one byte of value. */
    if (n > HD_STORE_MAX_KEYS || n > (reader->size - reader->pos) / 14)
        return hd_fail(msg, HD_ERR_FORMAT, "%s: byte 16: %llu metadata keys", store->path,
                       (unsigned long long)n);
    store->kv = calloc((size_t)n + 1, sizeof *store->kv);
    if (!store->kv || hd_store__table_init(&store->kv_table, (size_t)n))
        return hd_fail(msg, HD_ERR_NOMEM, "%s: out of memory", store->path);
    for (size_t i = 0; i < n; i++) {
        err = read_entry(store, reader, &store->kv[i], msg);
        if (err)
            return err;
        store->n_kv = i + 1;
        if (hd_store__table_add(&store->kv_table, store, kv_name, i) != SIZE_MAX)
            return hd_fail(msg, HD_ERR_FORMAT, "%s: metadata key %s occurs twice", store->path,
                           store->kv[i].key);
    }
    return HD_OK;
}

/* --- lookups ---------------------------------------------------------------------------------- */

static const struct hd_store__kv *find(const struct hd_store *store, const char *key)
{
    size_t i = hd_store__table_find(&store->kv_table, store, kv_name, key);
    return i == SIZE_MAX ? NULL : &store->kv[i];
}

/* Whole numbers: *negative tells the sign, *out the two's complement. */
static bool load_int(int type, const uint8_t *at, uint64_t *out, bool *negative)
{
    int8_t i8;
    int16_t i16;
    int32_t i32;
    int64_t value = 0;
    *out = 0;
    *negative = false;
    switch (type) {
    case HD_KV_U8:
    case HD_KV_BOOL:
    case HD_KV_U16:
    case HD_KV_U32:
    case HD_KV_U64: /* little endian on every machine that we build for */
        memcpy(out, at, type_bytes((uint32_t)type));
        return true;
    case HD_KV_I8:
        memcpy(&i8, at, sizeof i8);
        value = i8;
        break;
    case HD_KV_I16:
        memcpy(&i16, at, sizeof i16);
        value = i16;
        break;
    case HD_KV_I32:
        memcpy(&i32, at, sizeof i32);
        value = i32;
        break;
    case HD_KV_I64:
        memcpy(&value, at, sizeof value);
        break;
    default:
        return false;
    }
    *out = (uint64_t)value;
    *negative = value < 0;
    return true;
}

static bool load_f64(int type, const uint8_t *at, double *out)
{
    float f32;
    uint64_t whole;
    bool negative;
    if (type == HD_KV_F32) {
        memcpy(&f32, at, sizeof f32);
        *out = f32;
    } else if (type == HD_KV_F64) {
        memcpy(out, at, sizeof *out);
    } else if (load_int(type, at, &whole, &negative)) {
        *out = negative ? (double)(int64_t)whole : (double)whole;
    } else {
        return false;
    }
    return true;
}

bool hd_store_u64(const struct hd_store *store, const char *key, uint64_t *out)
{
    const struct hd_store__kv *kv = find(store, key);
    uint64_t value;
    bool negative;
    if (!kv || kv->type == HD_KV_BOOL || !load_int(kv->type, kv->value, &value, &negative) ||
        negative)
        return false;
    *out = value;
    return true;
}

bool hd_store_f64(const struct hd_store *store, const char *key, double *out)
{
    const struct hd_store__kv *kv = find(store, key);
    return kv && kv->type != HD_KV_BOOL && load_f64(kv->type, kv->value, out);
}

bool hd_store_bool(const struct hd_store *store, const char *key, bool *out)
{
    const struct hd_store__kv *kv = find(store, key);
    if (!kv || kv->type != HD_KV_BOOL)
        return false;
    *out = *kv->value != 0;
    return true;
}

bool hd_store_str(const struct hd_store *store, const char *key, const char **out, size_t *len)
{
    const struct hd_store__kv *kv = find(store, key);
    if (!kv || kv->type != HD_KV_STR)
        return false;
    *out = (const char *)kv->value;
    *len = kv->bytes;
    return true;
}

bool hd_store_array(const struct hd_store *store, const char *key, int *type, uint64_t *n)
{
    const struct hd_store__kv *kv = find(store, key);
    if (!kv || kv->type != HD_KV_ARRAY)
        return false;
    *type = kv->elem;
    *n = kv->n;
    return true;
}

bool hd_store_array_view(const struct hd_store *store, const char *key, struct hd_store_view *out)
{
    const struct hd_store__kv *kv = find(store, key);
    if (!kv || kv->type != HD_KV_ARRAY)
        return false;
    *out = (struct hd_store_view){kv->elem, kv->n, kv->value, kv->bytes};
    return true;
}

bool hd_store_view_next_str(const struct hd_store_view *v, uint64_t *cursor, const char **out,
                            size_t *len)
{
    uint64_t n;
    if (v->type != HD_KV_STR || *cursor > v->bytes || v->bytes - *cursor < sizeof n)
        return false;
    memcpy(&n, v->data + *cursor, sizeof n);
    if (n > v->bytes - *cursor - sizeof n) /* a cursor that we did not make */
        return false;
    *out = (const char *)v->data + *cursor + sizeof n;
    *len = (size_t)n;
    *cursor += sizeof n + n;
    return true;
}

bool hd_store_view_f64(const struct hd_store_view *v, uint64_t i, double *out)
{
    if (v->type == HD_KV_STR || i >= v->n)
        return false;
    return load_f64(v->type, v->data + i * type_bytes((uint32_t)v->type), out);
}

bool hd_store_array_next_str(const struct hd_store *store, const char *key, uint64_t *cursor,
                             const char **out, size_t *len)
{
    struct hd_store_view v;
    return hd_store_array_view(store, key, &v) && hd_store_view_next_str(&v, cursor, out, len);
}

bool hd_store_array_f64(const struct hd_store *store, const char *key, uint64_t i, double *out)
{
    struct hd_store_view v;
    return hd_store_array_view(store, key, &v) && hd_store_view_f64(&v, i, out);
}

size_t hd_store_n_key(const struct hd_store *store)
{
    return store->n_kv;
}

const char *hd_store_key_at(const struct hd_store *store, size_t i, int *type)
{
    if (i >= store->n_kv)
        return NULL;
    if (type)
        *type = store->kv[i].type;
    return store->kv[i].key;
}
