#include "pull/installed.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#include "base/file.h"

enum { MAX_NOTE_BYTES = 64 * 1024, MAX_INSTALLED = 4096, MAX_DEPTH = 4 };

static bool ends_with(const char *s, const char *end)
{
    size_t n = strlen(s), m = strlen(end);
    return n >= m && !strcasecmp(s + n - m, end);
}

static void dispose(struct hd_installed *item)
{
    free(item->name);
    free(item->file);
    free(item->path);
    free(item->licence);
}

void hd_installed_free(struct hd_installed *list, size_t n)
{
    for (size_t i = 0; list && i < n; i++)
        dispose(&list[i]);
    free(list);
}

/* A note that is unreadable or speaks of another size is as good as none. */
static enum hd_err read_note(struct hd_installed *item)
{
    char *note_path = NULL, *text = NULL;
    size_t len;
    if (asprintf(&note_path, "%s.json", item->path) < 0)
        return HD_ERR_NOMEM;
    enum hd_err err = hd_file_read(&text, &len, note_path, MAX_NOTE_BYTES, NULL);
    free(note_path);
    if (err)
        return err == HD_ERR_NOMEM ? err : HD_OK;
    json_t *note = json_loadb(text, len, JSON_REJECT_DUPLICATES, NULL);
    free(text);
    const char *name = json_string_value(json_object_get(note, "name"));
    const char *sha = json_string_value(json_object_get(note, "sha256"));
    const char *licence = json_string_value(json_object_get(note, "licence"));
    const char *architecture = json_string_value(json_object_get(note, "architecture"));
    json_int_t size = json_integer_value(json_object_get(note, "size"));
    if (name && *name && size > 0 && (uint64_t)size == item->size) {
        char *copy = strdup(name);
        if (copy) {
            free(item->name);
            item->name = copy;
        }
        item->licence = licence ? strdup(licence) : NULL;
        item->encoder =
            architecture && (!strcmp(architecture, "bert") || !strcmp(architecture, "xlm-roberta"));
        if (sha && strlen(sha) == 64)
            memcpy(item->sha256, sha, 65);
        item->noted = true;
        err = copy ? HD_OK : HD_ERR_NOMEM;
    }
    json_decref(note);
    return err;
}

/* Bytes of the files in a folder, a few levels deep. */
static uint64_t folder_bytes(const char *path, int depth)
{
    uint64_t sum = 0;
    DIR *dir = depth > 0 ? opendir(path) : NULL;
    for (struct dirent *entry; dir && (entry = readdir(dir));) {
        struct stat st;
        char *below = entry->d_name[0] == '.' ? NULL : hd_path_join(path, entry->d_name);
        if (below && !lstat(below, &st))
            sum += S_ISREG(st.st_mode)   ? (uint64_t)st.st_size
                   : S_ISDIR(st.st_mode) ? folder_bytes(below, depth - 1)
                                         : 0;
        free(below);
    }
    if (dir)
        closedir(dir);
    return sum;
}

/* *found says whether `file` under `models` is a model; then *item is filled and owned. */
static enum hd_err look(struct hd_installed *item, bool *found, const char *models,
                        const char *file)
{
    struct stat st = {0};
    *item = (struct hd_installed){0};
    *found = false;
    if (file[0] == '.' || ends_with(file, ".partial"))
        return HD_OK;
    char *path = hd_path_join(models, file);
    if (!path)
        return HD_ERR_NOMEM;
    bool is_model = false;
    if (stat(path, &st))
        st.st_mode = 0;
    if (S_ISREG(st.st_mode)) {
        is_model = ends_with(file, ".gguf");
        item->size = (uint64_t)st.st_size;
    } else if (S_ISDIR(st.st_mode)) {
        char *config = hd_path_join(path, "config.json");
        is_model = config && hd_path_exists(config);
        free(config);
        item->size = is_model ? folder_bytes(path, MAX_DEPTH) : 0;
    }
    if (!is_model) {
        free(path);
        return HD_OK;
    }
    item->path = path;
    item->file = strdup(file);
    item->name = strdup(file);
    enum hd_err err = item->file && item->name ? read_note(item) : HD_ERR_NOMEM;
    if (err)
        dispose(item);
    *found = !err;
    return err;
}

