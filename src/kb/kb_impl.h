/* Shared inside the room: an open base, and the steps that several files use. */
#ifndef HD_KB_KB_IMPL_H
#define HD_KB_KB_IMPL_H

#include <pthread.h>

#include "kb/analyse.h"
#include "kb/kb.h"
#include "kb/store.h"

/* What a search needs of every chunk, in memory; rebuilt where the version has changed. */
struct hd_kb__map {
    int64_t version;  /* -1 = none yet */
    size_t n;         /* chunks */
    int64_t *chunk;   /* [n] ids, ascending */
    uint32_t *doc;    /* [n] index into docs */
    uint32_t *n_term; /* [n] length in tokens */
    double mean_term;
    size_t n_doc;
    struct hd_kb__map_doc {
        int64_t id;
        char *groups; /* owned; one per line */
    } * docs;
};

struct hd_kb {
    char *folder, *tenant; /* owned, immutable */
    pthread_mutex_t mu;    /* guards all below */
    struct hd_kb__store store;
    struct hd_kb__analyser *analyser;
    struct hd_kb__map map;
};

/* Opens a base for reading by its folder, as another handle of it knew it. */
enum hd_err hd_kb__open_folder(struct hd_kb **out, const char *folder,
                               const struct hd_principal *who, struct hd_errmsg *msg);
/* NOTFOUND where the base is another tenant's. */
enum hd_err hd_kb__check_tenant(const struct hd_kb *kb, const struct hd_principal *who,
                                struct hd_errmsg *msg);
/* Whether an access list (one group per line, "" = everybody) lets the principal in. */
bool hd_kb__may_see(const char *groups, const struct hd_principal *who);

void hd_kb__map_dispose(struct hd_kb__map *map);

/* Copies text[at, at + len) of a document's stored text; "" past its end. Owned. */
char *hd_kb__copy_range(const char *text, size_t text_len, size_t at, size_t len);

#endif
