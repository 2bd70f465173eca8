/* See index.h. */
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "kb/index.h"

enum { BLOB_MAX = 1 << 20 };

enum hd_err hd_kb__put_varint(struct hd_buf *out, uint64_t value)
{
    char bytes[10];
    size_t n = 0;
    while (value >= 0x80) {
        bytes[n++] = (char)(value | 0x80);
        value >>= 7;
    }
    bytes[n++] = (char)value;
    return hd_buf_append(out, bytes, n);
}

size_t hd_kb__get_varint(uint64_t *out, const unsigned char *data, size_t len)
{
    uint64_t value = 0;
    for (size_t i = 0; i < len && i < 10; i++) {
        value |= (uint64_t)(data[i] & 0x7F) << (7 * i);
        if (!(data[i] & 0x80)) {
            *out = value;
            return i + 1;
        }
    }
    return 0;
}

/* --- collecting --------------------------------------------------------------------------- */

struct posting {
    int64_t chunk;
    uint32_t n_text, n_heading;
};

struct entry {  /* one term */
    char *text; /* owned */
    uint32_t len;
    int64_t id;
    struct posting *postings; /* owned, ascending by chunk */
    size_t n, cap;
};

struct hd_kb__indexer {
    struct hd_kb__store *store;
    struct entry *entries; /* hash table, open addressing */
    size_t n, cap;
    int64_t *ids; /* scratch: the chunk's term ids */
    size_t n_id, cap_id;
};

enum hd_err hd_kb__indexer_new(struct hd_kb__indexer **out, struct hd_kb__store *store)
{
    *out = NULL;
    struct hd_kb__indexer *ix = calloc(1, sizeof *ix);
    if (!ix)
        return HD_ERR_NOMEM;
    ix->store = store;
    ix->cap = 4096;
    ix->entries = calloc(ix->cap, sizeof *ix->entries);
    if (!ix->entries) {
        free(ix);
        return HD_ERR_NOMEM;
    }
    *out = ix;
    return HD_OK;
}

static void clear(struct hd_kb__indexer *ix)
{
    for (size_t i = 0; i < ix->cap; i++) {
        free(ix->entries[i].text);
        free(ix->entries[i].postings);
    }
    memset(ix->entries, 0, ix->cap * sizeof *ix->entries);
    ix->n = 0;
}

void hd_kb__indexer_free(struct hd_kb__indexer *ix)
{
    if (!ix)
        return;
    clear(ix);
    free(ix->entries);
    free(ix->ids);
    free(ix);
}

static struct entry *slot_of(struct entry *entries, size_t cap, const char *text, size_t len)
{
    size_t i = hd_hash64(text, len, 0) & (cap - 1);
    while (entries[i].text && !(entries[i].len == len && !memcmp(entries[i].text, text, len)))
        i = (i + 1) & (cap - 1);
    return &entries[i];
}

static enum hd_err grow(struct hd_kb__indexer *ix)
{
    size_t cap = ix->cap * 2;
    struct entry *entries = calloc(cap, sizeof *entries);
    if (!entries)
        return HD_ERR_NOMEM;
    for (size_t i = 0; i < ix->cap; i++)
        if (ix->entries[i].text)
            *slot_of(entries, cap, ix->entries[i].text, ix->entries[i].len) = ix->entries[i];
    free(ix->entries);
    ix->entries = entries;
    ix->cap = cap;
    return HD_OK;
}

enum hd_err hd_kb__term_find(struct hd_kb__store *store, const char *text, size_t len,
                             struct hd_kb__term_ref *out, struct hd_errmsg *msg)
{
    *out = (struct hd_kb__term_ref){0};
    sqlite3_stmt *st =
        hd_kb__stmt(store, HD_KB__ST_TERM_FIND, "SELECT id, df FROM terms WHERE text = ?1", msg);
    if (!st)
        return HD_ERR_IO;
    sqlite3_bind_text(st, 1, text, (int)len, SQLITE_STATIC);
    int rc = sqlite3_step(st);
    if (rc == SQLITE_ROW) {
        out->id = sqlite3_column_int64(st, 0);
        out->df = sqlite3_column_int64(st, 1);
    }
    enum hd_err err = rc == SQLITE_ROW || rc == SQLITE_DONE ? HD_OK : hd_kb__sql_fail(store, msg);
    sqlite3_reset(st);
    return err;
}

