/* Bases as a whole: making, opening, listing, destroying; reading documents. */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/file.h"
#include "kb/kb_impl.h"

enum hd_err hd_kb__check_tenant(const struct hd_kb *kb, const struct hd_principal *who,
                                struct hd_errmsg *msg)
{
    if (!strcmp(kb->tenant, who->tenant))
        return HD_OK;
    return hd_fail(msg, HD_ERR_NOTFOUND, "no such knowledge base");
}

bool hd_kb__may_see(const char *groups, const struct hd_principal *who)
{
    if (!groups[0])
        return true;
    for (const char *at = groups; *at;) {
        size_t len = strcspn(at, "\n");
        for (size_t i = 0; i < who->n_group; i++)
            if (strlen(who->groups[i]) == len && !memcmp(who->groups[i], at, len))
                return true;
        at += len + (at[len] == '\n');
    }
    return false;
}

char *hd_kb__copy_range(const char *text, size_t text_len, size_t at, size_t len)
{
    if (at > text_len || len > text_len - at)
        return strdup("");
    return strndup(text + at, len);
}

enum hd_err hd_kb_create(const char *dir, const struct hd_principal *who, const char *name,
                         struct hd_errmsg *msg)
{
    char *folder = NULL, *file = NULL;
    struct hd_kb__store store;
    enum hd_err err = hd_kb__folder(&folder, dir, who, name, msg);
    if (err)
        return err;
    file = hd_path_join(folder, "kb.db");
    if (!file)
        err = HD_ERR_NOMEM;
    else if (hd_path_exists(file))
        err = hd_fail(msg, HD_ERR_EXISTS, "knowledge base %s: it exists already", name);
    else
        err = hd_kb__store_open(&store, folder, HD_KB__CREATE, msg);
    if (!err)
        hd_kb__store_close(&store);
    free(file);
    free(folder);
    return err;
}

/* The NOTFOUND sentence, with the names that do exist. */
static enum hd_err not_found(const char *dir, const struct hd_principal *who, const char *name,
                             struct hd_errmsg *msg)
{
    struct hd_kb_names names;
    char list[200] = "none yet; holdfast kb add PATH makes one";
    size_t len = 0;
    if (!hd_kb_list_bases(&names, dir, who, NULL)) {
        for (size_t i = 0; i < names.n && len < sizeof list - 80; i++)
            len += (size_t)snprintf(list + len, sizeof list - len, "%s%.64s", i ? ", " : "",
                                    names.names[i]);
        hd_kb_names_dispose(&names);
    }
    return hd_fail(msg, HD_ERR_NOTFOUND, "knowledge base %s: there is none of that name (%s%s)",
                   name, len ? "there are: " : "", list);
}

/* Without folder and store. NULL when out of memory. */
static struct hd_kb *make(const struct hd_principal *who)
{
    struct hd_kb *kb = calloc(1, sizeof *kb);
    if (!kb)
        return NULL;
    kb->store.lock = -1;
    kb->map.version = -1;
    pthread_mutex_init(&kb->mu, NULL);
    kb->tenant = strdup(who->tenant);
    if (kb->tenant)
        return kb;
    hd_kb_close(kb);
    return NULL;
}

/* The last step of opening: the base to the caller, or, after an error, nothing. */
static enum hd_err hand_out(struct hd_kb **out, struct hd_kb *kb, enum hd_err err)
{
    if (!err)
        err = hd_kb__analyser_new(&kb->analyser);
    if (err)
        hd_kb_close(kb);
    else
        *out = kb;
    return err;
}

enum hd_err hd_kb_open(struct hd_kb **out, const char *dir, const struct hd_principal *who,
                       const char *name, bool create, struct hd_errmsg *msg)
{
    *out = NULL;
    struct hd_kb *kb = make(who);
    if (!kb)
        return HD_ERR_NOMEM;
    enum hd_err err = hd_kb__folder(&kb->folder, dir, who, name, msg);
    if (!err) {
        err = hd_kb__store_open(&kb->store, kb->folder, HD_KB__READ, msg);
        if (err == HD_ERR_NOTFOUND && create) {
            err = hd_kb_create(dir, who, name, msg);
            if (!err || err == HD_ERR_EXISTS)
                err = hd_kb__store_open(&kb->store, kb->folder, HD_KB__READ, msg);
        } else if (err == HD_ERR_NOTFOUND) {
            err = not_found(dir, who, name, msg);
        }
    }
    return hand_out(out, kb, err);
}

