/* A language model: mapped weights and the forward pass over batches of rows. Encoders are loaded
 * by the same call; their pass is encoder.h's.
 *
 * hd_model is immutable after loading and may be shared. hd_runner holds what a forward pass
 * writes (activations, the KV cache, a stream); it belongs to one thread, the scheduler. The KV
 * cache is a set of blocks of HD_KV_BLOCK tokens; who owns which block is the caller's business
 * (engine/blocks.h), the runner only reads and writes through block tables. A forward pass
 * allocates nothing.
 *
 * Shapes are [slowest … fastest]; n = rows of the batch (one row = one token). */
#ifndef HD_MODEL_MODEL_H
#define HD_MODEL_MODEL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/pool.h"
#include "kernels/backend.h"
#include "model/hparams.h"
#include "store/store.h"

struct hd_model;
struct hd_runner;

/* How weights come into memory. Back ends with a layout of their own make one copy of the weights
 * in it (x86), the others (ref) compute from the file's map.
 *
 *          copy                                      no copy
 *   MMAP   in the background, in memory of its own   the map is read ahead
 *   SHM    the copy lies in /dev/shm and is found    the file's rows are copied there likewise
 *          again by the next process
 *   MEMFD  the copy is sealed once it is made        the rows are copied there likewise
 *   NONE   a weight is copied when first used        pages come when touched */
enum hd_preload { HD_PRELOAD_MMAP, HD_PRELOAD_SHM, HD_PRELOAD_MEMFD, HD_PRELOAD_NONE };

/* Copies that outlive the process on disk (kernels/repack.h), for HD_PRELOAD_MMAP. */
struct hd_model_cache {
    const char *path;     /* of the file */
    const char *identity; /* 64 hexadecimal digits: of the model's file in its present state */
    bool always_map;      /* use the file's pages even where they are small ones */
    bool source_resident; /* the model's file lies in memory: repacking beats reading a disk */
};

/* Reads and checks the hyper-parameters, then binds every tensor by name, each with its shape
 * checked. `store` is borrowed and must outlive the model (weights point into its maps); `pool` is
 * used during the call only. FORMAT names the missing or misshapen tensor. The model can run when
 * the call returns, slowly: its copies are still to be made. with_mtp: the multi-token-prediction
 * layer too, where the checkpoint has one (hd_model_has_mtp); its KV is then part of every block.
 */
enum hd_err hd_model_bind(struct hd_model **out, const struct hd_store *store,
                          const struct hd_backend *backend, struct hd_pool *pool,
                          enum hd_preload preload, bool with_mtp, struct hd_errmsg *msg);
/* No copies at all: every product repacks what it needs on its way, each time, and the weights live
 * in the files' maps alone. Instead of hd_model_reserve. */
void hd_model_without_copies(struct hd_model *model);
/* Takes the memory for the copies (hd_model_copy_bytes); once, before anyone works or computes.
 * key: names the shared copy (HD_PRELOAD_SHM). cache: nullable; copies found there are used, once
 * each piece's checksum is right. */
enum hd_err hd_model_reserve(struct hd_model *model, const char *key,
                             const struct hd_model_cache *cache, struct hd_errmsg *msg);
/* A digest, 64 hexadecimal digits, of what a cache of this model depends on besides the contents of
 * its files: which weights are repacked, in which types and shapes. */
enum hd_err hd_model_copies_digest(const struct hd_model *model, char hex[65]);
/* After hd_model_seal, beside passes: writes the cache where none was found or some of it was
 * wrong, then lets the file's pages take the place of the copies. CANCELLED where *stop became
 * true. BUSY where another process writes it. */
enum hd_err hd_model_save_copies(struct hd_model *model, const struct hd_model_cache *cache,
                                 const atomic_bool *stop, struct hd_errmsg *msg);
/* Makes copies, or reads the map, until nothing is left to take or *stop becomes true. Any number
 * of threads may work at once, also while the model computes. */
void hd_model_work(struct hd_model *model, const atomic_bool *stop);
/* All threads have returned from hd_model_work, and none because of *stop: waits for what passes
 * are still making on their way. */
void hd_model_wait(const struct hd_model *model);
/* After that: copies become read-only. */
void hd_model_seal(struct hd_model *model);
size_t hd_model_copy_bytes(const struct hd_model *model);
/* A probe: reads the copies once (hd_backend_read_weights); 0 where there are none. */
uint64_t hd_model_read_copies(const struct hd_model *model, struct hd_pool *pool, uint64_t most);
size_t hd_model_work_bytes(const struct hd_model *model); /* all that hd_model_work has to do */
size_t hd_model_made_bytes(const struct hd_model *model); /* of these, done */
bool hd_model_found(const struct hd_model *model);        /* a shared or cached copy was there */
/* All of it at once, with the MTP layer. */
enum hd_err hd_model_load(struct hd_model **out, const struct hd_store *store,
                          const struct hd_backend *backend, struct hd_pool *pool,
                          struct hd_errmsg *msg);
