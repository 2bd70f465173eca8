/* A model in several GGUF files, as `gguf-split` of llama.cpp (MIT) writes them:
 *
 *   NAME-00001-of-00003.gguf …, each with split.no (from 0), split.count and split.tensors.count;
 *   the metadata are in the first part, every part lists its own tensors.
 *
 * Any part may be named; all are opened. A part's name comes from the name that was given, never
 * from inside a file, so nothing outside its folder is touched. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "store/store_impl.h"

struct split {
    uint64_t no, count, n_tensor;
    size_t prefix; /* length of the path before "-00001-of-00003.gguf" */
};

enum { SUFFIX = 20 }; /* of "-00001-of-00003.gguf" */

static char *part_path(const struct hd_store *store, const struct split *split, uint64_t no)
{
    char *path = malloc(split->prefix + SUFFIX + 1);
    if (path) {
        memcpy(path, store->path, split->prefix);
        snprintf(path + split->prefix, SUFFIX + 1, "-%05u-of-%05u.gguf", (unsigned)no + 1,
                 (unsigned)split->count);
    }
    return path;
}

static const char *file_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* What a part says about itself. */
static enum hd_err read_split(struct split *out, const struct hd_store *store,
                              struct hd_errmsg *msg)
{
    *out = (struct split){.count = 1};
    hd_store_u64(store, "split.count", &out->count);
    if (!hd_store_u64(store, "split.no", &out->no) || out->no >= out->count ||
        out->count > HD_STORE_MAX_SHARDS)
        return hd_fail(msg, HD_ERR_FORMAT, "%s: split.no %llu of split.count %llu: not possible",
                       store->path, (unsigned long long)out->no, (unsigned long long)out->count);
    if (!hd_store_u64(store, "split.tensors.count", &out->n_tensor) ||
        out->n_tensor > HD_STORE_MAX_TENSORS)
        return hd_fail(msg, HD_ERR_FORMAT, "%s: split.tensors.count is absent or not possible",
                       store->path);
    return HD_OK;
}

/* The opened file's name must be that of its part, or the others could not be found. */
static enum hd_err name_fits(bool *out, struct split *split, const struct hd_store *store,
                             struct hd_errmsg *msg)
{
    size_t len = strlen(store->path);
    split->prefix = len > SUFFIX ? len - SUFFIX : 0;
    char *want = part_path(store, split, split->no);
    if (!want)
        return hd_fail(msg, HD_ERR_NOMEM, "%s: out of memory", store->path);
    *out = len > SUFFIX && !strcmp(want, store->path);
    free(want);
    return HD_OK;
}

static enum hd_err other_name(const struct hd_store *store, const struct split *split,
                              struct hd_errmsg *msg)
{
    return hd_fail(msg, HD_ERR_FORMAT,
                   "%s: part %u of a model in %u files, under another name: the others cannot be "
                   "found (name it …-%05u-of-%05u.gguf and put all parts into one folder)",
                   store->path, (unsigned)split->no + 1, (unsigned)split->count,
                   (unsigned)split->no + 1, (unsigned)split->count);
}

/* Part `no` as a handle of its own, checked against the model's split. */
static enum hd_err open_part(struct hd_store **out, const char *path, const struct split *split,
                             uint64_t no, bool header_only, struct hd_errmsg *msg)
{
    struct split own;
    struct hd_store *part = calloc(1, sizeof *part);
    if (!part || !(part->path = strdup(path))) {
        free(part);
        return hd_fail(msg, HD_ERR_NOMEM, "%s: out of memory", path);
    }
    part->header_only = header_only;
    enum hd_err err = hd_store__read_gguf(part, msg);
    if (!err)
        err = read_split(&own, part, msg);
    if (!err && (own.no != no || own.count != split->count || own.n_tensor != split->n_tensor))
        err = hd_fail(msg, HD_ERR_FORMAT,
                      "%s: it says part %u of %u and %u tensors, its name and the other parts part "
                      "%u of %u and %u (parts of different models: fetch all of one)",
                      path, (unsigned)own.no + 1, (unsigned)own.count, (unsigned)own.n_tensor,
                      (unsigned)no + 1, (unsigned)split->count, (unsigned)split->n_tensor);
    if (err) {
        hd_store_close(part);
        return err;
    }
    *out = part;
    return HD_OK;
}

