/* Brings a model of the catalogue under <home>/models, checked by hash.
 *
 * Sources are tried in the catalogue's order; one that does not answer within seconds is skipped
 * and named. Bytes that one source brought count for the next, where both offer the same hash. The
 * file appears under its final name only whole and checked. Beside it: <file>.json (name, size,
 * hash, source: what `pull` and `doctor` remember) and <file>.licence.txt. */
#ifndef HD_PULL_PULL_H
#define HD_PULL_PULL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "pull/catalogue.h"

enum hd_pull_event_type {
    HD_PULL_TRYING,   /* source */
    HD_PULL_RESUMED,  /* source, done, total: bytes of an earlier run that count */
    HD_PULL_PROGRESS, /* source, done, total, bytes_per_s, eta_s: a few times a second */
    HD_PULL_CHECKING, /* done, total: hashing the whole file */
    HD_PULL_NOTICE,   /* source, detail: something a user should know */
    HD_PULL_SKIPPED,  /* source, detail: why it did not give the file */
};

struct hd_pull_event {
    enum hd_pull_event_type type;
    const char *source; /* label; never NULL */
    const char *detail; /* a sentence, or "" */
    uint64_t done, total;
    double bytes_per_s; /* 0 unknown */
    double eta_s;       /* -1 unknown */
};

struct hd_pull_options {
    const char *models;      /* folder; created where absent */
    const char *only_source; /* a label, a path, file://… or https://…; NULL = the catalogue's */
    const char *hf_endpoint; /* NULL = the public hubs */
    const char *modelscope_endpoint;
    const char *hf_token;      /* NULL = none; sent to the Hugging Face endpoint alone */
    const char *pip;           /* program; NULL = python3 -m pip, else pip3, else pip */
    double timeout_s;          /* for a source to answer; 0 = 5 */
    int connections;           /* parts at once; 0 = 4 */
    const atomic_bool *cancel; /* looked at several times a second; NULL = never */
    void (*on_event)(const struct hd_pull_event *event, void *ud); /* on the calling thread */
    void *ud;
};

enum { HD_PULL_MAX_TRIED = 20 };

/* Caller-allocated, plain. */
struct hd_pull_result {
    char path[4096];
    char source[32]; /* which one gave it; "" if it was there already */
    char sha256[65];
    uint64_t size;
    bool already; /* it was there, whole and checked */
    double seconds;
    struct {
        char source[32];
        char reason[400];
    } tried[HD_PULL_MAX_TRIED]; /* sources that failed, in order */
    int n_tried;
};

/* CANCELLED leaves what is finished for the next time. Where no source gives the file: UNAVAILABLE,
 * with the reasons in out->tried. USAGE: only_source names no source of this model. */
enum hd_err hd_pull(struct hd_pull_result *out, const struct hd_catalogue_model *model,
                    const struct hd_pull_options *options, struct hd_errmsg *msg);

#endif
