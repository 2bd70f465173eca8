/* Adding documents: walking folders, skipping what is unchanged, parsing, chunking, indexing. */
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/utf8.h"
#include "kb/chunk.h"
#include "kb/index.h"
#include "kb/kb_impl.h"
#include "kb/parse.h"
#include "kb/write.h"

enum {
    FILE_MAX_BYTES = 512 << 20, /* of one file */
    BATCH_CHUNKS = 4000,        /* a commit at least so often … */
    BATCH_SECONDS = 5,          /* … or so */
    DEPTH_MAX = 64              /* of folders */
};

/* --- what is to be added ------------------------------------------------------------------ */

struct file {
    char *path, *name; /* owned */
};
struct files {
    struct file *items;
    size_t n, cap;
};

static void files_dispose(struct files *files)
{
    for (size_t i = 0; i < files->n; i++) {
        free(files->items[i].path);
        free(files->items[i].name);
    }
    free(files->items);
}

static enum hd_err add_file(struct files *files, const char *path, const char *name)
{
    if (files->n == files->cap) {
        size_t cap = files->cap ? files->cap * 2 : 64;
        struct file *items = realloc(files->items, cap * sizeof *items);
        if (!items)
            return HD_ERR_NOMEM;
        files->items = items;
        files->cap = cap;
    }
    struct file file = {strdup(path), strdup(name)};
    if (!file.path || !file.name) {
        free(file.path);
        free(file.name);
        return HD_ERR_NOMEM;
    }
    files->items[files->n++] = file;
    return HD_OK;
}

static int visible(const struct dirent *entry)
{
    return entry->d_name[0] != '.';
}

static enum hd_err walk(struct files *files, const char *path, const char *name, int depth,
                        struct hd_errmsg *msg)
{
    struct dirent **entries = NULL;
    int n = scandir(path, &entries, visible, alphasort);
    if (n < 0)
        return hd_fail(msg, HD_ERR_IO, "%s: %s", path, strerror(errno));
    enum hd_err err = depth > DEPTH_MAX ? hd_fail(msg, HD_ERR_LIMIT, "%s: too deep", path) : HD_OK;
    for (int i = 0; i < n && !err; i++) {
        struct stat st;
        char *sub = hd_path_join(path, entries[i]->d_name);
        char *sub_name =
            name[0] ? hd_path_join(name, entries[i]->d_name) : strdup(entries[i]->d_name);
        if (!sub || !sub_name)
            err = HD_ERR_NOMEM;
        else if (lstat(sub, &st))
            ; /* gone since the listing */
        else if (S_ISDIR(st.st_mode))
            err = walk(files, sub, sub_name, depth + 1, msg);
        else if (S_ISREG(st.st_mode) || (S_ISLNK(st.st_mode) && !hd_path_is_dir(sub)))
            err = add_file(files, sub, sub_name);
        free(sub);
        free(sub_name);
    }
    for (int i = 0; i < n; i++)
        free(entries[i]);
    free(entries);
    return err;
}

static enum hd_err collect(struct files *files, const char *const *paths, size_t n_path,
                           struct hd_errmsg *msg)
{
    enum hd_err err = HD_OK;
    for (size_t i = 0; i < n_path && !err; i++) {
        if (!hd_path_exists(paths[i])) {
            err = hd_fail(msg, HD_ERR_NOTFOUND, "%s: no such file or folder", paths[i]);
        } else if (hd_path_is_dir(paths[i])) {
            err = walk(files, paths[i], "", 0, msg);
        } else {
            const char *slash = strrchr(paths[i], '/');
            err = add_file(files, paths[i], slash ? slash + 1 : paths[i]);
        }
    }
    return err;
}

/* --- one document ------------------------------------------------------------------------- */

