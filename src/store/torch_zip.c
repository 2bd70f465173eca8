/* PyTorch's files (.pt, .bin since version 1.6): a zip archive whose members lie uncompressed.
 *
 *   NAME/data.pkl   which tensors there are, as a pickle (torch_pickle.c reads the few instructions
 *                   that such a table needs and refuses all others; nothing is ever executed)
 *   NAME/data/KEY   the bytes of a storage, little endian
 *
 * The archive's directory is read here, with its own sizes only (PKWARE's APPNOTE 6.3, 4.3.12 to
 * 4.3.16), and every range is checked to lie inside the file. */
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "store/store_impl.h"
#include "store/torch_impl.h"

enum {
    END_SIZE = 22,   /* end of central directory, without its comment */
    ENTRY_SIZE = 46, /* of the directory, without name and extras */
    LOCAL_SIZE = 30, /* in front of a member */
    MAX_COMMENT = 65535,
};

static uint16_t u16_at(const uint8_t *p)
{
    return (uint16_t)(p[0] | p[1] << 8);
}

static uint32_t u32_at(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static bool inside(size_t begin, size_t n, size_t size)
{
    return begin <= size && n <= size - begin;
}

/* Where the end record lies, or SIZE_MAX. */
static size_t find_end(const uint8_t *data, size_t size)
{
    size_t last = size < END_SIZE + MAX_COMMENT ? 0 : size - END_SIZE - MAX_COMMENT;
    for (size_t at = size >= END_SIZE ? size - END_SIZE + 1 : 0; at-- > last;)
        if (u32_at(data + at) == 0x06054b50 && u16_at(data + at + 20) == size - at - END_SIZE)
            return at;
    return SIZE_MAX;
}

static enum hd_err bad(const struct hd_store__torch *t, const char *why, struct hd_errmsg *msg)
{
    return hd_fail(msg, HD_ERR_FORMAT, "%s: %s (a damaged or cut-off PyTorch file)", t->path, why);
}

/* One entry of the directory at `at`; *next is where the following one begins. */
static enum hd_err read_entry(struct hd_store__torch *t, size_t at, size_t *next,
                              struct hd_errmsg *msg)
{
    if (!inside(at, ENTRY_SIZE, t->size) || u32_at(t->data + at) != 0x02014b50)
        return bad(t, "its directory has a broken entry", msg);
    const uint8_t *p = t->data + at;
    size_t name_len = u16_at(p + 28), extra = u16_at(p + 30), comment = u16_at(p + 32);
    size_t packed = u32_at(p + 20), bytes = u32_at(p + 24), local = u32_at(p + 42);
    struct hd_store__member *m = &t->member[t->n_member];
    *next = at + ENTRY_SIZE + name_len + extra + comment;
    if (!inside(at, ENTRY_SIZE + name_len + extra + comment, t->size))
        return bad(t, "its directory is cut off", msg);
    if (packed == UINT32_MAX || bytes == UINT32_MAX || local == UINT32_MAX)
        return hd_fail(msg, HD_ERR_UNSUPPORTED,
                       "%s: PyTorch files of 4 GB and more are not read (convert it to "
                       "safetensors)",
                       t->path);
    if (u16_at(p + 10) != 0 || packed != bytes)
        return hd_fail(msg, HD_ERR_UNSUPPORTED,
                       "%s: has compressed members (convert it to "
                       "safetensors)",
                       t->path);
    if (!inside(local, LOCAL_SIZE, t->size) || u32_at(t->data + local) != 0x04034b50)
        return bad(t, "a member does not lie where the directory says", msg);
    size_t begin = local + LOCAL_SIZE + u16_at(t->data + local + 26) + u16_at(t->data + local + 28);
    if (!inside(begin, bytes, t->size))
        return bad(t, "a member ends beyond the file", msg);
    *m = (struct hd_store__member){(const char *)p + ENTRY_SIZE, name_len, t->data + begin, bytes};
    t->n_member++;
    return HD_OK;
}

static enum hd_err read_directory(struct hd_store__torch *t, struct hd_errmsg *msg)
{
    size_t end = t->size >= END_SIZE ? find_end(t->data, t->size) : SIZE_MAX;
    if (end == SIZE_MAX)
        return hd_fail(msg, HD_ERR_FORMAT,
                       "%s: no zip archive (a PyTorch file of before version 1.6, or cut off; "
                       "convert it to safetensors)",
                       t->path);
    size_t n = u16_at(t->data + end + 10), at = u32_at(t->data + end + 16);
    t->member = calloc(n ? n : 1, sizeof *t->member);
    if (!t->member)
        return hd_fail(msg, HD_ERR_NOMEM, "%s: out of memory", t->path);
    enum hd_err err = HD_OK;
    for (size_t i = 0; !err && i < n; i++)
        err = read_entry(t, at, &at, msg);
    return err;
}

const struct hd_store__member *hd_store__torch_member(const struct hd_store__torch *t,
                                                      const char *folder, const char *name,
                                                      size_t len)
{
    size_t n_folder = strlen(folder);
    for (size_t i = 0; i < t->n_member; i++) {
        const struct hd_store__member *m = &t->member[i];
        const char *slash = memchr(m->name, '/', m->name_len);
        size_t root = slash ? (size_t)(slash - m->name) + 1 : 0;
        if (slash && m->name_len - root == n_folder + len && !memcmp(slash + 1, folder, n_folder) &&
            !memcmp(slash + 1 + n_folder, name, len))
            return m;
    }
    return NULL;
}

/* Appends a tensor of the table as one of the store's. */
static enum hd_err add_tensor(struct hd_store *store, const struct hd_store__torch *t,
                              const struct hd_store__torch_tensor *from, const char *prefix,
                              struct hd_errmsg *msg)
{
    char shown[96], name[HD_STORE_MAX_NAME_LEN + 1];
    size_t n_prefix = strlen(prefix), begin, want = (size_t)from->elem_bytes;
    struct hd_store_tensor tensor = {
        .dtype = from->dtype, .type_name = from->type_name, .n_dim = from->n_dim ? from->n_dim : 1};
    hd_store__shown(shown, from->name, from->name_len);
    if (from->name_len < 1 || n_prefix + from->name_len > HD_STORE_MAX_NAME_LEN ||
        memchr(from->name, 0, from->name_len))
        return hd_fail(msg, HD_ERR_FORMAT, "%s: tensor \"%s\": a name of this form", t->path,
                       shown);
    memcpy(name, prefix, n_prefix);
    memcpy(name + n_prefix, from->name, from->name_len);
    bool fits = hd_mul(&begin, (size_t)from->offset, (size_t)from->elem_bytes);
    for (int i = 0; i < 4; i++) {
        tensor.ne[i] = i < from->n_dim ? from->ne[i] : 1;
        fits = fits && tensor.ne[i] > 0 && hd_mul(&want, want, (size_t)tensor.ne[i]);
    }
    const struct hd_store__member *m = hd_store__torch_member(t, "data/", from->key, from->key_len);
    if (!fits || !m || !inside(begin, want, m->bytes))
        return hd_fail(msg, HD_ERR_FORMAT, "%s: tensor \"%s\" does not lie inside its storage",
                       t->path, shown);
    tensor.data = m->data + begin;
    tensor.bytes = want;
    tensor.name = hd_store__strdup(store, name, n_prefix + from->name_len);
    if (!tensor.name)
        return hd_fail(msg, HD_ERR_NOMEM, "%s: out of memory", t->path);
    store->tensor[store->n_tensor++] = tensor;
    return HD_OK;
}

enum hd_err hd_store__read_torch(struct hd_store *store, const struct hd_store__file *file,
                                 const char *prefix, struct hd_errmsg *msg)
{
    struct hd_store__torch t = {.path = file->path, .data = file->map.data, .size = file->map.size};
    struct hd_store__torch_table table = {0};
    enum hd_err err = read_directory(&t, msg);
    const struct hd_store__member *pickle =
        err ? NULL : hd_store__torch_member(&t, "", "data.pkl", 8);
    const struct hd_store__member *order =
        err ? NULL : hd_store__torch_member(&t, "", "byteorder", 9);
    if (!err && !pickle)
        err = bad(&t, "it has no data.pkl", msg);
    if (!err && order && (order->bytes != 6 || memcmp(order->data, "little", 6)))
        err = hd_fail(msg, HD_ERR_UNSUPPORTED, "%s: its numbers are big endian", t.path);
    if (!err)
        err = hd_store__torch_pickle(&table, t.path, pickle->data, pickle->bytes, msg);
    if (!err)
        err = hd_store__reserve_tensors(store, table.n, t.path, msg);
    for (size_t i = 0; !err && i < table.n; i++)
        err = add_tensor(store, &t, &table.tensor[i], prefix, msg);
    free(table.tensor);
    free(t.member);
    return err;
}
