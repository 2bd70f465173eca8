/* The handle: opening by kind, closing, lookups, and what GGUF and safetensors share. */
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/checked.h"
#include "base/clock.h"
#include "base/hash.h"
#include "base/utf8.h"
#include "store/store_impl.h"

/* --- arena ------------------------------------------------------------------------------------ */

struct hd_store__chunk {
    struct hd_store__chunk *next;
    size_t used, size;
    char bytes[];
};

char *hd_store__strdup(struct hd_store *store, const char *s, size_t len)
{
    struct hd_store__chunk *chunk = store->chunk;
    if (!chunk || chunk->size - chunk->used < len + 1) {
        size_t size = len + 1 > 65536 ? len + 1 : 65536;
        chunk = malloc(sizeof *chunk + size);
        if (!chunk)
            return NULL;
        *chunk = (struct hd_store__chunk){.next = store->chunk, .size = size};
        store->chunk = chunk;
    }
    char *copy = chunk->bytes + chunk->used;
    memcpy(copy, s, len);
    copy[len] = 0;
    chunk->used += len + 1;
    return copy;
}

void hd_store__take_strings(struct hd_store *store, struct hd_store *from)
{
    struct hd_store__chunk **end = &store->chunk;
    while (*end)
        end = &(*end)->next;
    *end = from->chunk;
    from->chunk = NULL;
}

const char *hd_store__shown(char out[96], const char *s, size_t len)
{
    size_t n = 0;
    len = strnlen(s, len);
    for (size_t i = 0; i < len;) {
        unsigned codepoint;
        size_t step = hd_utf8_decode(&codepoint, s + i, len - i, NULL);
        if (n + 8 > 96) {
            memcpy(out + n, "…", 3);
            n += 3;
            break;
        }
        if (!step || codepoint < 0x20 || (codepoint >= 0x7f && codepoint < 0xa0)) {
            out[n++] = '?';
            i += step ? step : 1;
            continue;
        }
        memcpy(out + n, s + i, step);
        n += step;
        i += step;
    }
    out[n] = 0;
    return out;
}

/* --- name table ------------------------------------------------------------------------------- */

enum hd_err hd_store__table_init(struct hd_store__table *table, size_t n)
{
    size_t size = 16;
    while (size < 2 * n)
        size *= 2;
    *table = (struct hd_store__table){.mask = size - 1};
    if (getrandom(&table->seed, sizeof table->seed, GRND_NONBLOCK) != sizeof table->seed)
        table->seed = (uint64_t)(hd_clock_seconds() * 1e9);
    table->slot = calloc(size, sizeof *table->slot);
    return table->slot ? HD_OK : HD_ERR_NOMEM;
}

void hd_store__table_dispose(struct hd_store__table *table)
{
    free(table->slot);
    *table = (struct hd_store__table){0};
}

/* The slot that holds the name, or the empty one where it belongs. */
static uint32_t *table_slot(const struct hd_store__table *table, const struct hd_store *store,
                            hd_store__name_fn name_of, const char *name)
{
    size_t i = hd_hash64(name, strlen(name), table->seed) & table->mask;
    while (table->slot[i] && strcmp(name_of(store, table->slot[i] - 1), name) != 0)
        i = (i + 1) & table->mask;
    return &table->slot[i];
}

size_t hd_store__table_add(struct hd_store__table *table, const struct hd_store *store,
                           hd_store__name_fn name_of, size_t i)
{
    uint32_t *slot = table_slot(table, store, name_of, name_of(store, i));
    if (*slot)
        return *slot - 1;
    *slot = (uint32_t)i + 1;
    return SIZE_MAX;
}

size_t hd_store__table_find(const struct hd_store__table *table, const struct hd_store *store,
                            hd_store__name_fn name_of, const char *name)
{
    if (!table->slot)
        return SIZE_MAX;
    uint32_t slot = *table_slot(table, store, name_of, name);
    return slot ? slot - 1 : SIZE_MAX;
}

/* --- helpers ---------------------------------------------------------------------------------- */

bool hd_store__take(struct hd_store__reader *reader, void *out, size_t n)
{
    if (!hd_within(reader->pos, n, reader->size))
        return false;
    if (out)
        memcpy(out, reader->data + reader->pos, n);
    reader->pos += n;
    return true;
}

bool hd_store__n_element(const struct hd_store_tensor *tensor, size_t *out)
{
    *out = 1;
    for (int d = 0; d < 4; d++)
        if (tensor->ne[d] < 1 || !hd_mul(out, *out, (size_t)tensor->ne[d]))
            return false;
    return *out <= INT64_MAX;
}

