/* Opening, schema, transactions. See store.h. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/utf8.h"
#include "kb/store.h"

static const char schema_1[] =
    "CREATE TABLE meta(key TEXT PRIMARY KEY, value) WITHOUT ROWID;"
    "CREATE TABLE migrations(version INTEGER PRIMARY KEY, applied INTEGER NOT NULL);"
    "CREATE TABLE documents("
    " id INTEGER PRIMARY KEY AUTOINCREMENT, tenant TEXT NOT NULL, name TEXT NOT NULL,"
    " revision TEXT NOT NULL, format TEXT NOT NULL, groups TEXT NOT NULL, title TEXT NOT NULL,"
    " n_page INTEGER NOT NULL, n_chunk INTEGER NOT NULL, n_codepoint INTEGER NOT NULL,"
    " added INTEGER NOT NULL, text TEXT NOT NULL, UNIQUE(tenant, name));"
    "CREATE TABLE chunks("
    " id INTEGER PRIMARY KEY AUTOINCREMENT, doc INTEGER NOT NULL REFERENCES documents(id),"
    " ordinal INTEGER NOT NULL, cp_begin INTEGER NOT NULL, cp_end INTEGER NOT NULL,"
    " at INTEGER NOT NULL, len INTEGER NOT NULL, page INTEGER NOT NULL,"
    " n_term INTEGER NOT NULL, heading TEXT NOT NULL);"
    "CREATE INDEX chunks_doc ON chunks(doc);"
    "CREATE TABLE terms(id INTEGER PRIMARY KEY AUTOINCREMENT, text TEXT NOT NULL UNIQUE,"
    " df INTEGER NOT NULL);"
    "CREATE TABLE postings(term INTEGER NOT NULL, block INTEGER NOT NULL, data BLOB NOT NULL,"
    " PRIMARY KEY(term, block)) WITHOUT ROWID;"
    "CREATE TABLE chunk_terms(chunk INTEGER PRIMARY KEY, data BLOB NOT NULL);"
    "INSERT INTO meta VALUES('version', 0);";

/* migrations[i] brings version i to i + 1. */
static const char *const migrations[HD_KB__SCHEMA_VERSION] = {schema_1};

/* --- names -------------------------------------------------------------------------------- */

static enum hd_err check_name(const char *what, const char *name, struct hd_errmsg *msg)
{
    size_t len = strlen(name), n = 0;
    bool good = len > 0 && name[0] != '.' && hd_utf8_valid(name, len);
    for (const char *p = name; good && *p; p++) {
        unsigned char c = (unsigned char)*p;
        n += (c & 0xC0) != 0x80;
        good = c >= 0x80 || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
               (c >= '0' && c <= '9') || c == '-' || c == '_' || c == '.';
    }
    if (good && n <= 64 && len <= 200)
        return HD_OK;
    return hd_fail(msg, HD_ERR_INVALID,
                   "%s \"%.80s\": not a usable name (1 to 64 letters, digits, '-', '_' or '.', "
                   "not beginning with a dot)",
                   what, name);
}

enum hd_err hd_kb__folder(char **out, const char *dir, const struct hd_principal *who,
                          const char *name, struct hd_errmsg *msg)
{
    *out = NULL;
    enum hd_err err = check_name("tenant", who->tenant, msg);
    if (!err)
        err = check_name("knowledge base", name, msg);
    if (err)
        return err;
    char *tenant = hd_path_join(dir, who->tenant);
    if (tenant)
        *out = hd_path_join(tenant, name);
    free(tenant);
    return *out ? HD_OK : hd_fail(msg, HD_ERR_NOMEM, "%s", hd_err_text(HD_ERR_NOMEM));
}

/* --- statements --------------------------------------------------------------------------- */

enum hd_err hd_kb__sql_fail(struct hd_kb__store *store, struct hd_errmsg *msg)
{
    int code = store->db ? sqlite3_errcode(store->db) & 0xFF : SQLITE_NOMEM;
    enum hd_err err = code == SQLITE_NOMEM                              ? HD_ERR_NOMEM
                      : code == SQLITE_BUSY || code == SQLITE_LOCKED    ? HD_ERR_BUSY
                      : code == SQLITE_CORRUPT || code == SQLITE_NOTADB ? HD_ERR_FORMAT
                                                                        : HD_ERR_IO;
    return hd_fail(msg, err, "%s/kb.db: %s", store->folder ? store->folder : "?",
                   store->db ? sqlite3_errmsg(store->db) : "out of memory");
}

sqlite3_stmt *hd_kb__stmt(struct hd_kb__store *store, int slot, const char *sql,
                          struct hd_errmsg *msg)
{
    sqlite3_stmt **kept = &store->statements[slot];
    if (*kept) {
        sqlite3_reset(*kept);
        sqlite3_clear_bindings(*kept);
    } else if (sqlite3_prepare_v3(store->db, sql, -1, SQLITE_PREPARE_PERSISTENT, kept, NULL)) {
        hd_kb__sql_fail(store, msg);
        return NULL;
    }
    return *kept;
}