/* The term's id, made where it is new (with df 0 until the flush). */
static enum hd_err resolve(struct hd_kb__store *store, struct entry *entry, struct hd_errmsg *msg)
{
    struct hd_kb__term_ref ref;
    enum hd_err err = hd_kb__term_find(store, entry->text, entry->len, &ref, msg);
    if (!err && !ref.id) {
        sqlite3_stmt *st = hd_kb__stmt(store, HD_KB__ST_TERM_INSERT,
                                       "INSERT INTO terms(text, df) VALUES(?1, 0)", msg);
        if (!st)
            return HD_ERR_IO;
        sqlite3_bind_text(st, 1, entry->text, (int)entry->len, SQLITE_STATIC);
        err = hd_kb__run(store, st, msg);
        ref.id = sqlite3_last_insert_rowid(store->db);
    }
    entry->id = ref.id;
    return err;
}

static enum hd_err find_entry(struct hd_kb__indexer *ix, struct entry **out, const char *text,
                              size_t len, struct hd_errmsg *msg)
{
    if (ix->n * 2 >= ix->cap && grow(ix))
        return HD_ERR_NOMEM;
    struct entry *entry = slot_of(ix->entries, ix->cap, text, len);
    *out = entry;
    if (entry->text)
        return HD_OK;
    entry->text = strndup(text, len);
    if (!entry->text)
        return HD_ERR_NOMEM;
    entry->len = (uint32_t)len;
    ix->n++;
    return resolve(ix->store, entry, msg);
}

static enum hd_err note_id(struct hd_kb__indexer *ix, int64_t id)
{
    if (ix->n_id == ix->cap_id) {
        size_t cap = ix->cap_id ? ix->cap_id * 2 : 256;
        int64_t *ids = realloc(ix->ids, cap * sizeof *ids);
        if (!ids)
            return HD_ERR_NOMEM;
        ix->ids = ids;
        ix->cap_id = cap;
    }
    ix->ids[ix->n_id++] = id;
    return HD_OK;
}

static enum hd_err count_terms(struct hd_kb__indexer *ix, int64_t chunk,
                               const struct hd_kb__terms *terms, bool heading,
                               struct hd_errmsg *msg)
{
    for (size_t i = 0; i < terms->n; i++) {
        struct entry *entry;
        enum hd_err err =
            find_entry(ix, &entry, hd_kb__term_text(terms, i), terms->items[i].len, msg);
        if (err)
            return err;
        if (!entry->n || entry->postings[entry->n - 1].chunk != chunk) {
            if (entry->n == entry->cap) {
                size_t cap = entry->cap ? entry->cap * 2 : 2;
                struct posting *postings = realloc(entry->postings, cap * sizeof *postings);
                if (!postings)
                    return HD_ERR_NOMEM;
                entry->postings = postings;
                entry->cap = cap;
            }
            entry->postings[entry->n++] = (struct posting){.chunk = chunk};
            if (note_id(ix, entry->id))
                return HD_ERR_NOMEM;
        }
        struct posting *p = &entry->postings[entry->n - 1];
        if (heading)
            p->n_heading++;
        else
            p->n_text++;
    }
    return HD_OK;
}

static int by_id(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return x < y ? -1 : x > y;
}