enum hd_err hd_kb__open_folder(struct hd_kb **out, const char *folder,
                               const struct hd_principal *who, struct hd_errmsg *msg)
{
    *out = NULL;
    struct hd_kb *kb = make(who);
    enum hd_err err = kb && (kb->folder = strdup(folder)) ? HD_OK : HD_ERR_NOMEM;
    if (!err)
        err = hd_kb__store_open(&kb->store, folder, HD_KB__READ, msg);
    return hand_out(out, kb, err);
}

void hd_kb_close(struct hd_kb *kb)
{
    if (!kb)
        return;
    hd_kb__store_close(&kb->store);
    hd_kb__map_dispose(&kb->map);
    hd_kb__analyser_free(kb->analyser);
    pthread_mutex_destroy(&kb->mu);
    free(kb->folder);
    free(kb->tenant);
    free(kb);
}

enum hd_err hd_kb_destroy(const char *dir, const struct hd_principal *who, const char *name,
                          struct hd_errmsg *msg)
{
    static const char *const files[] = {"kb.db-wal", "kb.db-shm", "kb.db", "lock"};
    char *folder = NULL;
    struct hd_kb__store store;
    enum hd_err err = hd_kb__folder(&folder, dir, who, name, msg);
    if (!err)
        err = hd_kb__store_open(&store, folder, HD_KB__WRITE, msg);
    if (err == HD_ERR_NOTFOUND)
        err = not_found(dir, who, name, msg);
    if (err) {
        free(folder);
        return err;
    }
    sqlite3_close(store.db); /* the lock stays ours until the files are gone */
    store.db = NULL;
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char *path = hd_path_join(folder, files[i]);
        if (path && unlink(path) && errno != ENOENT && !err)
            err = hd_fail(msg, HD_ERR_IO, "%s: %s", path, strerror(errno));
        free(path);
    }
    if (!err && rmdir(folder) && errno != ENOENT)
        err = hd_fail(msg, HD_ERR_IO, "%s: %s", folder, strerror(errno));
    hd_kb__store_close(&store);
    free(folder);
    return err;
}

/* --- listing bases ------------------------------------------------------------------------ */

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static enum hd_err add_name(struct hd_kb_names *out, const char *name)
{
    char **names = realloc(out->names, (out->n + 1) * sizeof *names);
    if (!names)
        return HD_ERR_NOMEM;
    out->names = names;
    names[out->n] = strdup(name);
    if (!names[out->n])
        return HD_ERR_NOMEM;
    out->n++;
    return HD_OK;
}

enum hd_err hd_kb_list_bases(struct hd_kb_names *out, const char *dir,
                             const struct hd_principal *who, struct hd_errmsg *msg)
{
    memset(out, 0, sizeof *out);
    char *sample = NULL;
    enum hd_err err = hd_kb__folder(&sample, dir, who, "x", msg); /* checks the tenant's name */
    free(sample);
    if (err)
        return err;
    char *tenant = hd_path_join(dir, who->tenant);
    DIR *folder = tenant ? opendir(tenant) : NULL;
    struct dirent *entry;
    while (folder && !err && (entry = readdir(folder))) {
        if (entry->d_name[0] == '.')
            continue;
        struct hd_buf path;
        hd_buf_init(&path, 8192);
        hd_buf_printf(&path, "%s/%s/kb.db", tenant, entry->d_name);
        if (!path.err && hd_path_exists(path.data))
            err = add_name(out, entry->d_name);
        hd_buf_dispose(&path);
    }
    if (folder)
        closedir(folder);
    free(tenant);
    if (err)
        hd_kb_names_dispose(out);
    else if (out->n)
        qsort(out->names, out->n, sizeof *out->names, by_name);
    return err;
}

void hd_kb_names_dispose(struct hd_kb_names *names)
{
    for (size_t i = 0; i < names->n; i++)
        free(names->names[i]);
    free(names->names);
    memset(names, 0, sizeof *names);
}

/* --- documents ---------------------------------------------------------------------------- */

static char *column_text(sqlite3_stmt *st, int column)
{
    const unsigned char *text = sqlite3_column_text(st, column);
    return strdup(text ? (const char *)text : "");
}

static enum hd_err add_document(struct hd_kb_documents *out, sqlite3_stmt *st)
{
    struct hd_kb_document *items = realloc(out->items, (out->n + 1) * sizeof *items);
    if (!items)
        return HD_ERR_NOMEM;
    out->items = items;
    struct hd_kb_document *doc = &items[out->n++];
    *doc = (struct hd_kb_document){.id = sqlite3_column_int64(st, 0),
                                   .name = column_text(st, 1),
                                   .revision = column_text(st, 2),
                                   .format = column_text(st, 3),
                                   .groups = column_text(st, 4),
                                   .n_page = sqlite3_column_int64(st, 5),
                                   .n_chunk = sqlite3_column_int64(st, 6),
                                   .n_codepoint = sqlite3_column_int64(st, 7),
                                   .added = sqlite3_column_int64(st, 8)};
    return doc->name && doc->revision && doc->format && doc->groups ? HD_OK : HD_ERR_NOMEM;
}

