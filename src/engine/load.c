/* Loading a model into the engine: files, weights, KV memory, batch buffers. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/checked.h"
#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "engine/engine_impl.h"
#include "engine/memory.h"
#include "kernels/arena.h"

void hd_loaded__free(struct hd_loaded *m)
{
    if (!m)
        return;
    hd_loader__stop(m);
    hd_encoder_free(m->encoder);
    free(m->row_out);
    hd_runner_free(m->runner);
    hd_model_free(m->model);
    hd_grammar_cache_free(atomic_load(&m->grammars));
    hd_think_lexicon_free(atomic_load(&m->lexicon));
    hd_tokenizer_free(m->tokenizer);
    hd_store_close(m->store);
    hd_policy_free(m->policy);
    hd_blocks_free(m->blocks);
    free(m->repacking.path);
    free(m->plan);
    free(m->spill_block);
    free(m->ids);
    free(m->positions);
    free(m->out_rows);
    free(m->seqs);
    free(m->of_seq);
    free(m->candidates);
    free(m->picks);
    free(m->name);
    free(m->path);
    free(m);
}

static double mb(size_t bytes)
{
    return (double)bytes / 1e6;
}

/* Whether a plain prompt begins with BOS: as the checkpoint says; Llama's tokenizer.json does it in
 * its post-processor, without a word in tokenizer_config.json. */
static bool wants_bos(const struct hd_loaded *m)
{
    bool add;
    if (!m->tokenizer || hd_tokenizer_bos(m->tokenizer) < 0)
        return false;
    if (hd_store_format(m->store) == HD_STORE_GGUF) {
        if (hd_store_bool(m->store, "tokenizer.ggml.add_bos_token", &add))
            return add;
    } else {
        const json_t *v = json_object_get(hd_store_tokenizer_config(m->store), "add_bos_token");
        if (json_is_boolean(v))
            return json_is_true(v);
    }
    return m->hp->arch != HD_ARCH_QWEN2;
}

static enum hd_err open_files(struct hd_loaded *m, struct hd_errmsg *msg)
{
    enum hd_err err = hd_store_open(&m->store, m->path, msg);
    if (err)
        return err;
    err = hd_tokenizer_new(&m->tokenizer, m->store, msg);
    if (err == HD_ERR_NOTFOUND) { /* enough for ids in, log-probabilities out */
        m->tokenizer = NULL;
        err = HD_OK;
    }
    return err;
}

/* Copies that models loaded before are still to make: memory that is promised, not yet taken. */
static size_t promised(struct hd_engine *e)
{
    size_t sum = 0;
    pthread_mutex_lock(&e->mu);
    for (size_t i = 0; i < e->n_model; i++)
        if (!atomic_load(&e->model[i]->loader.loaded)) {
            const struct hd_model *other = e->model[i]->model;
            size_t made = hd_model_made_bytes(other), all = hd_model_copy_bytes(other);
            sum += made < all ? all - made : 0;
        }
    pthread_mutex_unlock(&e->mu);
    return sum;
}

static enum hd_err refuse_weights(const struct hd_loaded *m, size_t need, struct hd_errmsg *msg)
{
    return hd_fail(msg, HD_ERR_LIMIT,
                   "%s: the weights need %.0f MB of memory, %s has %.0f MB of %.0f MB left "
                   "(use a smaller model or a stronger quantisation, or give it more memory)",
                   m->path, mb(need), m->memory.who, mb(m->memory.left), mb(m->memory.limit));
}

/* Binding a folder may already make copies: of experts, which lie in many tensors, and of quantised
 * matrices in several parts. */
static enum hd_err check_folder(struct hd_engine *e, struct hd_loaded *m, struct hd_errmsg *msg)
{
    size_t owed = promised(e), need = 0;
    if (!strcmp(hd_backend_name(e->backend), "ref"))
        return HD_OK;
    for (size_t i = 0; i < hd_store_n_tensor(m->store); i++)
        if (!hd_add(&need, need, hd_store_tensor_at(m->store, i)->bytes))
            need = SIZE_MAX;
    hd_memory_look(&m->memory, e->options.system_root ? e->options.system_root : "");
    m->memory.left -= owed < m->memory.left ? owed : m->memory.left;
    return need <= m->memory.left ? HD_OK : refuse_weights(m, need, msg);
}

