/* What lies beside an installed model: <file>.json, which remembers, and <file>.licence.txt. */
#ifndef HD_PULL_NOTE_H
#define HD_PULL_NOTE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "pull/catalogue.h"

/* Writes both for the finished file at `path`. */
enum hd_err hd_note_write(const char *path, const struct hd_catalogue_model *model, uint64_t size,
                          const char *sha256, const char *source, struct hd_errmsg *msg);

/* The same for the finished folder at `path`; hex has each file's SHA-256, in the order of
 * model->part, and sha256 is that of their list. */
enum hd_err hd_note_write_folder(const char *path, const struct hd_catalogue_model *model,
                                 const char (*hex)[65], const char *sha256, const char *source,
                                 struct hd_errmsg *msg);
/* Whether the folder at `path` has its note, and every file of the model the size and time that it
 * remembers (and, where the catalogue pins it, the hash). *size: of all files; sha256: of the list.
 */
bool hd_note_folder_agrees(const char *path, const struct hd_catalogue_model *model, uint64_t *size,
                           char sha256[65]);

/* What is known of the file at `path`. */
struct hd_note {
    bool there;      /* the file itself */
    uint64_t size;   /* of the file */
    char sha256[65]; /* remembered; "" where there is no note, or file or note changed since */
    char name[128];  /* remembered catalogue name, "" likewise */
};
/* Looks, without hashing anything. */
enum hd_err hd_note_read(struct hd_note *out, const char *path, struct hd_errmsg *msg);

#endif