static enum hd_err list_locked(struct hd_kb *kb, const struct hd_principal *who,
                               struct hd_kb_documents *out, struct hd_errmsg *msg)
{
    enum hd_err err = hd_kb__begin(&kb->store, false, msg);
    if (!err)
        err = hd_kb__version(&kb->store, &out->version, msg);
    sqlite3_stmt *st =
        err ? NULL
            : hd_kb__stmt(&kb->store, HD_KB__ST_DOC_LIST,
                          "SELECT id, name, revision, format, groups, n_page, n_chunk, "
                          "n_codepoint, added FROM documents WHERE tenant = ?1 ORDER BY name",
                          msg);
    if (!st)
        return err ? err : HD_ERR_IO;
    sqlite3_bind_text(st, 1, kb->tenant, -1, SQLITE_STATIC);
    int rc = SQLITE_DONE;
    while (!err && (rc = sqlite3_step(st)) == SQLITE_ROW) {
        const char *groups = (const char *)sqlite3_column_text(st, 4);
        if (hd_kb__may_see(groups ? groups : "", who))
            err = add_document(out, st);
    }
    if (!err && rc != SQLITE_DONE)
        err = hd_kb__sql_fail(&kb->store, msg);
    return err;
}

enum hd_err hd_kb_list(struct hd_kb *kb, const struct hd_principal *who,
                       struct hd_kb_documents *out, struct hd_errmsg *msg)
{
    memset(out, 0, sizeof *out);
    enum hd_err err = hd_kb__check_tenant(kb, who, msg);
    if (err)
        return err;
    pthread_mutex_lock(&kb->mu);
    err = list_locked(kb, who, out, msg);
    hd_kb__end_read(&kb->store);
    pthread_mutex_unlock(&kb->mu);
    if (err)
        hd_kb_documents_dispose(out);
    return err;
}

void hd_kb_documents_dispose(struct hd_kb_documents *documents)
{
    for (size_t i = 0; i < documents->n; i++) {
        free(documents->items[i].name);
        free(documents->items[i].revision);
        free(documents->items[i].format);
        free(documents->items[i].groups);
    }
    free(documents->items);
    memset(documents, 0, sizeof *documents);
}

enum hd_err hd_kb_info(struct hd_kb *kb, const struct hd_principal *who, struct hd_kb_info *out,
                       struct hd_errmsg *msg)
{
    struct hd_kb_documents documents;
    enum hd_err err = hd_kb_list(kb, who, &documents, msg);
    if (err)
        return err;
    *out = (struct hd_kb_info){.version = documents.version, .n_document = (int64_t)documents.n};
    for (size_t i = 0; i < documents.n; i++) {
        out->n_chunk += documents.items[i].n_chunk;
        out->n_codepoint += documents.items[i].n_codepoint;
    }
    hd_kb_documents_dispose(&documents);
    static const char *const files[] = {"kb.db", "kb.db-wal"};
    for (size_t i = 0; i < 2; i++) {
        struct stat st;
        char *path = hd_path_join(kb->folder, files[i]);
        if (path && !stat(path, &st))
            out->file_bytes += st.st_size;
        free(path);
    }
    return HD_OK;
}

enum hd_err hd_kb_text(struct hd_kb *kb, const struct hd_principal *who, int64_t id, char **text,
                       struct hd_errmsg *msg)
{
    *text = NULL;
    enum hd_err err = hd_kb__check_tenant(kb, who, msg);
    if (err)
        return err;
    pthread_mutex_lock(&kb->mu);
    sqlite3_stmt *st = hd_kb__stmt(&kb->store, HD_KB__ST_DOC_TEXT,
                                   "SELECT groups, text FROM documents WHERE id = ?1", msg);
    if (!st) {
        err = HD_ERR_IO;
    } else {
        sqlite3_bind_int64(st, 1, id);
        int rc = sqlite3_step(st);
        if (rc == SQLITE_ROW && hd_kb__may_see((const char *)sqlite3_column_text(st, 0), who)) {
            *text = column_text(st, 1);
            err = *text ? HD_OK : HD_ERR_NOMEM;
        } else if (rc == SQLITE_ROW || rc == SQLITE_DONE) {
            err = hd_fail(msg, HD_ERR_NOTFOUND, "document %lld: there is none", (long long)id);
        } else {
            err = hd_kb__sql_fail(&kb->store, msg);
        }
        sqlite3_reset(st);
    }
    pthread_mutex_unlock(&kb->mu);
    return err;
}