static int by_file(const void *a, const void *b)
{
    return strcmp(((const struct hd_installed *)a)->file, ((const struct hd_installed *)b)->file);
}

enum hd_err hd_installed_list(struct hd_installed **out, size_t *n, const char *models,
                              struct hd_errmsg *msg)
{
    *out = NULL;
    *n = 0;
    DIR *dir = opendir(models);
    if (!dir)
        return errno == ENOENT ? HD_OK : hd_fail(msg, HD_ERR_IO, "%s: %s", models, strerror(errno));
    struct hd_installed *list = NULL;
    size_t count = 0, cap = 0;
    enum hd_err err = HD_OK;
    for (struct dirent *entry; !err && (entry = readdir(dir)) && count < MAX_INSTALLED;) {
        struct hd_installed item;
        bool found;
        err = look(&item, &found, models, entry->d_name);
        if (err || !found)
            continue;
        if (count == cap) {
            size_t more = cap ? 2 * cap : 8;
            struct hd_installed *grown = realloc(list, more * sizeof *list);
            if (!grown) {
                dispose(&item);
                err = HD_ERR_NOMEM;
                continue;
            }
            list = grown;
            cap = more;
        }
        list[count++] = item;
    }
    closedir(dir);
    if (err) {
        hd_installed_free(list, count);
        return hd_fail(msg, err, "%s: %s", models, hd_err_text(err));
    }
    if (count)
        qsort(list, count, sizeof *list, by_file);
    *out = list;
    *n = count;
    return HD_OK;
}

enum hd_err hd_installed_name(struct hd_installed *list, size_t n,
                              const struct hd_catalogue *catalogue)
{
    for (size_t i = 0; i < n; i++) {
        const struct hd_catalogue_model *m = hd_catalogue_find_file(catalogue, list[i].file);
        if (list[i].noted || !m || (m->size && m->size != list[i].size))
            continue;
        char *name = strdup(m->name);
        if (!name)
            return HD_ERR_NOMEM;
        free(list[i].name);
        list[i].name = name;
    }
    return HD_OK;
}

/* Lower-case letters and digits alone. */
static void fold(char *out, size_t cap, const char *s)
{
    size_t n = 0;
    for (; *s && n + 1 < cap; s++)
        if (isalnum((unsigned char)*s))
            out[n++] = (char)tolower((unsigned char)*s);
    out[n] = 0;
}

typedef bool (*match_fn)(const struct hd_installed *item, const char *name);

static bool same_name(const struct hd_installed *item, const char *name)
{
    return !strcasecmp(item->name, name) || !strcmp(item->file, name);
}

static bool same_stem(const struct hd_installed *item, const char *name)
{
    size_t n = strlen(name);
    return (!strncasecmp(item->name, name, n) && item->name[n] == ':') ||
           (!strncasecmp(item->file, name, n) && !strcasecmp(item->file + n, ".gguf"));
}

/* "r1:7b" must not find "r1-70b…": the character after the match is no digit after a digit. */
static bool same_beginning(const struct hd_installed *item, const char *name)
{
    char want[256], have[256];
    fold(want, sizeof want, name);
    fold(have, sizeof have, item->file);
    size_t n = strlen(want);
    return n >= 4 && !strncmp(have, want, n) &&
           !(isdigit((unsigned char)want[n - 1]) && isdigit((unsigned char)have[n]));
}

const struct hd_installed *hd_installed_find(const struct hd_installed *list, size_t n,
                                             const char *name)
{
    static const match_fn matches[] = {same_name, same_stem, same_beginning};
    for (size_t m = 0; m < sizeof matches / sizeof *matches; m++)
        for (size_t i = 0; i < n; i++)
            if (matches[m](&list[i], name))
                return &list[i];
    return NULL;
}

const struct hd_installed *hd_installed_default(const struct hd_installed *list, size_t n)
{
    const struct hd_installed *item = hd_installed_find(list, n, "qwen2.5-coder:1.5b");
    if (!item)
        item = hd_installed_find(list, n, "qwen2.5-coder:0.5b");
    size_t n_speaking = 0, last = 0;
    for (size_t i = 0; i < n; i++)
        if (!list[i].encoder) {
            n_speaking++;
            last = i;
        }
    return item ? item : n_speaking == 1 ? &list[last] : NULL;
}
