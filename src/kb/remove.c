/* Removing documents, and the check that nothing of them stays. */
#include <string.h>

#include "kb/index.h"
#include "kb/write.h"

/* The id of a document that the principal may see: by name, or where name is NULL by id. */
static enum hd_err find(struct hd_kb *kb, const struct hd_principal *who, const char *name,
                        int64_t *id, struct hd_errmsg *msg)
{
    pthread_mutex_lock(&kb->mu);
    sqlite3_stmt *st = hd_kb__stmt(&kb->store, HD_KB__ST_DOC_GET,
                                   "SELECT id, groups FROM documents "
                                   "WHERE tenant = ?1 AND (name = ?2 OR id = ?3)",
                                   msg);
    enum hd_err err = st ? HD_OK : HD_ERR_IO;
    if (st) {
        sqlite3_bind_text(st, 1, kb->tenant, -1, SQLITE_STATIC);
        if (name)
            sqlite3_bind_text(st, 2, name, -1, SQLITE_STATIC);
        else
            sqlite3_bind_int64(st, 3, *id);
        int rc = sqlite3_step(st);
        if (rc == SQLITE_ROW && hd_kb__may_see((const char *)sqlite3_column_text(st, 1), who))
            *id = sqlite3_column_int64(st, 0);
        else if (rc != SQLITE_ROW && rc != SQLITE_DONE)
            err = hd_kb__sql_fail(&kb->store, msg);
        else if (name)
            err = hd_fail(msg, HD_ERR_NOTFOUND,
                          "%.200s: no such document (holdfast kb list shows the names)", name);
        else
            err = hd_fail(msg, HD_ERR_NOTFOUND, "document %lld: there is none", (long long)*id);
        sqlite3_reset(st);
    }
    pthread_mutex_unlock(&kb->mu);
    return err;
}

static enum hd_err remove_found(struct hd_kb *kb, int64_t id, struct hd_errmsg *msg)
{
    struct hd_kb__writer *w = NULL;
    int64_t version;
    enum hd_err err = hd_kb__writer_open(&w, kb, NULL, msg);
    if (!err)
        err = hd_kb__writer_remove(w, id, msg);
    if (!err)
        err = hd_kb__writer_commit(w, &version, msg);
    hd_kb__writer_close(w);
    return err;
}

enum hd_err hd_kb_remove(struct hd_kb *kb, const struct hd_principal *who, const char *name,
                         struct hd_errmsg *msg)
{
    int64_t id = 0;
    enum hd_err err = hd_kb__check_tenant(kb, who, msg);
    if (!err)
        err = find(kb, who, name, &id, msg);
    return err ? err : remove_found(kb, id, msg);
}

enum hd_err hd_kb_remove_id(struct hd_kb *kb, const struct hd_principal *who, int64_t id,
                            struct hd_errmsg *msg)
{
    enum hd_err err = hd_kb__check_tenant(kb, who, msg);
    if (!err)
        err = find(kb, who, NULL, &id, msg);
    return err ? err : remove_found(kb, id, msg);
}

/* --- the invariants of store.h ------------------------------------------------------------ */

static enum hd_err none(struct hd_kb__store *store, const char *what, const char *sql,
                        struct hd_errmsg *msg)
{
    sqlite3_stmt *st = NULL;
    if (sqlite3_prepare_v2(store->db, sql, -1, &st, NULL))
        return hd_kb__sql_fail(store, msg);
    enum hd_err err = HD_OK;
    if (sqlite3_step(st) != SQLITE_ROW)
        err = hd_kb__sql_fail(store, msg);
    else if (sqlite3_column_int64(st, 0))
        err = hd_fail(msg, HD_ERR_INTERNAL, "%s/kb.db: %lld %s", store->folder,
                      (long long)sqlite3_column_int64(st, 0), what);
    sqlite3_finalize(st);
    return err;
}

static void count_posting(void *ud, int64_t chunk, uint32_t n_text, uint32_t n_heading)
{
    int64_t *n = ud;
    n[0]++;
}

static enum hd_err check_terms(struct hd_kb__store *store, int64_t *n_posting,
                               struct hd_errmsg *msg)
{
    sqlite3_stmt *st = NULL;
    if (sqlite3_prepare_v2(store->db, "SELECT id, df FROM terms", -1, &st, NULL))
        return hd_kb__sql_fail(store, msg);
    enum hd_err err = HD_OK;
    while (!err && sqlite3_step(st) == SQLITE_ROW) {
        int64_t n = 0;
        err = hd_kb__postings(store, sqlite3_column_int64(st, 0), count_posting, &n, msg);
        if (!err && (n == 0 || n != sqlite3_column_int64(st, 1)))
            err =
                hd_fail(msg, HD_ERR_INTERNAL, "%s/kb.db: term %lld is counted %lld times, not %lld",
                        store->folder, (long long)sqlite3_column_int64(st, 0),
                        (long long)sqlite3_column_int64(st, 1), (long long)n);
        *n_posting += n;
    }
    sqlite3_finalize(st);
    return err;
}

static enum hd_err check_lists(struct hd_kb__store *store, int64_t n_posting, struct hd_errmsg *msg)
{
    sqlite3_stmt *st = NULL;
    if (sqlite3_prepare_v2(store->db, "SELECT data FROM chunk_terms", -1, &st, NULL))
        return hd_kb__sql_fail(store, msg);
    int64_t n_listed = 0;
    while (sqlite3_step(st) == SQLITE_ROW) {
        const unsigned char *data = sqlite3_column_blob(st, 0);
        size_t len = (size_t)sqlite3_column_bytes(st, 0);
        for (size_t i = 0; i < len; i++)
            n_listed += !(data[i] & 0x80); /* a varint's last byte */
    }
    sqlite3_finalize(st);
    return n_listed == n_posting
               ? HD_OK
               : hd_fail(msg, HD_ERR_INTERNAL, "%s/kb.db: %lld postings, but chunks list %lld",
                         store->folder, (long long)n_posting, (long long)n_listed);
}

enum hd_err hd_kb__store_check(struct hd_kb__store *store, struct hd_errmsg *msg)
{
    static const struct {
        const char *what, *sql;
    } checks[] = {
        {"chunks without a document",
         "SELECT count(*) FROM chunks WHERE doc NOT IN (SELECT id FROM documents)"},
        {"chunks outside their document's text",
         "SELECT count(*) FROM chunks c JOIN documents d ON d.id = c.doc "
         "WHERE c.at < 0 OR c.len <= 0 OR c.at + c.len > length(CAST(d.text AS BLOB)) "
         "OR c.cp_end > d.n_codepoint"},
        {"chunks without a list of terms",
         "SELECT count(*) FROM chunks WHERE id NOT IN (SELECT chunk FROM chunk_terms)"},
        {"lists of terms without a chunk",
         "SELECT count(*) FROM chunk_terms WHERE chunk NOT IN (SELECT id FROM chunks)"},
        {"postings without a term",
         "SELECT count(*) FROM postings WHERE term NOT IN (SELECT id FROM terms)"},
    };
    enum hd_err err = HD_OK;
    for (size_t i = 0; i < sizeof checks / sizeof *checks && !err; i++)
        err = none(store, checks[i].what, checks[i].sql, msg);
    int64_t n_posting = 0;
    if (!err)
        err = check_terms(store, &n_posting, msg);
    return err ? err : check_lists(store, n_posting, msg);
}