enum hd_err hd_kb__run(struct hd_kb__store *store, sqlite3_stmt *statement, struct hd_errmsg *msg)
{
    if (!statement)
        return HD_ERR_IO; /* hd_kb__stmt has written the sentence */
    int rc = sqlite3_step(statement);
    enum hd_err err = rc == SQLITE_DONE || rc == SQLITE_ROW ? HD_OK : hd_kb__sql_fail(store, msg);
    sqlite3_reset(statement);
    return err;
}

enum hd_err hd_kb__exec(struct hd_kb__store *store, const char *sql, struct hd_errmsg *msg)
{
    return sqlite3_exec(store->db, sql, NULL, NULL, NULL) ? hd_kb__sql_fail(store, msg) : HD_OK;
}

static int64_t pragma(struct hd_kb__store *store, const char *sql)
{
    sqlite3_stmt *statement = NULL;
    int64_t value = -1;
    if (!sqlite3_prepare_v2(store->db, sql, -1, &statement, NULL) &&
        sqlite3_step(statement) == SQLITE_ROW)
        value = sqlite3_column_int64(statement, 0);
    sqlite3_finalize(statement);
    return value;
}

/* --- opening ------------------------------------------------------------------------------ */

static enum hd_err take_lock(struct hd_kb__store *store, struct hd_errmsg *msg)
{
    char *path = hd_path_join(store->folder, "lock");
    if (!path)
        return hd_fail(msg, HD_ERR_NOMEM, "%s", hd_err_text(HD_ERR_NOMEM));
    store->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    enum hd_err err = HD_OK;
    if (store->lock < 0)
        err = hd_fail(msg, HD_ERR_IO, "%s: %s", path, strerror(errno));
    else if (flock(store->lock, LOCK_EX | LOCK_NB))
        err = hd_fail(msg, HD_ERR_BUSY,
                      "%s: somebody else is writing to this knowledge base (try again when they "
                      "are done)",
                      store->folder);
    free(path);
    return err;
}

static enum hd_err migrate(struct hd_kb__store *store, int64_t from, struct hd_errmsg *msg)
{
    enum hd_err err = hd_kb__exec(store, "BEGIN IMMEDIATE", msg);
    for (int64_t v = from; v < HD_KB__SCHEMA_VERSION && !err; v++) {
        char sql[160];
        err = hd_kb__exec(store, migrations[v], msg);
        sqlite3_snprintf(sizeof sql, sql,
                         "INSERT INTO migrations VALUES(%lld, %lld); PRAGMA user_version = %lld;",
                         (long long)v + 1, (long long)hd_clock_unix(), (long long)v + 1);
        if (!err)
            err = hd_kb__exec(store, sql, msg);
    }
    if (!err)
        err = hd_kb__exec(store, "COMMIT", msg);
    else
        sqlite3_exec(store->db, "ROLLBACK", NULL, NULL, NULL);
    return err;
}

static enum hd_err check_schema(struct hd_kb__store *store, bool write, bool fresh,
                                struct hd_errmsg *msg)
{
    if (fresh) {
        char sql[64];
        sqlite3_snprintf(sizeof sql, sql, "PRAGMA application_id = %d", HD_KB__APPLICATION_ID);
        enum hd_err err = hd_kb__exec(store, sql, msg);
        return err ? err : migrate(store, 0, msg);
    }
    int64_t id = pragma(store, "PRAGMA application_id");
    int64_t version = pragma(store, "PRAGMA user_version");
    if (id < 0 || version < 0)
        return hd_kb__sql_fail(store, msg);
    if (id != HD_KB__APPLICATION_ID || version < 1)
        return hd_fail(msg, HD_ERR_FORMAT, "%s/kb.db: not a knowledge base", store->folder);
    if (version > HD_KB__SCHEMA_VERSION)
        return hd_fail(msg, HD_ERR_UNSUPPORTED,
                       "%s/kb.db: made by a newer Holdfast (schema %lld, this one reads up to %d)",
                       store->folder, (long long)version, HD_KB__SCHEMA_VERSION);
    if (version < HD_KB__SCHEMA_VERSION && !write)
        return hd_fail(msg, HD_ERR_UNSUPPORTED,
                       "%s/kb.db: schema %lld is older than this Holdfast's (holdfast kb add "
                       "brings it up to date)",
                       store->folder, (long long)version);
    return version < HD_KB__SCHEMA_VERSION ? migrate(store, version, msg) : HD_OK;
}