/* What is left for this model. A copy that does not fit is refused here, before anything is
 * reserved: later it would be the kernel that ends the process. */
static enum hd_err check_memory(struct hd_engine *e, struct hd_loaded *m, struct hd_errmsg *msg)
{
    struct hd_memory *now = &m->memory;
    size_t owed = promised(e), need = hd_model_copy_bytes(m->model);
    hd_memory_look(now, e->options.system_root ? e->options.system_root : "");
    now->left -= owed < now->left ? owed : now->left;
    if (need > now->left)
        return refuse_weights(m, need, msg);
    now->left -= need;
    return HD_OK;
}

/* The shared copy's name: which model file, in which state, copied by which program. Only the same
 * program is sure to mean the same layout. */
static enum hd_err shared_key(char key[128], const struct hd_engine *e, const struct hd_loaded *m,
                              struct hd_errmsg *msg)
{
    char path[65], identity[65], all[65];
    struct stat st = {0};
    enum hd_err err = hd_store_identity(m->store, identity);
    if (!err)
        err = hd_sha256_hex(path, m->path, strlen(m->path));
    if (!err && stat("/proc/self/exe", &st))
        err = HD_ERR_IO;
    if (err)
        return hd_fail(msg, err, "%s: cannot name a shared copy: %s", m->path, hd_err_text(err));
    bool packed = strcmp(hd_backend_name(e->backend), "ref") != 0;
    char text[256];
    int n = snprintf(text, sizeof text, "%s %d %lld %lld.%ld", identity, packed,
                     (long long)st.st_size, (long long)st.st_mtim.tv_sec, st.st_mtim.tv_nsec);
    err = hd_sha256_hex(all, text, (size_t)n);
    snprintf(key, 128, "%.16s-%.32s", path, all);
    return err;
}

/* Copies of this model that its file, its kernels or the program have outdated; with --preload none
 * the current one too. */
static void remove_outdated(const struct hd_engine *e, const char *key)
{
    char prefix[18];
    snprintf(prefix, sizeof prefix, "%.17s", key); /* "PATH-" */
    int n = hd_arena_remove(prefix, e->preload == HD_PRELOAD_SHM ? key : NULL);
    if (n)
        hd_log(HD_LOG_INFO, "engine", "shared copies removed n=%d", n);
}

static enum hd_err bind_model(struct hd_engine *e, struct hd_loaded *m, struct hd_errmsg *msg)
{
    struct hd_pool *pool =
        NULL; /* the engine's belongs to the scheduler, which goes on meanwhile */
    enum hd_err err = hd_store_format(m->store) == HD_STORE_HF ? check_folder(e, m, msg) : HD_OK;
    if (err)
        return err;
    err = hd_pool_new(&pool, e->options.n_thread); /* matrices in parts are put together here */
    if (err)
        return hd_fail(msg, err, "%s: cannot start threads", m->path);
    err = hd_model_bind(&m->model, m->store, e->backend, pool, e->preload, e->options.mtp, msg);
    hd_pool_free(pool);
    if (err)
        return err;
    m->hp = hd_model_hparams(m->model);
    if (e->kv8 && m->hp->arch != HD_ARCH_BERT && (err = hd_model_set_kv8(m->model, msg)))
        return err;
    if (e->repack == HD_REPACK_OFF)
        hd_model_without_copies(m->model);
    if (m->tokenizer && hd_tokenizer_n_vocab(m->tokenizer) > (size_t)m->hp->n_vocab)
        return hd_fail(msg, HD_ERR_FORMAT,
                       "%s: the tokenizer has %zu entries, the model only %d (files of different "
                       "models?)",
                       m->path, hd_tokenizer_n_vocab(m->tokenizer), m->hp->n_vocab);
    return HD_OK;
}