struct hd_kb__writer {
    struct hd_kb__store store;
    const struct hd_kb *kb;
    struct hd_kb__indexer *indexer;
    struct hd_kb__analyser *analyser;
    struct hd_kb__terms text, heading;
    char *groups;   /* access list of what is added, one per line */
    size_t n_chunk; /* since the last commit */
    double began;   /* the transaction */
    bool open;      /* a transaction is open */
    bool removed;   /* it deleted something */
    int64_t version;
};

enum hd_err hd_kb__writer_open(struct hd_kb__writer **out, const struct hd_kb *kb,
                               const struct hd_kb_add_options *options, struct hd_errmsg *msg)
{
    *out = NULL;
    struct hd_kb__writer *w = calloc(1, sizeof *w);
    if (!w)
        return HD_ERR_NOMEM;
    w->kb = kb;
    hd_kb__terms_init(&w->text);
    hd_kb__terms_init(&w->heading);
    struct hd_buf groups;
    hd_buf_init(&groups, 65536);
    for (size_t i = 0; options && i < options->n_group; i++)
        hd_buf_printf(&groups, "%s%s", i ? "\n" : "", options->groups[i]);
    w->groups = groups.err ? NULL : strdup(hd_buf_str(&groups));
    hd_buf_dispose(&groups);
    enum hd_err err =
        w->groups ? hd_kb__store_open(&w->store, kb->folder, HD_KB__WRITE, msg) : HD_ERR_NOMEM;
    if (!w->groups)
        w->store.lock = -1;
    if (!err)
        err = hd_kb__analyser_new(&w->analyser);
    if (!err)
        err = hd_kb__indexer_new(&w->indexer, &w->store);
    if (!err)
        err = hd_kb__version(&w->store, &w->version, msg);
    if (err)
        hd_kb__writer_close(w);
    else
        *out = w;
    return err;
}

void hd_kb__writer_close(struct hd_kb__writer *w)
{
    if (!w)
        return;
    hd_kb__rollback(&w->store);
    hd_kb__store_close(&w->store);
    hd_kb__indexer_free(w->indexer);
    hd_kb__analyser_free(w->analyser);
    hd_kb__terms_dispose(&w->text);
    hd_kb__terms_dispose(&w->heading);
    free(w->groups);
    free(w);
}

static enum hd_err begin(struct hd_kb__writer *w, struct hd_errmsg *msg)
{
    if (w->open)
        return HD_OK;
    enum hd_err err = hd_kb__begin(&w->store, true, msg);
    w->open = !err;
    w->began = hd_clock_seconds();
    return err;
}

enum hd_err hd_kb__writer_commit(struct hd_kb__writer *w, int64_t *version, struct hd_errmsg *msg)
{
    enum hd_err err = HD_OK;
    if (w->open) {
        err = hd_kb__indexer_flush(w->indexer, msg);
        if (!err)
            err = hd_kb__commit_write(&w->store, &w->version, msg);
        w->open = false;
        w->n_chunk = 0;
    }
    if (!err && w->removed) {
        /* Committed already: what is left is to wipe the log. */
        if (hd_kb__checkpoint(&w->store, NULL))
            hd_log(HD_LOG_WARN, "kb",
                   "%s: a reader still holds the version before; the log is "
                   "emptied by the next write",
                   w->store.folder);
        w->removed = false;
    }
    *version = w->version;
    return err;
}