enum hd_err hd_kb__store_open(struct hd_kb__store *store, const char *folder,
                              enum hd_kb__store_mode mode, struct hd_errmsg *msg)
{
    memset(store, 0, sizeof *store);
    store->lock = -1;
    store->folder = strdup(folder);
    char *path = hd_path_join(folder, "kb.db");
    enum hd_err err = store->folder && path ? HD_OK : HD_ERR_NOMEM;
    bool exists = path && hd_path_exists(path);
    if (!err && !exists && mode != HD_KB__CREATE)
        err = hd_fail(msg, HD_ERR_NOTFOUND, "%s: no such knowledge base", folder);
    if (!err && mode == HD_KB__CREATE)
        err = hd_mkdirs(folder, msg);
    if (!err && mode != HD_KB__READ)
        err = take_lock(store, msg);
    if (err)
        goto out;
    exists = hd_path_exists(path); /* somebody may have made it before we had the lock */
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | (exists ? 0 : SQLITE_OPEN_CREATE);
    if (sqlite3_open_v2(path, &store->db, flags, NULL)) {
        err = hd_kb__sql_fail(store, msg);
        goto out;
    }
    sqlite3_busy_timeout(store->db, 5000);
    if (!exists)
        err = hd_kb__exec(store, "PRAGMA journal_mode = WAL", msg);
    if (!err)
        err = hd_kb__exec(store,
                          "PRAGMA synchronous = FULL; PRAGMA secure_delete = ON;"
                          "PRAGMA cache_size = -32768; PRAGMA temp_store = MEMORY",
                          msg);
    if (!err)
        err = check_schema(store, mode != HD_KB__READ, !exists, msg);
out:
    free(path);
    if (err)
        hd_kb__store_close(store);
    return err;
}

void hd_kb__store_close(struct hd_kb__store *store)
{
    for (size_t i = 0; i < sizeof store->statements / sizeof *store->statements; i++)
        sqlite3_finalize(store->statements[i]);
    sqlite3_close(store->db);
    if (store->lock >= 0)
        close(store->lock);
    free(store->folder);
    memset(store, 0, sizeof *store);
    store->lock = -1;
}

/* --- transactions ------------------------------------------------------------------------- */

enum hd_err hd_kb__begin(struct hd_kb__store *store, bool write, struct hd_errmsg *msg)
{
    return hd_kb__exec(store, write ? "BEGIN IMMEDIATE" : "BEGIN", msg);
}

enum hd_err hd_kb__version(struct hd_kb__store *store, int64_t *out, struct hd_errmsg *msg)
{
    sqlite3_stmt *statement =
        hd_kb__stmt(store, HD_KB__ST_VERSION, "SELECT value FROM meta WHERE key = 'version'", msg);
    if (!statement)
        return HD_ERR_IO;
    enum hd_err err = HD_OK;
    if (sqlite3_step(statement) == SQLITE_ROW)
        *out = sqlite3_column_int64(statement, 0);
    else
        err = hd_kb__sql_fail(store, msg);
    sqlite3_reset(statement);
    return err;
}

enum hd_err hd_kb__commit_write(struct hd_kb__store *store, int64_t *version, struct hd_errmsg *msg)
{
    enum hd_err err =
        hd_kb__run(store,
                   hd_kb__stmt(store, HD_KB__ST_VERSION_UP,
                               "UPDATE meta SET value = value + 1 WHERE key = 'version'", msg),
                   msg);
    if (!err)
        err = hd_kb__version(store, version, msg);
    if (!err)
        err = hd_kb__exec(store, "COMMIT", msg);
    if (err)
        hd_kb__rollback(store);
    return err;
}

static void reset_all(struct hd_kb__store *store)
{
    for (size_t i = 0; i < sizeof store->statements / sizeof *store->statements; i++)
        sqlite3_reset(store->statements[i]);
}

void hd_kb__end_read(struct hd_kb__store *store)
{
    reset_all(store);
    if (store->db && !sqlite3_get_autocommit(store->db))
        sqlite3_exec(store->db, "COMMIT", NULL, NULL, NULL);
}

void hd_kb__rollback(struct hd_kb__store *store)
{
    reset_all(store);
    if (store->db && !sqlite3_get_autocommit(store->db))
        sqlite3_exec(store->db, "ROLLBACK", NULL, NULL, NULL);
}

enum hd_err hd_kb__checkpoint(struct hd_kb__store *store, struct hd_errmsg *msg)
{
    reset_all(store);
    int rc = sqlite3_wal_checkpoint_v2(store->db, NULL, SQLITE_CHECKPOINT_TRUNCATE, NULL, NULL);
    if (rc == SQLITE_BUSY) /* a reader holds an older version; its end lets the next one do it */
        return hd_fail(msg, HD_ERR_BUSY, "%s/kb.db: a reader still holds the version before",
                       store->folder);
    return rc ? hd_kb__sql_fail(store, msg) : HD_OK;
}