/* Moves what the part holds into the store; the first one's metadata become the model's. */
static enum hd_err absorb(struct hd_store *store, struct hd_store *part, struct hd_errmsg *msg)
{
    size_t n = store->n_tensor + part->n_tensor;
    struct hd_store_tensor *tensor = realloc(store->tensor, (n + 1) * sizeof *tensor);
    struct hd_store__file *file =
        realloc(store->file, (store->n_file + part->n_file) * sizeof *file);
    store->tensor = tensor ? tensor : store->tensor;
    store->file = file ? file : store->file;
    if (!tensor || !file)
        return hd_fail(msg, HD_ERR_NOMEM, "%s: out of memory", store->path);
    memcpy(tensor + store->n_tensor, part->tensor, part->n_tensor * sizeof *tensor);
    memcpy(file + store->n_file, part->file, part->n_file * sizeof *file);
    store->n_tensor = n;
    store->n_file += part->n_file;
    store->missing += part->missing;
    if (!store->cut.tensor)
        store->cut = part->cut; /* its path is the file's, which moves too */
    part->n_file = part->n_tensor = 0;
    hd_store__take_strings(store, part);
    if (!store->kv) {
        store->kv = part->kv;
        store->n_kv = part->n_kv;
        store->kv_table = part->kv_table;
        part->kv = NULL;
        part->kv_table = (struct hd_store__table){0};
    }
    return HD_OK;
}

/* A part that is not there: a refusal, or a note where only looking is wanted. */
static enum hd_err miss_part(struct hd_store *store, const char *path, const struct split *split,
                             uint64_t no, struct hd_errmsg *msg)
{
    const char *name = file_name(path);
    if (!store->header_only)
        return hd_fail(msg, HD_ERR_NOTFOUND,
                       "%s: part %u of %u is missing: \"%s\" is not beside it (fetch that file and "
                       "put it into the same folder)",
                       store->path, (unsigned)no + 1, (unsigned)split->count, name);
    return hd_store__note_missing(store, name, (size_t)split->count, msg);
}

static enum hd_err take_part(struct hd_store *store, const struct split *split, uint64_t no,
                             struct hd_errmsg *msg)
{
    struct hd_store *part = NULL;
    char *path = part_path(store, split, no);
    enum hd_err err;
    if (!path)
        return hd_fail(msg, HD_ERR_NOMEM, "%s: out of memory", store->path);
    if (!hd_path_exists(path))
        err = miss_part(store, path, split, no, msg);
    else
        err = open_part(&part, path, split, no, store->header_only, msg);
    if (!err && part)
        err = absorb(store, part, msg);
    hd_store_close(part);
    free(path);
    return err;
}

/* The handle's own file was read to learn that it is a part; everything is opened anew, in order.
 */
static enum hd_err open_parts(struct hd_store *store, const struct split *split,
                              struct hd_errmsg *msg)
{
    enum hd_err err = HD_OK;
    hd_store__forget(store);
    for (uint64_t no = 0; no < split->count && !err; no++)
        err = take_part(store, split, no, msg);
    if (!err && !store->n_missing_part && store->n_tensor != split->n_tensor)
        err = hd_fail(msg, HD_ERR_FORMAT,
                      "%s: the parts hold %zu tensors, split.tensors.count says %llu (parts of "
                      "different models: fetch all of one)",
                      store->path, store->n_tensor, (unsigned long long)split->n_tensor);
    return err ? err : hd_store__index_tensors(store, msg);
}

enum hd_err hd_store__open_gguf(struct hd_store *store, struct hd_errmsg *msg)
{
    struct split split;
    uint64_t count;
    bool fits = false;
    enum hd_err err = hd_store__read_gguf(store, msg);
    if (err || !hd_store_u64(store, "split.count", &count) || count <= 1)
        return err;
    err = read_split(&split, store, msg);
    if (!err)
        err = name_fits(&fits, &split, store, msg);
    if (err)
        return err;
    if (fits)
        return open_parts(store, &split, msg);
    return store->header_only ? HD_OK : other_name(store, &split, msg); /* looked at alone */
}