static enum hd_err remove_document(struct hd_kb__writer *w, int64_t id, struct hd_errmsg *msg)
{
    /* Terms collected so far may lose their row below: write them first. */
    enum hd_err err = hd_kb__indexer_flush(w->indexer, msg);
    sqlite3_stmt *st = err ? NULL
                           : hd_kb__stmt(&w->store, HD_KB__ST_CHUNK_IDS,
                                         "SELECT id FROM chunks WHERE doc = ?1", msg);
    if (!st)
        return err ? err : HD_ERR_IO;
    sqlite3_bind_int64(st, 1, id);
    int rc;
    while (!err && (rc = sqlite3_step(st)) == SQLITE_ROW)
        err = hd_kb__index_remove(&w->store, sqlite3_column_int64(st, 0), msg);
    if (!err && rc != SQLITE_DONE)
        err = hd_kb__sql_fail(&w->store, msg);
    sqlite3_reset(st);
    static const struct {
        int slot;
        const char *sql;
    } deletes[] = {{HD_KB__ST_CHUNK_DELETE, "DELETE FROM chunks WHERE doc = ?1"},
                   {HD_KB__ST_DOC_DELETE, "DELETE FROM documents WHERE id = ?1"}};
    for (size_t i = 0; i < 2 && !err; i++) {
        st = hd_kb__stmt(&w->store, deletes[i].slot, deletes[i].sql, msg);
        if (st)
            sqlite3_bind_int64(st, 1, id);
        err = hd_kb__run(&w->store, st, msg);
    }
    w->removed = true;
    return err;
}

/* What the base has under a name. */
struct known {
    int64_t id; /* 0 = nothing */
    char revision[65];
    char *groups; /* owned */
};

static enum hd_err find_known(struct hd_kb__writer *w, const char *name, struct known *out,
                              struct hd_errmsg *msg)
{
    memset(out, 0, sizeof *out);
    sqlite3_stmt *st = hd_kb__stmt(&w->store, HD_KB__ST_DOC_FIND,
                                   "SELECT id, revision, groups FROM documents "
                                   "WHERE tenant = ?1 AND name = ?2",
                                   msg);
    if (!st)
        return HD_ERR_IO;
    sqlite3_bind_text(st, 1, w->kb->tenant, -1, SQLITE_STATIC);
    sqlite3_bind_text(st, 2, name, -1, SQLITE_STATIC);
    int rc = sqlite3_step(st);
    enum hd_err err = HD_OK;
    if (rc == SQLITE_ROW) {
        out->id = sqlite3_column_int64(st, 0);
        const char *revision = (const char *)sqlite3_column_text(st, 1);
        const char *groups = (const char *)sqlite3_column_text(st, 2);
        strncpy(out->revision, revision ? revision : "", 64);
        out->groups = strdup(groups ? groups : "");
        err = out->groups ? HD_OK : HD_ERR_NOMEM;
    } else if (rc != SQLITE_DONE) {
        err = hd_kb__sql_fail(&w->store, msg);
    }
    sqlite3_reset(st);
    return err;
}

static enum hd_err insert_document(struct hd_kb__writer *w, const char *name, const char *revision,
                                   const char *format, const struct hd_kb__doc *doc, size_t n_chunk,
                                   int64_t *id, struct hd_errmsg *msg)
{
    sqlite3_stmt *st = hd_kb__stmt(&w->store, HD_KB__ST_DOC_INSERT,
                                   "INSERT INTO documents(tenant, name, revision, format, groups, "
                                   "title, n_page, n_chunk, n_codepoint, added, text) "
                                   "VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
                                   msg);
    if (!st)
        return HD_ERR_IO;
    sqlite3_bind_text(st, 1, w->kb->tenant, -1, SQLITE_STATIC);
    sqlite3_bind_text(st, 2, name, -1, SQLITE_STATIC);
    sqlite3_bind_text(st, 3, revision, -1, SQLITE_STATIC);
    sqlite3_bind_text(st, 4, format, -1, SQLITE_STATIC);
    sqlite3_bind_text(st, 5, w->groups, -1, SQLITE_STATIC);
    sqlite3_bind_text(st, 6, doc->title, -1, SQLITE_STATIC);
    sqlite3_bind_int64(st, 7, doc->n_page);
    sqlite3_bind_int64(st, 8, (int64_t)n_chunk);
    sqlite3_bind_int64(st, 9, (int64_t)hd_utf8_count(doc->text.data, doc->text.len));
    sqlite3_bind_int64(st, 10, hd_clock_unix());
    sqlite3_bind_text(st, 11, doc->text.data, (int)doc->text.len, SQLITE_STATIC);
    enum hd_err err = hd_kb__run(&w->store, st, msg);
    *id = sqlite3_last_insert_rowid(w->store.db);
    return err;
}

