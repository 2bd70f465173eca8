/* The file behind a base: DIR/<tenant>/<name>/kb.db (SQLite, WAL, synchronous=FULL) and its lock.
 *
 * Invariants, checked by hd_kb__store_check:
 *   1. every chunk belongs to a document; its byte range lies within the document's text;
 *   2. terms.df = number of chunks in the term's postings; no term without postings;
 *   3. chunk_terms of a chunk lists exactly the terms whose postings hold the chunk;
 *   4. meta.version grew by one with every commit that changed anything. */
#ifndef HD_KB_STORE_H
#define HD_KB_STORE_H

#include <stdbool.h>
#include <stdint.h>

#include <sqlite3.h>

#include "base/error.h"
#include "holdfast/principal.h"

enum {
    HD_KB__APPLICATION_ID = 0x48444B42, /* "HDKB" */
    HD_KB__SCHEMA_VERSION = 1
};

/* One connection; used by one thread at a time. */
struct hd_kb__store {
    sqlite3 *db;
    char *folder;                 /* owned: DIR/<tenant>/<name> */
    int lock;                     /* flock held by a writer, or -1 */
    sqlite3_stmt *statements[64]; /* prepared once, by the slot the caller chose */
};

enum hd_kb__store_mode {
    HD_KB__READ,  /* NOTFOUND where there is no base */
    HD_KB__WRITE, /* takes the lock (BUSY) and migrates an older file */
    HD_KB__CREATE /* WRITE, and makes it where absent */
};
enum hd_err hd_kb__store_open(struct hd_kb__store *out, const char *folder,
                              enum hd_kb__store_mode mode, struct hd_errmsg *msg);
void hd_kb__store_close(struct hd_kb__store *store);

/* DIR/<tenant>/<name>, after both names were checked. *out is owned. */
enum hd_err hd_kb__folder(char **out, const char *dir, const struct hd_principal *who,
                          const char *name, struct hd_errmsg *msg);

/* A statement kept in a slot (each slot always with the same text), reset and cleared; NULL with
 * the sentence where it cannot be prepared. */
enum {
    HD_KB__ST_BEGIN,
    HD_KB__ST_COMMIT,
    HD_KB__ST_ROLLBACK,
    HD_KB__ST_VERSION,
    HD_KB__ST_VERSION_UP,
    HD_KB__ST_DOC_FIND,
    HD_KB__ST_DOC_INSERT,
    HD_KB__ST_DOC_DELETE,
    HD_KB__ST_DOC_GROUPS,
    HD_KB__ST_DOC_GET,
    HD_KB__ST_DOC_LIST,
    HD_KB__ST_DOC_TEXT,
    HD_KB__ST_CHUNK_INSERT,
    HD_KB__ST_CHUNK_DELETE,
    HD_KB__ST_CHUNK_IDS,
    HD_KB__ST_CHUNK_ALL,
    HD_KB__ST_CHUNK_GET,
    HD_KB__ST_TERM_FIND,
    HD_KB__ST_TERM_INSERT,
    HD_KB__ST_TERM_DF,
    HD_KB__ST_TERM_DELETE,
    HD_KB__ST_POST_GET,
    HD_KB__ST_POST_PUT,
    HD_KB__ST_POST_DELETE,
    HD_KB__ST_POST_SCAN,
    HD_KB__ST_FWD_GET,
    HD_KB__ST_FWD_PUT,
    HD_KB__ST_FWD_DELETE,
};
sqlite3_stmt *hd_kb__stmt(struct hd_kb__store *store, int slot, const char *sql,
                          struct hd_errmsg *msg);
/* Runs a statement that gives no rows, and resets it. */
enum hd_err hd_kb__run(struct hd_kb__store *store, sqlite3_stmt *statement, struct hd_errmsg *msg);
enum hd_err hd_kb__exec(struct hd_kb__store *store, const char *sql, struct hd_errmsg *msg);
/* The error of the last call on the connection, as a sentence. */
enum hd_err hd_kb__sql_fail(struct hd_kb__store *store, struct hd_errmsg *msg);

enum hd_err hd_kb__begin(struct hd_kb__store *store, bool write, struct hd_errmsg *msg);
/* Counts the version up and commits. */
enum hd_err hd_kb__commit_write(struct hd_kb__store *store, int64_t *version,
                                struct hd_errmsg *msg);
void hd_kb__end_read(struct hd_kb__store *store);
void hd_kb__rollback(struct hd_kb__store *store);
enum hd_err hd_kb__version(struct hd_kb__store *store, int64_t *out, struct hd_errmsg *msg);
/* Empties the write-ahead log, so that nothing removed is left in it. */
enum hd_err hd_kb__checkpoint(struct hd_kb__store *store, struct hd_errmsg *msg);

/* Checks the invariants; INTERNAL with a sentence that names the broken one. Slow. */
enum hd_err hd_kb__store_check(struct hd_kb__store *store, struct hd_errmsg *msg);

#endif
