/* Inside the engine room: the engine's and the sessions' fields, and who may touch them.
 *
 * Threads. Callers' threads submit, cancel, load and ask; the scheduler thread runs everything
 * else. What both touch is guarded by `mu`; the rest belongs to the scheduler once the engine runs.
 * Callbacks run on the scheduler thread with no lock held. */
#ifndef HD_ENGINE_ENGINE_IMPL_H
#define HD_ENGINE_ENGINE_IMPL_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/pool.h"
#include "engine/blocks.h"
#include "engine/sampler.h"
#include "holdfast/holdfast.h"
#include "model/model.h"
#include "store/store.h"
#include "token/token.h"

enum {
    HD_MAX_MODELS = 32,
    HD_OUT_ROWS = 64, /* rows of logits held at once */
    HD_MAX_STOPS = 16,
    HD_MAX_STOP_BYTES = 4096,
};

/* A loaded model. The first group is immutable once attached to the engine; the second belongs to
 * the scheduler thread. */
struct hd_loaded {
    char *name, *path;
    struct hd_store *store;
    struct hd_tokenizer *tokenizer; /* NULL: the model carries none */
    struct hd_model *model;
    const struct hd_hparams *hp;
    bool add_bos;                    /* to plain prompts */
    int32_t think_open, think_close; /* ids of <think> and </think>, or -1 */
    int n_ctx, n_row_max, n_out_max;
    double load_s;
    int64_t created;
    struct hd_block_key root_key; /* of all that a block's content depends on besides ids, tenant */

    struct hd_runner *runner;
    struct hd_blocks *blocks;
    struct hd_session *waiting;  /* by id, oldest first */
    struct hd_session **running; /* [max_sessions], by admission */
    int n_running;
    int turn; /* which prompt comes first in the next step */
    /* one step's batch */
    int32_t *ids, *positions, *out_rows; /* [n_row_max] */
    struct hd_seq_rows *seqs;            /* [max_sessions] */
    struct hd_session **of_seq;          /* [max_sessions] */
    float *logits;                       /* [n_out_max, n_vocab] */
    struct hd_candidate *candidates;     /* [n_vocab] */
};

/* One request. Made by the submitting thread, then owned by the scheduler.
 *
 * Its sequence is ids[0 … n_id): the prompt, then what was generated. KV exists for the first
 * n_done of them. n_done < n_prompt: prefill (prompt form). Else the next row to feed is
 * ids[n_done] (decode form); when that is the last id, a new one is sampled. A session that lost
 * its blocks starts again at n_done = 0 and replays both parts in the same forms, hence with the
 * same results, without sampling. */
struct hd_session {
    uint64_t id;
    struct hd_loaded *model;
    struct hd_callbacks callbacks;
    atomic_bool cancelled;
    struct hd_session *next;                /* in waiting */
    struct hd_session *all_prev, *all_next; /* list of all, guarded by mu */

    int32_t *ids; /* [n_prompt + n_max] */
    int n_prompt, n_id, n_done, n_max;
    int32_t *table;            /* [blocks that n_prompt + n_max need] */
    int n_block;               /* held */
    struct hd_block_key *keys; /* [n_prompt / HD_KV_BLOCK] */
    int n_published;           /* leading blocks that are findable, or were found */

    struct hd_sampler *sampler;
    struct hd_splitter *splitter; /* NULL without a tokenizer */
    char *stop_text[HD_MAX_STOPS];
    size_t n_stop;
    bool ignore_end;
    bool in_reasoning;
    int32_t watch[HD_WATCH_MAX];
    size_t n_watch;

    double t_submit, t_admit, t_first, deadline; /* deadline 0: none */
    bool admitted;
    struct hd_result result;
};

/* A function that another thread runs on the scheduler's, between steps. */
struct hd_call {
    void (*fn)(struct hd_engine *engine, void *ud);
    void *ud;
    enum hd_err err;
    bool done;
    struct hd_call *next;
};

struct hd_engine {
    struct hd_engine_options options;
    char *kernels;
    const struct hd_backend *backend;
    struct hd_pool *pool; /* run by the scheduler thread only */
    pthread_t thread;
    bool started;
    pthread_mutex_t load_mu; /* one load at a time; taken before mu */

    pthread_mutex_t mu;
    pthread_cond_t wake;      /* the scheduler waits here */
    pthread_cond_t call_done; /* callers of hd_engine__call wait here */
    /* guarded by mu */
    struct hd_loaded *model[HD_MAX_MODELS]; /* append only: pointers stay valid */
    size_t n_model;
    struct hd_session *inbox, *inbox_tail; /* submitted, not yet seen by the scheduler */
    struct hd_session *all;
    int n_session; /* submitted and not done */
    struct hd_call *calls;
    bool stopping;
    bool stepping; /* inside a step: for last_step_age_s */
    uint64_t next_id;
    double last_step_end;
    struct hd_engine_stats stats;

    int n_running; /* of all models; scheduler's */
};

/* engine.c */
struct hd_loaded *hd_engine__find(struct hd_engine *engine, const char *name);
/* Runs fn on the scheduler thread and waits. UNAVAILABLE while stopping. */
enum hd_err hd_engine__call(struct hd_engine *engine, void (*fn)(struct hd_engine *, void *),
                            void *ud);
void hd_loaded__free(struct hd_loaded *m); /* load.c */

/* scheduler.c */
void *hd_scheduler__main(void *engine);

/* session.c */
void hd_session__free(struct hd_session *s);
/* Feeds one sampled token: records it, streams it, decides whether the session ends. */
void hd_session__token(struct hd_engine *engine, struct hd_session *s, int32_t id);
/* Ends it: last text, blocks back, on_done, freed. err for HD_FINISH_ERROR. */
void hd_session__finish(struct hd_engine *engine, struct hd_session *s, enum hd_finish finish,
                        enum hd_err err, const char *why);
/* Gives its blocks back (the last first, so that beginnings outlive ends). */
void hd_session__release(struct hd_session *s);
int hd_session__blocks_for(int n_token);

#endif