enum hd_err hd_store__add_file(struct hd_store__file **out, struct hd_store *store,
                               const char *path, struct hd_errmsg *msg)
{
    struct hd_store__file *file = realloc(store->file, (store->n_file + 1) * sizeof *file);
    if (!file)
        return hd_fail(msg, HD_ERR_NOMEM, "%s: out of memory", path);
    store->file = file;
    file += store->n_file;
    struct hd_map map;
    enum hd_err err = hd_map_open(&map, path, msg);
    if (err)
        return err;
    *file = (struct hd_store__file){.path = strdup(path), .map = map};
    if (!file->path) {
        hd_map_close(&map);
        return hd_fail(msg, HD_ERR_NOMEM, "%s: out of memory", path);
    }
    store->n_file++;
    *out = file;
    return HD_OK;
}

static const char *tensor_name(const struct hd_store *store, size_t i)
{
    return store->tensor[i].name;
}

enum hd_err hd_store__index_tensors(struct hd_store *store, struct hd_errmsg *msg)
{
    char shown[96];
    hd_store__table_dispose(&store->tensor_table);
    enum hd_err err = hd_store__table_init(&store->tensor_table, store->n_tensor);
    if (err)
        return hd_fail(msg, err, "%s: out of memory", store->path);
    for (size_t i = 0; i < store->n_tensor; i++)
        if (hd_store__table_add(&store->tensor_table, store, tensor_name, i) != SIZE_MAX)
            return hd_fail(msg, HD_ERR_FORMAT,
                           "%s: tensor \"%s\" occurs twice (the file is damaged)", store->path,
                           hd_store__shown(shown, store->tensor[i].name, SIZE_MAX));
    return HD_OK;
}

/* --- the public handle ------------------------------------------------------------------------ */

static enum hd_err open_any(struct hd_store **out, const char *path, bool header_only,
                            struct hd_errmsg *msg)
{
    *out = NULL;
    struct hd_store *store = calloc(1, sizeof *store);
    if (!store || !(store->path = strdup(path))) {
        free(store);
        return hd_fail(msg, HD_ERR_NOMEM, "%s: out of memory", path);
    }
    store->header_only = header_only;
    enum hd_err err =
        hd_path_is_dir(path) ? hd_store__open_hf(store, msg) : hd_store__open_gguf(store, msg);
    if (err) {
        hd_store_close(store);
        return err;
    }
    *out = store;
    return HD_OK;
}

enum hd_err hd_store_open(struct hd_store **out, const char *path, struct hd_errmsg *msg)
{
    return open_any(out, path, false, msg);
}

enum hd_err hd_store_open_header(struct hd_store **out, const char *path, struct hd_errmsg *msg)
{
    return open_any(out, path, true, msg);
}

void hd_store__forget(struct hd_store *store)
{
    for (size_t i = 0; i < store->n_file; i++) {
        hd_map_close(&store->file[i].map);
        free(store->file[i].path);
    }
    free(store->file);
    free(store->tensor);
    free(store->kv);
    free(store->missing_part);
    free(store->quant);
    hd_store__table_dispose(&store->tensor_table);
    hd_store__table_dispose(&store->kv_table);
    while (store->chunk) {
        struct hd_store__chunk *next = store->chunk->next;
        free(store->chunk);
        store->chunk = next;
    }
    store->file = NULL;
    store->tensor = NULL;
    store->kv = NULL;
    store->missing_part = NULL;
    store->quant = NULL;
    store->n_quant = 0;
    store->n_file = store->n_tensor = store->cap_tensor = store->n_kv = store->missing = 0;
    store->n_missing_part = 0;
    store->cut = (struct hd_store_cut){0};
}

void hd_store_close(struct hd_store *store)
{
    if (!store)
        return;
    hd_store__forget(store);
    json_decref(store->config);
    json_decref(store->tokenizer);
    json_decref(store->tokenizer_config);
    json_decref(store->generation_config);
    for (int i = 0; i < HD_STORE_N_SIDE; i++)
        json_decref(store->side[i].json);
    free(store->path);
    free(store);
}

enum hd_store_format hd_store_format(const struct hd_store *store)
{
    return store->format;
}

const char *hd_store_path(const struct hd_store *store)
{
    return store->path;
}

size_t hd_store_file_bytes(const struct hd_store *store)
{
    size_t total = 0;
    for (size_t i = 0; i < store->n_file; i++)
        total += store->file[i].map.size;
    return total;
}

const struct hd_store_cut *hd_store_cut(const struct hd_store *store)
{
    return store->cut.tensor ? &store->cut : NULL;
}