static enum hd_err insert_chunk(struct hd_kb__writer *w, int64_t doc, size_t ordinal,
                                const struct hd_kb__chunk *chunk, int64_t *id,
                                struct hd_errmsg *msg)
{
    sqlite3_stmt *st = hd_kb__stmt(&w->store, HD_KB__ST_CHUNK_INSERT,
                                   "INSERT INTO chunks(doc, ordinal, cp_begin, cp_end, at, len, "
                                   "page, n_term, heading) "
                                   "VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
                                   msg);
    if (!st)
        return HD_ERR_IO;
    sqlite3_bind_int64(st, 1, doc);
    sqlite3_bind_int64(st, 2, (int64_t)ordinal);
    sqlite3_bind_int64(st, 3, (int64_t)chunk->cp_begin);
    sqlite3_bind_int64(st, 4, (int64_t)chunk->cp_end);
    sqlite3_bind_int64(st, 5, (int64_t)chunk->begin);
    sqlite3_bind_int64(st, 6, (int64_t)(chunk->end - chunk->begin));
    sqlite3_bind_int64(st, 7, chunk->page);
    sqlite3_bind_int64(st, 8, w->text.n_pos);
    sqlite3_bind_text(st, 9, chunk->heading, -1, SQLITE_STATIC);
    enum hd_err err = hd_kb__run(&w->store, st, msg);
    *id = sqlite3_last_insert_rowid(w->store.db);
    return err;
}

/* The heading field: the file's name without folders and extension, then the heading path. */
static enum hd_err analyse_heading(struct hd_kb__writer *w, const char *name,
                                   const struct hd_kb__chunk *chunk)
{
    const char *slash = strrchr(name, '/');
    const char *stem = slash ? slash + 1 : name;
    const char *dot = strrchr(stem, '.');
    struct hd_buf field;
    hd_buf_init(&field, 65536);
    hd_buf_append(&field, stem, dot && dot > stem ? (size_t)(dot - stem) : strlen(stem));
    hd_buf_putc(&field, '\n');
    hd_buf_puts(&field, chunk->heading);
    enum hd_err err = field.err;
    if (!err)
        err = hd_kb__analyse(w->analyser, &w->heading, field.data, field.len, 0);
    hd_buf_dispose(&field);
    return err;
}

static enum hd_err store_document(struct hd_kb__writer *w, const char *name, const char *revision,
                                  const char *format, const struct hd_kb__doc *doc,
                                  const struct hd_kb__chunks *chunks, int64_t *id,
                                  struct hd_errmsg *msg)
{
    enum hd_err err = insert_document(w, name, revision, format, doc, chunks->n, id, msg);
    for (size_t i = 0; i < chunks->n && !err; i++) {
        const struct hd_kb__chunk *chunk = &chunks->items[i];
        int64_t chunk_id = 0;
        err = hd_kb__analyse(w->analyser, &w->text, doc->text.data + chunk->begin,
                             chunk->end - chunk->begin, 0);
        if (!err)
            err = analyse_heading(w, name, chunk);
        if (!err)
            err = insert_chunk(w, *id, i, chunk, &chunk_id, msg);
        if (!err)
            err = hd_kb__indexer_add(w->indexer, chunk_id, &w->text, &w->heading, msg);
    }
    w->n_chunk += chunks->n;
    return err;
}

static enum hd_err update_groups(struct hd_kb__writer *w, int64_t id, struct hd_errmsg *msg)
{
    enum hd_err err = begin(w, msg);
    sqlite3_stmt *st = err ? NULL
                           : hd_kb__stmt(&w->store, HD_KB__ST_DOC_GROUPS,
                                         "UPDATE documents SET groups = ?2 WHERE id = ?1", msg);
    if (!st)
        return err ? err : HD_ERR_IO;
    sqlite3_bind_int64(st, 1, id);
    sqlite3_bind_text(st, 2, w->groups, -1, SQLITE_STATIC);
    return hd_kb__run(&w->store, st, msg);
}