enum hd_err hd_kb__indexer_add(struct hd_kb__indexer *ix, int64_t chunk,
                               const struct hd_kb__terms *text, const struct hd_kb__terms *heading,
                               struct hd_errmsg *msg)
{
    ix->n_id = 0;
    enum hd_err err = count_terms(ix, chunk, text, false, msg);
    if (!err)
        err = count_terms(ix, chunk, heading, true, msg);
    if (err)
        return err;
    struct hd_buf list;
    hd_buf_init(&list, BLOB_MAX * 16);
    if (ix->n_id)
        qsort(ix->ids, ix->n_id, sizeof *ix->ids, by_id);
    for (size_t i = 0; i < ix->n_id; i++)
        hd_kb__put_varint(&list, (uint64_t)(ix->ids[i] - (i ? ix->ids[i - 1] : 0)));
    sqlite3_stmt *st = hd_kb__stmt(ix->store, HD_KB__ST_FWD_PUT,
                                   "INSERT INTO chunk_terms(chunk, data) VALUES(?1, ?2)", msg);
    err = list.err ? list.err : st ? HD_OK : HD_ERR_IO;
    if (!err) {
        sqlite3_bind_int64(st, 1, chunk);
        sqlite3_bind_blob(st, 2, hd_buf_str(&list), (int)list.len, SQLITE_STATIC);
        err = hd_kb__run(ix->store, st, msg);
    }
    hd_buf_dispose(&list);
    return err;
}

/* --- blobs -------------------------------------------------------------------------------- */

static enum hd_err put_posting(struct hd_buf *blob, int64_t *last, const struct posting *p)
{
    hd_kb__put_varint(blob, (uint64_t)(p->chunk - *last));
    hd_kb__put_varint(blob, (uint64_t)p->n_text * 2 + (p->n_heading > 0));
    if (p->n_heading)
        hd_kb__put_varint(blob, p->n_heading);
    *last = p->chunk;
    return blob->err;
}

/* Reads the posting at *at; false at the end or where the blob is malformed. */
static bool get_posting(struct posting *p, int64_t *last, size_t *at, const unsigned char *blob,
                        size_t len)
{
    uint64_t delta, counts, heading = 0;
    size_t n, i = *at;
    if (!(n = hd_kb__get_varint(&delta, blob + i, len - i)))
        return false;
    i += n;
    if (!(n = hd_kb__get_varint(&counts, blob + i, len - i)))
        return false;
    i += n;
    if (counts & 1) {
        if (!(n = hd_kb__get_varint(&heading, blob + i, len - i)))
            return false;
        i += n;
    }
    *at = i;
    *last += (int64_t)delta;
    *p = (struct posting){*last, (uint32_t)(counts >> 1), (uint32_t)heading};
    return true;
}

static int64_t block_begin(int64_t block)
{
    return block * HD_KB__BLOCK;
}

/* The blob of a term's block, appended to out (nothing where there is none). */
static enum hd_err read_blob(struct hd_kb__store *store, int64_t term, int64_t block,
                             struct hd_buf *out, struct hd_errmsg *msg)
{
    sqlite3_stmt *st = hd_kb__stmt(store, HD_KB__ST_POST_GET,
                                   "SELECT data FROM postings WHERE term = ?1 AND block = ?2", msg);
    if (!st)
        return HD_ERR_IO;
    sqlite3_bind_int64(st, 1, term);
    sqlite3_bind_int64(st, 2, block);
    int rc = sqlite3_step(st);
    if (rc == SQLITE_ROW && sqlite3_column_bytes(st, 0))
        hd_buf_append(out, sqlite3_column_blob(st, 0), (size_t)sqlite3_column_bytes(st, 0));
    enum hd_err err =
        rc == SQLITE_ROW || rc == SQLITE_DONE ? out->err : hd_kb__sql_fail(store, msg);
    sqlite3_reset(st);
    return err;
}

/* Writes a block's blob, or deletes the row where it is empty. */
static enum hd_err write_blob(struct hd_kb__store *store, int64_t term, int64_t block,
                              const struct hd_buf *blob, struct hd_errmsg *msg)
{
    sqlite3_stmt *st =
        blob->len ? hd_kb__stmt(store, HD_KB__ST_POST_PUT,
                                "INSERT INTO postings(term, block, data) VALUES(?1, ?2, ?3) "
                                "ON CONFLICT(term, block) DO UPDATE SET data = excluded.data",
                                msg)
                  : hd_kb__stmt(store, HD_KB__ST_POST_DELETE,
                                "DELETE FROM postings WHERE term = ?1 AND block = ?2", msg);
    if (!st)
        return HD_ERR_IO;
    sqlite3_bind_int64(st, 1, term);
    sqlite3_bind_int64(st, 2, block);
    if (blob->len)
        sqlite3_bind_blob(st, 3, blob->data, (int)blob->len, SQLITE_STATIC);
    return hd_kb__run(store, st, msg);
}

