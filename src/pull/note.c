#include "pull/note.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/file.h"

enum { MAX_NOTE_BYTES = 64 * 1024 };

/* Nanoseconds since 1970: with the size, what tells whether a file was touched since its hash was
 * taken. */
static long long mtime_ns(const struct stat *st)
{
    return (long long)st->st_mtim.tv_sec * 1000000000 + st->st_mtim.tv_nsec;
}

static enum hd_err write_beside(const char *path, const char *suffix, const char *text,
                                struct hd_errmsg *msg)
{
    char *beside = NULL;
    if (asprintf(&beside, "%s%s", path, suffix) < 0)
        return hd_fail(msg, HD_ERR_NOMEM, "pull: out of memory");
    enum hd_err err = hd_file_write(beside, text, strlen(text), msg);
    free(beside);
    return err;
}

static enum hd_err write_licence(const char *path, const struct hd_catalogue_model *m,
                                 struct hd_errmsg *msg)
{
    struct hd_buf text;
    hd_buf_init(&text, 32 * 1024);
    hd_buf_printf(&text, "%s (%s)\n\nLicence: %s\nFull text: %s\n", m->title, m->name, m->licence,
                  m->licence_url);
    if (m->licence_text)
        hd_buf_printf(&text, "\nIn short, without replacing the text itself:\n%s\n",
                      m->licence_text);
    enum hd_err err = text.err ? hd_fail(msg, text.err, "licence: %s", hd_err_text(text.err))
                               : write_beside(path, ".licence.txt", text.data, msg);
    hd_buf_dispose(&text);
    return err;
}

enum hd_err hd_note_write(const char *path, const struct hd_catalogue_model *m, uint64_t size,
                          const char *sha256, const char *source, struct hd_errmsg *msg)
{
    struct stat st;
    char when[21];
    if (stat(path, &st))
        return hd_fail(msg, HD_ERR_IO, "%s: %s", path, strerror(errno));
    hd_clock_iso(when);
    json_t *note =
        json_pack("{s:i, s:s, s:s, s:I, s:s, s:s, s:s, s:s, s:s, s:I}", "note_version", 1, "name",
                  m->name, "title", m->title, "size", (json_int_t)size, "sha256", sha256, "licence",
                  m->licence, "licence_url", m->licence_url, "source", source, "pulled_at", when,
                  "mtime_ns", (json_int_t)mtime_ns(&st));
    if (note && m->architecture)
        json_object_set_new(note, "architecture", json_string(m->architecture));
    char *text = note ? json_dumps(note, JSON_INDENT(2)) : NULL;
    json_decref(note);
    if (!text)
        return hd_fail(msg, HD_ERR_NOMEM, "pull: out of memory");
    enum hd_err err = write_licence(path, m, msg);
    if (!err)
        err = write_beside(path, ".json", text, msg);
    free(text);
    return err;
}

static json_t *folder_files(const char *path, const struct hd_catalogue_model *m,
                            const char (*hex)[65], uint64_t *size)
{
    json_t *files = json_array();
    *size = 0;
    for (size_t i = 0; i < m->n_part; i++) {
        struct stat st;
        char *file = hd_path_join(path, m->part[i].name);
        bool there = file && !stat(file, &st) && S_ISREG(st.st_mode);
        free(file);
        if (!there) {
            json_decref(files);
            return NULL;
        }
        *size += (uint64_t)st.st_size;
        json_array_append_new(files, json_pack("{s:s, s:I, s:s, s:I}", "name", m->part[i].name,
                                               "size", (json_int_t)st.st_size, "sha256", hex[i],
                                               "mtime_ns", (json_int_t)mtime_ns(&st)));
    }
    return files;
}