/* Parses and stores. *fatal: the base itself failed, not the document. */
static enum hd_err ingest(struct hd_kb__writer *w, const char *name, const char *data, size_t len,
                          const char *revision, const struct known *known,
                          struct hd_kb_progress *progress, int64_t *id, bool *fatal,
                          struct hd_errmsg *msg)
{
    const struct hd_kb__format *format = hd_kb__format_of(name);
    struct hd_buf records;
    struct hd_kb__doc doc;
    struct hd_kb__chunks chunks = {0};
    hd_buf_init(&records, HD_KB__TEXT_MAX + (32u << 20));
    hd_kb__doc_init(&doc);
    enum hd_err err = hd_kb__parse(&records, format, data, len, msg);
    if (!err)
        err = hd_kb__doc_read(&doc, hd_buf_str(&records), records.len, msg);
    if (!err)
        err = hd_kb__chunk(&chunks, &doc);
    if (!err) {
        *fatal = true;
        err = begin(w, msg);
        if (!err && known->id)
            err = remove_document(w, known->id, msg);
        if (!err)
            err = store_document(w, name, revision, format->name, &doc, &chunks, id, msg);
        if (!err)
            *fatal = false;
    }
    progress->n_chunk = (int64_t)chunks.n;
    progress->n_page = doc.n_page;
    hd_kb__chunks_dispose(&chunks);
    hd_kb__doc_dispose(&doc);
    hd_buf_dispose(&records);
    return err;
}

/* One document from its bytes; progress gets the outcome. Returns an error only where the base
 * itself failed. */
static enum hd_err add_one(struct hd_kb__writer *w, const char *name, const char *data, size_t len,
                           struct hd_kb_progress *progress, int64_t *id, struct hd_errmsg *text,
                           struct hd_errmsg *msg)
{
    char revision[65];
    struct known known;
    bool fatal = false;
    enum hd_err err = hd_sha256_hex(revision, data, len);
    if (!err)
        err = find_known(w, name, &known, msg);
    if (err)
        return err;
    if (known.id && !strcmp(known.revision, revision)) {
        progress->outcome = HD_KB_UNCHANGED;
        *id = known.id;
        if (strcmp(known.groups, w->groups))
            err = update_groups(w, known.id, msg);
    } else {
        err = ingest(w, name, data, len, revision, &known, progress, id, &fatal, text);
        progress->outcome = known.id ? HD_KB_UPDATED : HD_KB_ADDED;
        if (err && fatal) {
            if (msg)
                *msg = *text;
        } else if (err) {
            if (!text->text[0])
                hd_fail(text, err, "%s", hd_err_text(err));
            progress->outcome = HD_KB_FAILED;
            progress->err = err;
            progress->msg = text->text;
            err = HD_OK;
        }
    }
    free(known.groups);
    return err;
}

static void count(struct hd_kb_add_result *out, enum hd_kb_outcome outcome)
{
    switch (outcome) {
    case HD_KB_ADDED:
        out->n_added++;
        break;
    case HD_KB_UPDATED:
        out->n_updated++;
        break;
    case HD_KB_UNCHANGED:
        out->n_unchanged++;
        break;
    case HD_KB_FAILED:
        out->n_failed++;
        break;
    case HD_KB_SKIPPED:
        out->n_skipped++;
        break;
    }
}