static enum hd_err change_df(struct hd_kb__store *store, int64_t term, int64_t by,
                             struct hd_errmsg *msg)
{
    sqlite3_stmt *st =
        hd_kb__stmt(store, HD_KB__ST_TERM_DF, "UPDATE terms SET df = df + ?2 WHERE id = ?1", msg);
    if (!st)
        return HD_ERR_IO;
    sqlite3_bind_int64(st, 1, term);
    sqlite3_bind_int64(st, 2, by);
    enum hd_err err = hd_kb__run(store, st, msg);
    if (err || by >= 0)
        return err;
    st = hd_kb__stmt(store, HD_KB__ST_TERM_DELETE, "DELETE FROM terms WHERE id = ?1 AND df <= 0",
                     msg);
    if (!st)
        return HD_ERR_IO;
    sqlite3_bind_int64(st, 1, term);
    return hd_kb__run(store, st, msg);
}

/* Appends the entry's postings [from, to), all of one block, to what the base has. */
static enum hd_err flush_block(struct hd_kb__store *store, const struct entry *entry, size_t from,
                               size_t to, struct hd_errmsg *msg)
{
    int64_t block = entry->postings[from].chunk / HD_KB__BLOCK, last = block_begin(block);
    struct hd_buf blob;
    hd_buf_init(&blob, BLOB_MAX);
    enum hd_err err = read_blob(store, entry->id, block, &blob, msg);
    struct posting p;
    for (size_t at = 0; !err && at < blob.len;)
        if (!get_posting(&p, &last, &at, (unsigned char *)blob.data, blob.len))
            err = hd_fail(msg, HD_ERR_FORMAT, "%s/kb.db: postings are damaged", store->folder);
    for (size_t i = from; i < to && !err; i++)
        err = put_posting(&blob, &last, &entry->postings[i]);
    if (!err)
        err = write_blob(store, entry->id, block, &blob, msg);
    hd_buf_dispose(&blob);
    return err;
}

static int by_term(const void *a, const void *b)
{
    int64_t x = (*(struct entry *const *)a)->id, y = (*(struct entry *const *)b)->id;
    return x < y ? -1 : x > y;
}

enum hd_err hd_kb__indexer_flush(struct hd_kb__indexer *ix, struct hd_errmsg *msg)
{
    /* In order of id, which is the order of the table. */
    struct entry **order = malloc((ix->n ? ix->n : 1) * sizeof *order);
    if (!order)
        return HD_ERR_NOMEM;
    size_t n = 0;
    for (size_t i = 0; i < ix->cap; i++)
        if (ix->entries[i].text && ix->entries[i].n)
            order[n++] = &ix->entries[i];
    qsort(order, n, sizeof *order, by_term);
    enum hd_err err = HD_OK;
    for (size_t i = 0; i < n && !err; i++) {
        const struct entry *entry = order[i];
        for (size_t from = 0, to; from < entry->n && !err; from = to) {
            int64_t block = entry->postings[from].chunk / HD_KB__BLOCK;
            for (to = from + 1; to < entry->n; to++)
                if (entry->postings[to].chunk / HD_KB__BLOCK != block)
                    break;
            err = flush_block(ix->store, entry, from, to, msg);
        }
        if (!err)
            err = change_df(ix->store, entry->id, (int64_t)entry->n, msg);
    }
    free(order);
    clear(ix);
    return err;
}

/* --- removing and reading ----------------------------------------------------------------- */

