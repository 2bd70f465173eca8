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