static enum hd_err add_path(struct hd_kb__writer *w, const struct file *file,
                            struct hd_kb_progress *progress, struct hd_errmsg *text,
                            struct hd_errmsg *msg)
{
    char *data = NULL;
    size_t len = 0;
    int64_t id;
    if (!hd_kb__format_of(file->name)) {
        progress->outcome = HD_KB_SKIPPED;
        return HD_OK;
    }
    if (!hd_utf8_valid(file->name, strlen(file->name))) {
        progress->outcome = HD_KB_FAILED;
        progress->err = hd_fail(text, HD_ERR_INVALID, "its name is not UTF-8");
        progress->msg = text->text;
        return HD_OK;
    }
    enum hd_err err = hd_file_read(&data, &len, file->path, FILE_MAX_BYTES, text);
    if (err) {
        progress->outcome = HD_KB_FAILED;
        progress->err = err;
        progress->msg = text->text;
        return HD_OK;
    }
    err = add_one(w, file->name, data, len, progress, &id, text, msg);
    free(data);
    return err;
}

enum hd_err hd_kb_add(struct hd_kb *kb, const struct hd_principal *who, const char *const *paths,
                      size_t n_path, const struct hd_kb_add_options *options,
                      struct hd_kb_add_result *out, struct hd_errmsg *msg)
{
    struct files files = {0};
    struct hd_kb__writer *w = NULL;
    memset(out, 0, sizeof *out);
    enum hd_err err = hd_kb__check_tenant(kb, who, msg);
    if (!err)
        err = collect(&files, paths, n_path, msg);
    if (!err)
        err = hd_kb__writer_open(&w, kb, options, msg);
    bool go_on = true;
    for (size_t i = 0; i < files.n && !err && go_on; i++) {
        struct hd_errmsg text = {0};
        struct hd_kb_progress progress = {.name = files.items[i].name, .i = i + 1, .n = files.n};
        err = add_path(w, &files.items[i], &progress, &text, msg);
        if (err)
            break;
        count(out, progress.outcome);
        if (w->n_chunk >= BATCH_CHUNKS ||
            (w->open && hd_clock_seconds() - w->began > BATCH_SECONDS))
            err = hd_kb__writer_commit(w, &out->version, msg);
        if (options && options->on_progress)
            go_on = options->on_progress(options->ud, &progress);
    }
    if (!err)
        err = hd_kb__writer_commit(w, &out->version, msg);
    hd_kb__writer_close(w);
    files_dispose(&files);
    return err;
}

enum hd_err hd_kb_add_bytes(struct hd_kb *kb, const struct hd_principal *who, const char *name,
                            const void *data, size_t len, const struct hd_kb_add_options *options,
                            int64_t *out_id, struct hd_errmsg *msg)
{
    enum hd_err err = hd_kb__check_tenant(kb, who, msg);
    if (err)
        return err;
    if (!name[0] || strlen(name) > 1000 || !hd_utf8_valid(name, strlen(name)))
        return hd_fail(msg, HD_ERR_INVALID, "document name: empty, too long or not UTF-8");
    if (!hd_kb__format_of(name))
        return hd_fail(msg, HD_ERR_UNSUPPORTED,
                       "%.200s: not a format that can be read (txt, md, html, pdf, docx, epub)",
                       name);
    struct hd_kb__writer *w = NULL;
    struct hd_errmsg text = {0};
    struct hd_kb_progress progress = {.name = name, .i = 1, .n = 1};
    int64_t id = 0, version;
    err = hd_kb__writer_open(&w, kb, options, msg);
    if (!err)
        err = add_one(w, name, data, len, &progress, &id, &text, msg);
    if (!err && progress.outcome == HD_KB_FAILED)
        err = hd_fail(msg, progress.err, "%.200s: %.250s", name, text.text);
    if (!err)
        err = hd_kb__writer_commit(w, &version, msg);
    if (!err && out_id)
        *out_id = id;
    hd_kb__writer_close(w);
    return err;
}

/* --- removing ----------------------------------------------------------------------------- */

enum hd_err hd_kb__writer_remove(struct hd_kb__writer *w, int64_t id, struct hd_errmsg *msg)
{
    enum hd_err err = begin(w, msg);
    return err ? err : remove_document(w, id, msg);
}

struct hd_kb__store *hd_kb__writer_store(struct hd_kb__writer *w)
{
    return &w->store;
}