void hd_store__cut_note(struct hd_store_cut *cut, const char *path, const char *tensor,
                        size_t begin, size_t stop, size_t have)
{
    if (cut->path && cut->path != path)
        return; /* the first such file is enough */
    cut->need = stop > cut->need ? stop : cut->need;
    if (cut->tensor) {
        cut->n_more++;
        if (begin >= cut->begin)
            return;
    }
    cut->path = path;
    cut->tensor = tensor;
    cut->begin = begin;
    cut->end = stop;
    cut->have = have;
}

enum hd_err hd_store__cut_fail(const struct hd_store_cut *cut, struct hd_errmsg *msg)
{
    char shown[96];
    return hd_fail(
        msg, HD_ERR_FORMAT,
        "%s: the file stops early: %zu bytes are missing of %zu; it ends %s tensor "
        "\"%s\" (bytes %zu to %zu), %zu more lie behind it (`holdfast pull NAME` goes on "
        "where a pull stopped; by hand, fetch it from byte %zu on)",
        cut->path, cut->need - cut->have, cut->need, cut->have > cut->begin ? "within" : "before",
        hd_store__shown(shown, cut->tensor, SIZE_MAX), cut->begin, cut->end, cut->n_more,
        cut->have);
}

enum hd_err hd_store__note_missing(struct hd_store *store, const char *name, size_t most,
                                   struct hd_errmsg *msg)
{
    if (!store->missing_part && !(store->missing_part = calloc(most, sizeof *store->missing_part)))
        return hd_fail(msg, HD_ERR_NOMEM, "%s: out of memory", store->path);
    char *copy = hd_store__strdup(store, name, strlen(name));
    if (!copy)
        return hd_fail(msg, HD_ERR_NOMEM, "%s: out of memory", store->path);
    store->missing_part[store->n_missing_part++] = copy;
    return HD_OK;
}

size_t hd_store_missing_bytes(const struct hd_store *store)
{
    return store->missing;
}

size_t hd_store_n_file(const struct hd_store *store)
{
    return store->n_file;
}

const char *hd_store_file_at(const struct hd_store *store, size_t i, size_t *bytes)
{
    if (i >= store->n_file)
        return NULL;
    *bytes = store->file[i].map.size;
    return store->file[i].path;
}

const char *hd_store_missing_part(const struct hd_store *store, size_t i)
{
    return i < store->n_missing_part ? store->missing_part[i] : NULL;
}

size_t hd_store_n_tensor(const struct hd_store *store)
{
    return store->n_tensor;
}

const struct hd_store_tensor *hd_store_tensor_at(const struct hd_store *store, size_t i)
{
    return i < store->n_tensor ? &store->tensor[i] : NULL;
}

size_t hd_store__find(const struct hd_store *store, const char *name)
{
    return hd_store__table_find(&store->tensor_table, store, tensor_name, name);
}

static const struct hd_store_tensor *find_tensor(const struct hd_store *store, const char *name)
{
    size_t i = hd_store__find(store, name);
    return i == SIZE_MAX ? NULL : &store->tensor[i];
}

const struct hd_store_tensor *hd_store_tensor(const struct hd_store *store, const char *name)
{
    const struct hd_store_tensor *tensor = find_tensor(store, name);
    return tensor && tensor->data ? tensor : NULL;
}

enum hd_err hd_store_tensor_get(const struct hd_store_tensor **out, const struct hd_store *store,
                                const char *name, struct hd_errmsg *msg)
{
    const struct hd_store_tensor *tensor = find_tensor(store, name);
    *out = NULL;
    if (!tensor)
        return hd_fail(msg, HD_ERR_NOTFOUND, "%s: the model has no tensor \"%s\"", store->path,
                       name);
    if (tensor->dtype == HD_STORE_UNREAD)
        return hd_fail(msg, HD_ERR_UNSUPPORTED, "%s: tensor \"%s\" is %s: not supported (%s)",
                       store->path, name, tensor->type_name,
                       tensor->advice ? tensor->advice : "use a file in BF16, F16 or F32");
    if (!tensor->data)
        return hd_fail(msg, HD_ERR_FORMAT, "%s: tensor \"%s\" lies past the end of the file",
                       store->path, name);
    *out = tensor;
    return HD_OK;
}

json_t *hd_store_config(const struct hd_store *store)
{
    return store->config;
}

json_t *hd_store_tokenizer(const struct hd_store *store)
{
    return store->tokenizer;
}

json_t *hd_store_tokenizer_config(const struct hd_store *store)
{
    return store->tokenizer_config;
}

json_t *hd_store_generation_config(const struct hd_store *store)
{
    return store->generation_config;
}