enum hd_err hd_note_write_folder(const char *path, const struct hd_catalogue_model *m,
                                 const char (*hex)[65], const char *sha256, const char *source,
                                 struct hd_errmsg *msg)
{
    char when[21];
    uint64_t size;
    json_t *files = folder_files(path, m, hex, &size);
    if (!files)
        return hd_fail(msg, HD_ERR_IO, "%s: a file of it is missing", path);
    hd_clock_iso(when);
    json_t *note = json_pack("{s:i, s:s, s:s, s:I, s:s, s:s, s:s, s:s, s:s, s:o}", "note_version",
                             1, "name", m->name, "title", m->title, "size", (json_int_t)size,
                             "sha256", sha256, "licence", m->licence, "licence_url", m->licence_url,
                             "source", source, "pulled_at", when, "files", files);
    if (note && m->architecture)
        json_object_set_new(note, "architecture", json_string(m->architecture));
    char *text = note ? json_dumps(note, JSON_INDENT(2)) : NULL;
    json_decref(note);
    if (!text)
        return hd_fail(msg, HD_ERR_NOMEM, "pull: out of memory");
    enum hd_err err = write_licence(path, m, msg);
    if (!err)
        err = write_beside(path, ".json", text, msg);
    free(text);
    return err;
}

static bool file_agrees(const char *path, const struct hd_catalogue_file *part, json_t *entry)
{
    struct stat st;
    const char *name = json_string_value(json_object_get(entry, "name"));
    const char *sha = json_string_value(json_object_get(entry, "sha256"));
    char *file = name && !strcmp(name, part->name) ? hd_path_join(path, part->name) : NULL;
    bool same = file && !stat(file, &st) && S_ISREG(st.st_mode) && sha &&
                (!part->sha256 || !strcmp(sha, part->sha256)) &&
                json_integer_value(json_object_get(entry, "size")) == (json_int_t)st.st_size &&
                json_integer_value(json_object_get(entry, "mtime_ns")) == (json_int_t)mtime_ns(&st);
    free(file);
    return same;
}

bool hd_note_folder_agrees(const char *path, const struct hd_catalogue_model *m, uint64_t *size,
                           char sha256[65])
{
    char *beside = NULL, *text = NULL;
    size_t len;
    if (asprintf(&beside, "%s.json", path) < 0)
        return false;
    enum hd_err err = hd_file_read(&text, &len, beside, 16 * MAX_NOTE_BYTES, NULL);
    free(beside);
    json_t *note = err ? NULL : json_loadb(text, len, JSON_REJECT_DUPLICATES, NULL);
    free(text);
    const char *sha = json_string_value(json_object_get(note, "sha256"));
    json_t *files = json_object_get(note, "files");
    bool agrees = sha && strlen(sha) == 64 && json_array_size(files) == m->n_part;
    *size = (uint64_t)json_integer_value(json_object_get(note, "size"));
    for (size_t i = 0; agrees && i < m->n_part; i++)
        agrees = file_agrees(path, &m->part[i], json_array_get(files, i));
    if (agrees)
        memcpy(sha256, sha, 65);
    json_decref(note);
    return agrees;
}

enum hd_err hd_note_read(struct hd_note *out, const char *path, struct hd_errmsg *msg)
{
    struct stat st;
    char *beside = NULL, *text = NULL;
    size_t len;
    *out = (struct hd_note){0};
    if (stat(path, &st))
        return errno == ENOENT ? HD_OK : hd_fail(msg, HD_ERR_IO, "%s: %s", path, strerror(errno));
    if (!S_ISREG(st.st_mode))
        return hd_fail(msg, HD_ERR_EXISTS, "%s: is there, but no regular file", path);
    out->there = true;
    out->size = (uint64_t)st.st_size;
    if (asprintf(&beside, "%s.json", path) < 0)
        return hd_fail(msg, HD_ERR_NOMEM, "pull: out of memory");
    enum hd_err err = hd_file_read(&text, &len, beside, MAX_NOTE_BYTES, NULL);
    free(beside);
    if (err)
        return err == HD_ERR_NOMEM ? hd_fail(msg, err, "pull: out of memory") : HD_OK;
    json_t *note = json_loadb(text, len, JSON_REJECT_DUPLICATES, NULL);
    free(text);
    const char *sha = json_string_value(json_object_get(note, "sha256"));
    const char *name = json_string_value(json_object_get(note, "name"));
    if (sha && name && strlen(sha) == 64 && strlen(name) < sizeof out->name &&
        json_integer_value(json_object_get(note, "size")) == (json_int_t)st.st_size &&
        json_integer_value(json_object_get(note, "mtime_ns")) == (json_int_t)mtime_ns(&st)) {
        memcpy(out->sha256, sha, 65);
        memcpy(out->name, name, strlen(name) + 1);
    }
    json_decref(note);
    return HD_OK;
}
