/* Inside the engine room: the engine's and the sessions' fields, and who may touch them.
 *
 * Threads. Callers' threads submit, cancel, load and ask; the scheduler thread runs everything
 * else. What both touch is guarded by `mu`; the rest belongs to the scheduler once the engine runs.
 * Callbacks run on the scheduler thread with no lock held. */
#ifndef HD_ENGINE_ENGINE_IMPL_H
#define HD_ENGINE_ENGINE_IMPL_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/buf.h"
#include "base/pool.h"
#include "engine/blocks.h"
#include "engine/constraint.h"
#include "engine/memory.h"
#include "engine/policy.h"
#include "engine/sampler.h"
#include "engine/spill.h"
#include "engine/thinking.h"
#include "holdfast/holdfast.h"
#include "model/encoder.h"
#include "model/model.h"
#include "store/store.h"
#include "token/token.h"

enum {
    HD_MAX_MODELS = 32,
    HD_OUT_ROWS = 64, /* rows of logits held at once */
    HD_MAX_STOPS = 16,
    HD_MAX_STOP_BYTES = 4096,
    HD_EMBED_SEQS = 256, /* texts in one batch of an encoder */
    HD_EXTRA_ENDS = 8,
};

enum hd_repack_mode { HD_REPACK_AUTO, HD_REPACK_OFF, HD_REPACK_CACHE };

/* Where a model's repacked weights are kept (repacking.c). path NULL: nowhere. */
struct hd_repacking {
    char *path;
    char identity[65];
    struct hd_model_cache cache; /* of these */
    double delay_s;              /* from the weights being in memory to writing */
};

/* What brings a model's weights into memory (loader.c). */
struct hd_loader {
    pthread_t *thread;
    int n_thread;
    bool started, resident; /* the file was in the page cache when loading began */
    double start;
    atomic_bool stop, loaded;
    atomic_int n_running;
    pthread_mutex_t mu; /* guards what follows */
    pthread_cond_t done;
    double load_s; /* fixed once loaded */
};

/* Texts that go through an encoder together; between turns of the scheduler, if it takes long. A
 * job that ends meanwhile leaves NULL. */
struct hd_embed_batch {
    int64_t n;
    int n_seq;     /* 0: none is under way */
    unsigned what; /* of all its texts */
    struct {
        struct hd_embed_job *job;
        size_t text;
    } of_seq[HD_EMBED_SEQS];
};

/* A loaded model. The first group is immutable once attached to the engine; the second belongs to
 * the scheduler thread. */
struct hd_loaded {
    char *name, *path;
    struct hd_store *store;
    struct hd_tokenizer *tokenizer; /* NULL: the model carries none */
    struct hd_model *model;
    const struct hd_hparams *hp;
    bool add_bos;                                /* to plain prompts */
    int32_t think_open, think_close;             /* ids of <think> and </think>, or -1 */
    _Atomic(struct hd_grammar_cache *) grammars; /* made by the first request that needs it */
    _Atomic(struct hd_think_lexicon *) lexicon;  /* as well */
    int n_ctx, n_row_max, n_out_max;
    double prompt_rate; /* rows of prompts a second in recent passes, 0 = none yet; scheduler's */
    int64_t created;
    struct hd_loader loader;
    struct hd_repacking repacking;
    struct hd_memory memory;      /* what was left when this model was loaded, less what it takes */
    struct hd_block_key root_key; /* of all that a block's content depends on besides ids, tenant */

    /* encoders have these, and none of what follows */
    struct hd_encoder *encoder;
    struct hd_embed_job *jobs; /* oldest first */
    struct hd_embed_batch under_way;
    int32_t cls, sep, unk, pad; /* ids of special tokens, or -1; immutable */
    float *row_out;             /* [n_row_max] */

    struct hd_runner *runner;
    struct hd_blocks *blocks;  /* NULL in an encoder */
    struct hd_policy *policy;  /* NULL in an encoder: who waits and runs */
    struct hd_plan_item *plan; /* [max_sessions] */
    struct hd_spill *spill;    /* the engine's, or NULL */
    void *spill_block;         /* one block's bytes */
    uint64_t disk_written, disk_read;
    /* one step's batch */
    int32_t *ids, *positions, *out_rows; /* [n_row_max] */
    struct hd_seq_rows *seqs;            /* [max_sessions] */
    struct hd_session **of_seq;          /* [max_sessions] */
    struct hd_candidate *candidates;     /* [threads of the pool, n_vocab] */
    struct hd_pick *picks;               /* [max_sessions] */
};

/* One token to be chosen. */
struct hd_pick {
    struct hd_session *session;
    float *logits;
    int32_t id; /* the choice, or -1 */
};