void hd_model_free(struct hd_model *model); /* NULL is fine */

const struct hd_hparams *hd_model_hparams(const struct hd_model *model);
const struct hd_backend *hd_model_backend(const struct hd_model *model);
/* Bytes of the file's tensors that one generated token reads: every matrix and vector, of the
 * experts the share that is used, of the embedding nothing unless it is the output matrix too. */
size_t hd_model_weight_bytes_per_token(const struct hd_model *model);
/* The multi-token-prediction layer was asked for and is there: hd_runner_draft may be called. */
bool hd_model_has_mtp(const struct hd_model *model);
/* Keeps KV in 8 bits (Q8_0) instead of the back end's own type; before a runner is made.
 * UNSUPPORTED where kernels or head sizes cannot, with a sentence. */
enum hd_err hd_model_set_kv8(struct hd_model *model, struct hd_errmsg *msg);
/* Bytes of KV cache per block of HD_KV_BLOCK tokens, all layers. */
size_t hd_model_kv_block_bytes(const struct hd_model *model);

struct hd_runner_options {
    int64_t n_row_max; /* rows per forward pass */
    int64_t n_out_max; /* rows per hd_runner_logits call */
    int64_t n_ctx;     /* longest sequence */
    int64_t n_block;   /* KV blocks */
};
/* Bytes that a runner allocates, without its KV cache. 0 where the sizes overflow. */
size_t hd_runner_scratch_bytes(const struct hd_model *model,
                               const struct hd_runner_options *options);
/* The model and the pool are borrowed. */
enum hd_err hd_runner_new(struct hd_runner **out, const struct hd_model *model,
                          struct hd_pool *pool, const struct hd_runner_options *options,
                          struct hd_errmsg *msg);
void hd_runner_free(struct hd_runner *runner); /* NULL is fine */
/* Gives working memory back until the next pass; KV stays, kept rows do not. */
void hd_runner_trim(struct hd_runner *runner);
/* One block's KV of all layers to host memory (hd_model_kv_block_bytes) and back. */
void hd_runner_kv_download(struct hd_runner *runner, void *host, int32_t block);
void hd_runner_kv_upload(struct hd_runner *runner, int32_t block, const void *host);

/* Rows of one or several sequences, all in one form (design decision 12: prompt rows in PROMPT,
 * generated ones in DECODE; chunks of a prompt end at multiples of HD_KV_BLOCK or at its end). */
struct hd_batch {
    const int32_t *ids;             /* [n], each in [0, n_vocab) */
    const int32_t *positions;       /* [n] */
    int64_t n;                      /* ≤ n_row_max */
    const struct hd_seq_rows *seqs; /* cover the rows in order */
    int n_seq;
    enum hd_form form;
    const int32_t *out_rows; /* [n_out], ascending: rows whose logits may be asked for */
    int64_t n_out;
};
/* Runs the rows through all layers: writes their KV, keeps the last hidden state of out_rows.
 * On failure (scratch memory) the KV of these rows is undefined. */
enum hd_err hd_runner_forward(struct hd_runner *runner, const struct hd_batch *batch,
                              struct hd_errmsg *msg);
/* Logits of the kept rows [begin, begin + n), n ≤ n_out_max: logits [n, n_vocab], host memory. */
enum hd_err hd_runner_logits(struct hd_runner *runner, float *logits, int64_t begin, int64_t n,
                             struct hd_errmsg *msg);
/* The same without a copy where the back end's memory is the host's: *logits is the runner's, the
 * caller's to change, until the runner's next call. */
enum hd_err hd_runner_logits_view(struct hd_runner *runner, float **logits, int64_t begin,
                                  int64_t n, struct hd_errmsg *msg);

/* The MTP layer (mtp.c): drafts the token after the next one. Row k of the batch goes on from row
 * rows[k] of the last hd_runner_forward: ids[k] is the token that followed that row, positions and
 * seqs are that row's own. Writes the layer's KV under the same block tables, so every row of a
 * sequence has to pass through here once, in order. The draft's logits are read like a pass's:
 * out_rows are kept, then hd_runner_logits. Rows [n], ascending, below the last pass's n. */
enum hd_err hd_runner_draft(struct hd_runner *runner, const struct hd_batch *batch,
                            const int32_t *rows, struct hd_errmsg *msg);

/* --- for tests ----------------------------------------------------------------------------- */

/* Called for each MoE layer of each forward pass with the chosen experts [n, n_expert_used]. */
typedef void (*hd_runner_route_fn)(void *ud, int layer, const int32_t *experts, int64_t n,
                                   int n_used);
void hd_runner_on_route(struct hd_runner *runner, hd_runner_route_fn fn, void *ud);

#endif