static enum hd_err reserve_weights(struct hd_engine *e, struct hd_loaded *m, struct hd_errmsg *msg)
{
    char key[128] = "";
    enum hd_err err = HD_OK;
    if (e->preload == HD_PRELOAD_SHM || e->preload == HD_PRELOAD_NONE) {
        err = shared_key(key, e, m, msg);
        if (!err)
            remove_outdated(e, key);
    }
    if (err)
        return err;
    m->loader.resident = hd_store_resident(m->store);
    hd_repacking__plan(e, m);
    return hd_model_reserve(m->model, key, hd_repacking__cache(m), msg);
}

/* Sets n_ctx and returns the number of KV blocks: as many as the budget holds, at most what all
 * sessions could use together. */
static enum hd_err size_kv(const struct hd_engine *e, struct hd_loaded *m, int n_ctx,
                           int64_t *n_block, struct hd_errmsg *msg)
{
    size_t block = hd_model_kv_block_bytes(m->model), left = m->memory.left;
    size_t budget = e->options.kv_bytes_max ? e->options.kv_bytes_max : left / 4;
    size_t fits = budget / block;
    int want = n_ctx ? n_ctx : m->hp->n_ctx;
    if (n_ctx > m->hp->n_ctx)
        return hd_fail(msg, HD_ERR_INVALID,
                       "%s: a context of %d tokens was asked for, the model was made for %d",
                       m->path, n_ctx, m->hp->n_ctx);
    size_t need = (size_t)hd_work_blocks_for(want);
    if (!fits || (n_ctx && fits < need))
        return hd_fail(msg, HD_ERR_LIMIT,
                       "%s: the KV cache of %d tokens needs %.0f MB, %.0f MB are allowed (lower "
                       "--ctx or raise --kv-bytes)",
                       m->path, fits ? want : HD_KV_BLOCK, mb((fits ? need : 1) * block),
                       mb(budget));
    size_t most = need * (size_t)e->options.max_sessions;
    m->n_ctx = fits < need ? (int)(fits * HD_KV_BLOCK) : want;
    fits = fits < most ? fits : most;
    if (fits * block > left)
        return hd_fail(msg, HD_ERR_LIMIT,
                       "%s: a KV cache of %.0f MB was asked for; beside the weights' %.0f MB, %s "
                       "has %.0f MB of %.0f MB left (lower --kv-bytes or --ctx, or use a smaller "
                       "model)",
                       m->path, mb(fits * block), mb(hd_model_copy_bytes(m->model)), m->memory.who,
                       mb(left), mb(m->memory.limit));
    *n_block = fits < 1 << 26 ? (int64_t)fits : 1 << 26;
    m->memory.left -= (size_t)*n_block * block;
    return HD_OK;
}

static enum hd_err new_buffers(struct hd_engine *e, struct hd_loaded *m)
{
    size_t rows = (size_t)m->n_row_max, n = (size_t)e->options.max_sessions;
    m->ids = calloc(rows, sizeof *m->ids);
    m->positions = calloc(rows, sizeof *m->positions);
    m->out_rows = calloc(rows, sizeof *m->out_rows);
    m->seqs = calloc(n, sizeof *m->seqs);
    m->of_seq = calloc(n, sizeof *m->of_seq);
    m->plan = calloc(n, sizeof *m->plan);
    m->candidates =
        calloc((size_t)hd_pool_threads(e->pool) * (size_t)m->hp->n_vocab, sizeof *m->candidates);
    m->picks = calloc(n, sizeof *m->picks);
    return m->ids && m->positions && m->out_rows && m->seqs && m->of_seq && m->plan &&
                   m->candidates && m->picks
               ? HD_OK
               : HD_ERR_NOMEM;
}