static enum hd_err remove_posting(struct hd_kb__store *store, int64_t term, int64_t chunk,
                                  struct hd_errmsg *msg)
{
    int64_t block = chunk / HD_KB__BLOCK;
    struct hd_buf blob, kept;
    hd_buf_init(&blob, BLOB_MAX);
    hd_buf_init(&kept, BLOB_MAX);
    enum hd_err err = read_blob(store, term, block, &blob, msg);
    int64_t last = block_begin(block), last_kept = last;
    struct posting p;
    bool found = false;
    for (size_t at = 0; !err && at < blob.len;) {
        if (!get_posting(&p, &last, &at, (unsigned char *)blob.data, blob.len))
            err = hd_fail(msg, HD_ERR_FORMAT, "%s/kb.db: postings are damaged", store->folder);
        else if (p.chunk == chunk)
            found = true;
        else
            err = put_posting(&kept, &last_kept, &p);
    }
    if (!err && found)
        err = write_blob(store, term, block, &kept, msg);
    if (!err && found)
        err = change_df(store, term, -1, msg);
    hd_buf_dispose(&blob);
    hd_buf_dispose(&kept);
    return err;
}

enum hd_err hd_kb__index_remove(struct hd_kb__store *store, int64_t chunk, struct hd_errmsg *msg)
{
    sqlite3_stmt *st =
        hd_kb__stmt(store, HD_KB__ST_FWD_GET, "SELECT data FROM chunk_terms WHERE chunk = ?1", msg);
    if (!st)
        return HD_ERR_IO;
    sqlite3_bind_int64(st, 1, chunk);
    struct hd_buf list;
    hd_buf_init(&list, BLOB_MAX * 16);
    int rc = sqlite3_step(st);
    if (rc == SQLITE_ROW && sqlite3_column_bytes(st, 0))
        hd_buf_append(&list, sqlite3_column_blob(st, 0), (size_t)sqlite3_column_bytes(st, 0));
    enum hd_err err =
        rc == SQLITE_ROW || rc == SQLITE_DONE ? list.err : hd_kb__sql_fail(store, msg);
    sqlite3_reset(st);
    int64_t term = 0;
    for (size_t at = 0; !err && at < list.len;) {
        uint64_t delta;
        size_t n = hd_kb__get_varint(&delta, (unsigned char *)list.data + at, list.len - at);
        if (!n) {
            err = hd_fail(msg, HD_ERR_FORMAT, "%s/kb.db: a chunk's term list is damaged",
                          store->folder);
            break;
        }
        at += n;
        term += (int64_t)delta;
        err = remove_posting(store, term, chunk, msg);
    }
    hd_buf_dispose(&list);
    st = err ? NULL
             : hd_kb__stmt(store, HD_KB__ST_FWD_DELETE, "DELETE FROM chunk_terms WHERE chunk = ?1",
                           msg);
    if (!st)
        return err ? err : HD_ERR_IO;
    sqlite3_bind_int64(st, 1, chunk);
    return hd_kb__run(store, st, msg);
}

enum hd_err hd_kb__postings(struct hd_kb__store *store, int64_t term, hd_kb__posting_fn fn,
                            void *ud, struct hd_errmsg *msg)
{
    sqlite3_stmt *st = hd_kb__stmt(store, HD_KB__ST_POST_SCAN,
                                   "SELECT block, data FROM postings WHERE term = ?1", msg);
    if (!st)
        return HD_ERR_IO;
    sqlite3_bind_int64(st, 1, term);
    int rc;
    while ((rc = sqlite3_step(st)) == SQLITE_ROW) {
        const unsigned char *blob = sqlite3_column_blob(st, 1);
        size_t len = (size_t)sqlite3_column_bytes(st, 1), at = 0;
        int64_t last = block_begin(sqlite3_column_int64(st, 0));
        struct posting p;
        while (at < len && get_posting(&p, &last, &at, blob, len))
            fn(ud, p.chunk, p.n_text, p.n_heading);
    }
    enum hd_err err = rc == SQLITE_DONE ? HD_OK : hd_kb__sql_fail(store, msg);
    sqlite3_reset(st);
    return err;
}