/* One request. Made by the submitting thread, then owned by the scheduler.
 *
 * Its sequence is ids[0 … w.n_id): the prompt, then what was generated. KV exists for the first
 * w.n_done of them. n_done < n_prompt: prefill (prompt form). Else the next row to feed is
 * ids[n_done] (decode form); when that is the last id, a new one is sampled. A session that lost
 * its blocks starts again at n_done = 0 and replays both parts in the same forms, hence with the
 * same results, without sampling. */
struct hd_session {
    struct hd_work w; /* first: what the policy sees of it, with id and counts */
    struct hd_loaded *model;
    struct hd_callbacks callbacks;
    atomic_bool cancelled;
    struct hd_session *next;                /* in the inbox, or among siblings */
    struct hd_session *all_prev, *all_next; /* list of all, guarded by mu */

    int32_t *ids; /* [w.n_prompt + n_max] */
    int n_max;
    char *tenant, *key_id;
    int weight;
    struct hd_turn *turn; /* NULL: nothing to prepare after it */
    /* Other answers to the same request. They wait here, unknown to the policy, until this one's
     * prompt is computed (fork.c). */
    struct hd_session *siblings;
    float *first_logits; /* [n_vocab] of the prompt's last row, where a sibling computed it */

    struct hd_sampler *sampler;
    struct hd_splitter *splitter; /* NULL without a tokenizer */
    char *stop_text[HD_MAX_STOPS];
    size_t n_stop;
    bool ignore_end;
    bool in_reasoning;
    struct hd_constraint *constraint; /* NULL: the answer is free */
    struct hd_logprobs *logprobs;     /* NULL: not asked for */
    int32_t extra_end[HD_EXTRA_ENDS]; /* that end this text beside the model's own */
    size_t n_extra_end;
    struct hd_thinking *thinking; /* NULL: nothing is watched or steered */
    bool to_context_end;          /* n_max is what the context leaves */
    int32_t watch[HD_WATCH_MAX];
    size_t n_watch;

    double t_submit, t_admit, t_first, deadline; /* deadline 0: none */
    struct hd_engine *engine;                    /* that it was submitted to */
    double work_before;                          /* its work_s then */
    bool has_text;                               /* the first text is out */
    bool admitted;
    struct hd_result result;
};

struct hd_embed_weight { /* of a token, in a sparse vector */
    int32_t id;
    float weight;
};

/* One text of a job, tokenized. */
struct hd_embed_row {
    size_t begin; /* in the job's ids */
    int n;        /* tokens */
    bool truncated;
};

/* A request for vectors or scores. Made by the submitting thread, then owned by the scheduler. */
struct hd_embed_job {
    uint64_t id;
    struct hd_loaded *model;
    hd_embed_fn on_done;
    void *ud;
    atomic_bool cancelled;
    struct hd_embed_job *next;                /* in the inbox, then in the model's list */
    struct hd_embed_job *all_prev, *all_next; /* list of all, guarded by mu */
    unsigned what;
    struct hd_embed_row *rows; /* [n] */
    struct hd_ids ids, types;  /* of all texts */
    size_t n, n_taken, n_done;
    double t_submit, t_start, deadline;
    struct hd_embeddings *out;
    size_t colbert_left; /* floats that may still be allocated */
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
    enum hd_preload preload;
    enum hd_repack_mode repack;
    bool kv8;
    char *cache_dir; /* of repacked weights; NULL: none */
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
    struct hd_embed_job *job_inbox, *all_jobs;
    int n_job; /* submitted and not done */
    struct hd_call *calls;
    bool stopping;
    bool stepping; /* inside a step: for last_step_age_s */
    bool working;  /* inside one since work_start; work_s: of the steps before */
    double work_start, work_s;
    uint64_t next_id;
    double last_step_end;
    struct hd_engine_stats stats;

    /* the scheduler's */
    size_t n_seen;         /* models that this step knows */
    struct hd_turn *turns; /* to be prepared, latest first */
    bool idle_work;        /* there may be something to do while nobody waits */
    double last_request;   /* when a step last worked for one; the scheduler's own */
    struct hd_spill *spill;
};

/* engine.c */
/* A language model by name, NULL or "": the first. NOTFOUND, or UNSUPPORTED for an encoder. */
enum hd_err hd_engine__language(struct hd_loaded **out, struct hd_engine *engine, const char *name,
                                struct hd_errmsg *msg);
/* By name, or the first of a kind; NULL where there is none. */
struct hd_loaded *hd_engine__find(struct hd_engine *engine, const char *name);
struct hd_loaded *hd_engine__find_kind(struct hd_engine *engine, enum hd_model_kind kind);
enum hd_model_kind hd_loaded__kind(const struct hd_loaded *m);
/* Runs fn on the scheduler thread and waits. UNAVAILABLE while stopping. */
enum hd_err hd_engine__call(struct hd_engine *engine, void (*fn)(struct hd_engine *, void *),
                            void *ud);
void hd_loaded__free(struct hd_loaded *m); /* load.c */