static enum hd_err new_runner(struct hd_engine *e, struct hd_loaded *m, int n_ctx,
                              struct hd_errmsg *msg)
{
    int64_t n_block = 0;
    enum hd_err err = size_kv(e, m, n_ctx, &n_block, msg);
    if (err)
        return err;
    m->n_row_max = e->options.max_batch_tokens > e->options.max_sessions
                       ? e->options.max_batch_tokens
                       : e->options.max_sessions;
    m->n_out_max = e->options.max_sessions < HD_OUT_ROWS ? e->options.max_sessions : HD_OUT_ROWS;
    struct hd_runner_options o = {m->n_row_max, m->n_out_max, m->n_ctx, n_block};
    /* Expanded MLA needs scratch for a whole context: shorten an unasked-for one to what fits. */
    size_t left = m->memory.left, scratch;
    while (((scratch = hd_runner_scratch_bytes(m->model, &o)) == 0 || scratch > left) && !n_ctx &&
           o.n_ctx > 4 * HD_KV_BLOCK)
        o.n_ctx /= 2;
    if (!scratch || scratch > left)
        return hd_fail(msg, HD_ERR_LIMIT,
                       "%s: %lld tokens of context need %.0f MB of working memory; beside the "
                       "weights' %.0f MB and the KV cache, %s has %.0f MB of %.0f MB left (lower "
                       "--ctx, --kv-bytes or --max-batch-tokens)",
                       m->path, (long long)o.n_ctx, mb(scratch), mb(hd_model_copy_bytes(m->model)),
                       m->memory.who, mb(left), mb(m->memory.limit));
    m->n_ctx = (int)o.n_ctx;
    err = hd_runner_new(&m->runner, m->model, e->pool, &o, msg);
    if (!err && ((err = hd_blocks_new(&m->blocks, (int32_t)n_block)) ||
                 (err = hd_policy_new(&m->policy, m->blocks, e->options.max_sessions)) ||
                 (err = new_buffers(e, m))))
        err = hd_fail(msg, err, "%s: no memory for the batch buffers", m->path);
    if (!err)
        hd_spilling__attach(e, m);
    return err;
}

/* The first of two names that the tokenizer knows as a special token, or -1. */
static int32_t special_of(const struct hd_loaded *m, const char *name, const char *other)
{
    int32_t id = m->tokenizer ? hd_tokenizer_special(m->tokenizer, name) : -1;
    return id < 0 && m->tokenizer ? hd_tokenizer_special(m->tokenizer, other) : id;
}

/* A text is computed whole, so a step holds the longest one. */
static enum hd_err new_encoder(struct hd_engine *e, struct hd_loaded *m, int n_ctx,
                               struct hd_errmsg *msg)
{
    m->n_ctx = n_ctx && n_ctx < m->hp->n_ctx ? n_ctx : m->hp->n_ctx;
    m->n_row_max = e->options.max_batch_tokens > m->n_ctx ? e->options.max_batch_tokens : m->n_ctx;
    m->cls = special_of(m, "[CLS]", "<s>");
    m->sep = special_of(m, "[SEP]", "</s>");
    m->unk = special_of(m, "[UNK]", "<unk>");
    m->pad = special_of(m, "[PAD]", "<pad>");
    size_t left = m->memory.left;
    size_t scratch = hd_encoder_scratch_bytes(m->model, m->n_row_max, HD_EMBED_SEQS);
    if (!scratch || scratch > left)
        return hd_fail(msg, HD_ERR_LIMIT,
                       "%s: texts of %d tokens need %.0f MB of working memory, %.0f MB are free "
                       "(lower --ctx)",
                       m->path, m->n_ctx, mb(scratch), mb(left));
    m->ids = calloc((size_t)m->n_row_max, sizeof *m->ids);
    m->positions = calloc((size_t)m->n_row_max, sizeof *m->positions);
    m->seqs = calloc(HD_EMBED_SEQS, sizeof *m->seqs);
    m->row_out = calloc((size_t)m->n_row_max, sizeof *m->row_out);
    if (!m->ids || !m->positions || !m->seqs || !m->row_out)
        return hd_fail(msg, HD_ERR_NOMEM, "%s: no memory for the batch buffers", m->path);
    return hd_encoder_new(&m->encoder, m->model, e->pool, m->n_row_max, HD_EMBED_SEQS, msg);
}

/* What a block's content depends on besides its ids and the tenant: which model file in which
 * state, form, kernels, KV type, and, since blocks may outlive the process, the program. */
