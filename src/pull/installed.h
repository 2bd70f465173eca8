/* What lies under <home>/models: finished GGUF files and Hugging Face folders, each with, where
 * `pull` brought it, a note beside it (<file>.json) that holds its catalogue name, size and hash.
 */
#ifndef HD_PULL_INSTALLED_H
#define HD_PULL_INSTALLED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "pull/catalogue.h"

/* Plain values; strings are owned by the list that they come in. */
struct hd_installed {
    char *name;    /* catalogue name ("qwen2.5-coder:1.5b"); the file name where there is no note */
    char *file;    /* file or folder name under models/ */
    char *path;    /* full path */
    char *licence; /* from the note; NULL if unknown */
    uint64_t size; /* bytes of the file, or of all files of the folder */
    char sha256[65]; /* of the finished file, from the note; "" if unknown */
    bool encoder;    /* by the note: makes vectors, does not speak */
    bool noted;      /* the note is there and agrees with the file's size */
};

/* Lists <models>, sorted by file name. A folder that is absent is an empty list. */
enum hd_err hd_installed_list(struct hd_installed **out, size_t *n, const char *models,
                              struct hd_errmsg *msg);
void hd_installed_free(struct hd_installed *list, size_t n); /* NULL is fine */

/* Gives entries without a note the catalogue's name, where the file name (and the size, where it is
 * known) is a catalogue entry's: a file that was put there by hand. */
enum hd_err hd_installed_name(struct hd_installed *list, size_t n,
                              const struct hd_catalogue *catalogue);

/* The entry that a user means by `name`: the catalogue name, the name without its tag (the first
 * that matches), the file name with or without ".gguf", or the beginning of a file name when
 * punctuation and case are ignored ("qwen2.5-coder:1.5b" finds
 * qwen2.5-coder-1.5b-instruct-q4_k_m.gguf put there by hand). NULL if there is none. Borrowed. */
const struct hd_installed *hd_installed_find(const struct hd_installed *list, size_t n,
                                             const char *name);
/* The model used when none is named: qwen2.5-coder:1.5b, else qwen2.5-coder:0.5b, else the only
 * one that is not known to be an encoder. NULL if there is none, or no way to choose. */
const struct hd_installed *hd_installed_default(const struct hd_installed *list, size_t n);

#endif