/* loader.c */
/* Starts the threads; background false: nothing is read before it is used. loader.start is set. */
enum hd_err hd_loader__start(struct hd_loaded *m, int n_thread, bool background,
                             struct hd_errmsg *msg);
void hd_loader__stop(struct hd_loaded *m);

/* logprobs.c */
struct hd_logprobs;
enum hd_err hd_logprobs__new(struct hd_logprobs **out, int n_top, int n_vocab);
void hd_logprobs__free(struct hd_logprobs *logprobs); /* NULL is fine */
/* Keeps a row before it is changed; then tells the caller of the token taken from it. */
void hd_logprobs__keep(struct hd_logprobs *logprobs, const float *logits, int n_vocab, double norm);
void hd_logprobs__report(struct hd_logprobs *logprobs, const struct hd_session *s, int32_t id);

/* repacking.c: repacked weights on disk. */
/* Decides whether this model's copies are kept there, makes room, and names the file. */
void hd_repacking__plan(struct hd_engine *engine, struct hd_loaded *m);
/* The cache for hd_model_reserve; NULL where there is none. */
const struct hd_model_cache *hd_repacking__cache(const struct hd_loaded *m);
/* On the loader's last thread, when all is in memory: writes it, if it has to be. */
void hd_repacking__save(struct hd_loaded *m);

/* scheduler.c */
void *hd_scheduler__main(void *engine);
int hd_scheduler__n_running(const struct hd_engine *engine); /* of all models */
/* Seconds at work in steps so far; with mu held. */
double hd_scheduler__work_locked(const struct hd_engine *engine);

/* embed_step.c: the scheduler's part of encoders. */
void hd_embed__take_inbox_locked(struct hd_engine *engine);
/* Ends jobs that are cancelled, late or, while stopping, all. */
void hd_embed__sweep(struct hd_engine *engine, struct hd_loaded *m, bool stopping);
/* Some hundredths of a second of a batch; false where there was nothing to do. */
bool hd_embed__step(struct hd_engine *engine, struct hd_loaded *m);
void hd_embed__job_free(struct hd_embed_job *job);

/* turn.c: conversations whose next turn is prepared while idle. */
struct hd_turn {
    struct hd_turn *next;
    struct hd_loaded *model;
    struct hd_chat_message *message; /* [n_message], strings owned */
    size_t n_message;
    char *tools, *tenant;
    bool no_think, ask_think;
    struct hd_buf answer, calls; /* calls: JSON objects, each with its NUL */
};
/* NULL where it is not worth it, or without memory. */
struct hd_turn *hd_turn__new(struct hd_loaded *m, const struct hd_request *r, const char *tenant);
void hd_turn__free(struct hd_turn *t);
void hd_turn__text(struct hd_turn *t, enum hd_text_kind kind, const char *text, size_t len);
/* The answer is complete: takes t over. */
void hd_turn__push(struct hd_engine *engine, struct hd_turn *t);
/* Makes the latest turn the background work of its model, unless that has one. */
void hd_turn__start(struct hd_engine *engine);
void hd_turn__end(struct hd_engine *engine, struct hd_session *s);

/* spilling.c: KV blocks to disk and back, on the scheduler thread. */
void hd_spilling__attach(struct hd_engine *engine, struct hd_loaded *m);
/* Brings back what running prompts can use; a few blocks a step. */
void hd_spilling__restore(struct hd_engine *engine, struct hd_loaded *m);
/* Saves one block; false where none is left. */
bool hd_spilling__save_one(struct hd_engine *engine);

/* fork.c: s's prompt is computed and `logits` are its last row's. Lets its siblings begin behind
 * the same prompt: with its KV, as picks (returns how many), or, without place for that, as any
 * request. */
int hd_fork__siblings(struct hd_engine *engine, struct hd_session *s, const float *logits,
                      struct hd_pick *picks);
void hd_scheduler__note_admitted(struct hd_engine *engine, struct hd_session *s);

/* session.c */
/* The next id for a row of logits, which it changes: forced, or sampled among what is not ruled
 * out. -1 where no logit is a number, or nothing may come. norm: log of the sum of the logits'
 * exponentials; scratch: [n_vocab]. Different sessions may pick at the same time, except those
 * that pick alone: grammars are shared. */
int32_t hd_session__pick(struct hd_session *s, float *logits, double norm,
                         struct hd_candidate *scratch);
bool hd_session__picks_alone(const struct hd_session *s);
void hd_session__free(struct hd_session *s); /* without its siblings */
/* Feeds one sampled token: records it, streams it, decides whether the session ends. */
void hd_session__token(struct hd_engine *engine, struct hd_session *s, int32_t id);
/* Ends it, and siblings that still wait for it: last text, blocks back, on_done, freed. err for
 * HD_FINISH_ERROR. */
void hd_session__finish(struct hd_engine *engine, struct hd_session *s, enum hd_finish finish,
                        enum hd_err err, const char *why);

#endif