static enum hd_err set_root_key(const struct hd_engine *e, struct hd_loaded *m)
{
    char text[512], identity[65], hex[65];
    struct stat st = {0};
    enum hd_err err = hd_store_identity(m->store, identity);
    if (!err && stat("/proc/self/exe", &st))
        err = HD_ERR_IO;
    int n =
        err ? 0
            : snprintf(text, sizeof text, "holdfast kv 3 prompt %.200s %s %s %zu %s %lld %lld.%ld",
                       m->name, hd_backend_name(e->backend), e->kv8 ? "q8" : "own",
                       hd_model_kv_block_bytes(m->model), identity, (long long)st.st_size,
                       (long long)st.st_mtim.tv_sec, st.st_mtim.tv_nsec);
    if (!err)
        err = hd_sha256_hex(hex, text, n < (int)sizeof text ? (size_t)n : sizeof text - 1);
    if (!err)
        memcpy(m->root_key.bytes, hex, sizeof m->root_key.bytes);
    return err;
}

static enum hd_err attach(struct hd_engine *e, struct hd_loaded *m, struct hd_errmsg *msg)
{
    enum hd_err err = HD_OK;
    pthread_mutex_lock(&e->mu);
    if (e->n_model == HD_MAX_MODELS)
        err = hd_fail(msg, HD_ERR_LIMIT, "%s: at most %d models at once", m->name, HD_MAX_MODELS);
    else
        e->model[e->n_model++] = m;
    e->stats.kv_blocks_total += err || !m->blocks ? 0 : hd_blocks_total(m->blocks);
    pthread_mutex_unlock(&e->mu);
    return err;
}

static enum hd_err load(struct hd_engine *e, const char *name, const char *path, int n_ctx,
                        struct hd_errmsg *msg)
{
    double start = hd_clock_seconds();
    if (!name || !*name || n_ctx < 0)
        return hd_fail(msg, HD_ERR_INVALID, "load: a model needs a name and a context ≥ 0");
    if (hd_engine__find(e, name))
        return hd_fail(msg, HD_ERR_EXISTS, "%s: a model of this name is loaded already", name);
    struct hd_loaded *m = calloc(1, sizeof *m);
    if (!m)
        return hd_fail(msg, HD_ERR_NOMEM, "%s: out of memory", name);
    m->name = strdup(name);
    m->path = strdup(path);
    enum hd_err err =
        m->name && m->path ? HD_OK : hd_fail(msg, HD_ERR_NOMEM, "%s: out of memory", name);
    if (!err)
        err = open_files(m, msg);
    if (!err)
        err = bind_model(e, m, msg);
    if (!err)
        err = check_memory(e, m, msg);
    if (!err)
        err = m->hp->arch == HD_ARCH_BERT ? new_encoder(e, m, n_ctx, msg)
                                          : new_runner(e, m, n_ctx, msg);
    if (!err)
        err = reserve_weights(e, m, msg);
    if (!err) {
        m->think_open = m->tokenizer ? hd_tokenizer_special(m->tokenizer, "<think>") : -1;
        m->think_close = m->tokenizer ? hd_tokenizer_special(m->tokenizer, "</think>") : -1;
        m->add_bos = wants_bos(m);
        m->created = hd_clock_unix();
        m->loader.start = start;
        if (!m->encoder && (err = set_root_key(e, m)))
            err = hd_fail(msg, err, "%s: cannot name its cache: %s", path, hd_err_text(err));
        hd_store_forget_pages(m->store); /* some megabytes of header and vocabulary */
        if (!err)
            err = hd_loader__start(m, hd_pool_threads(e->pool), e->preload != HD_PRELOAD_NONE, msg);
    }
    if (!err)
        err = attach(e, m, msg);
    if (err) {
        hd_loaded__free(m);
        return err;
    }
    hd_log(HD_LOG_INFO, "engine", "bound name=%s arch=%s backend=%s n_ctx=%d kv_blocks=%d s=%.2f",
           m->name, m->hp->arch_name, hd_backend_name(e->backend), m->n_ctx,
           m->blocks ? hd_blocks_total(m->blocks) : 0, hd_clock_seconds() - start);
    return HD_OK;
}

enum hd_err hd_engine_load(struct hd_engine *e, const char *name, const char *path, int n_ctx,
                           struct hd_errmsg *msg)
{
    pthread_mutex_lock(&e->load_mu);
    enum hd_err err = load(e, name, path, n_ctx, msg);
    pthread_mutex_unlock(&e->load_mu);
    return err;
}
