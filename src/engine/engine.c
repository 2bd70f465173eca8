/* The engine's life, its models by name, and its figures. */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "engine/engine_impl.h"

static enum hd_err parse_preload(enum hd_preload *out, const char *name, struct hd_errmsg *msg)
{
    static const char *const names[] = {"mmap", "shm", "memfd", "none"};
    for (int i = 0; i < 4; i++)
        if (!strcmp(name ? name : "mmap", names[i])) {
            *out = (enum hd_preload)i;
            return HD_OK;
        }
    return hd_fail(msg, HD_ERR_USAGE, "--preload: \"%.40s\" is none of mmap, shm, memfd, none",
                   name);
}

static enum hd_err parse_repack(enum hd_repack_mode *out, const char *name, struct hd_errmsg *msg)
{
    static const char *const names[] = {"auto", "off", "cache"};
    for (int i = 0; i < 3; i++)
        if (!strcmp(name ? name : "auto", names[i])) {
            *out = (enum hd_repack_mode)i;
            return HD_OK;
        }
    return hd_fail(msg, HD_ERR_USAGE, "--repack: \"%.40s\" is none of auto, off, cache", name);
}

static enum hd_err parse_kv_type(bool *kv8, const char *name, struct hd_errmsg *msg)
{
    *kv8 = name && !strcmp(name, "q8");
    return !name || *kv8 || !strcmp(name, "f16")
               ? HD_OK
               : hd_fail(msg, HD_ERR_USAGE, "--kv-type: \"%.40s\" is none of f16, q8", name);
}

static enum hd_err check_options(const struct hd_engine_options *o, struct hd_errmsg *msg)
{
    if (o->n_thread < 0 || o->n_thread > 1024)
        return hd_fail(msg, HD_ERR_INVALID, "engine: threads must be 0 to 1024");
    if (o->max_batch_tokens < 1 || o->max_batch_tokens > 1 << 16)
        return hd_fail(msg, HD_ERR_INVALID, "engine: max_batch_tokens must be 1 to 65536");
    if (o->max_sessions < 1 || o->max_sessions > 4096)
        return hd_fail(msg, HD_ERR_INVALID, "engine: max_sessions must be 1 to 4096");
    if (o->max_queue < 0 || o->max_queue > 1000000)
        return hd_fail(msg, HD_ERR_INVALID, "engine: max_queue must be 0 to 1000000");
    return HD_OK;
}

enum hd_err hd_engine_new(struct hd_engine **out, const struct hd_engine_options *options,
                          struct hd_errmsg *msg)
{
    *out = NULL;
    enum hd_err err = check_options(options, msg);
    if (err)
        return err;
    struct hd_engine *e = calloc(1, sizeof *e);
    if (!e)
        return hd_fail(msg, HD_ERR_NOMEM, "engine: out of memory");
    e->options = *options;
    /* borrowed for this call only */
    e->options.kv_type = NULL;
    e->options.preload = e->options.spill_dir = e->options.repack = e->options.cache_dir = NULL;
    /* Chunks of a prompt end at multiples of the block, so a step takes whole blocks. */
    e->options.max_batch_tokens =
        (options->max_batch_tokens + HD_KV_BLOCK - 1) / HD_KV_BLOCK * HD_KV_BLOCK;
    e->next_id = 1;
    pthread_mutex_init(&e->mu, NULL);
    pthread_mutex_init(&e->load_mu, NULL);
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&e->wake, &attr);
    pthread_condattr_destroy(&attr);
    pthread_cond_init(&e->call_done, NULL);
    e->kernels = strdup(options->kernels ? options->kernels : "auto");
    e->options.kernels = e->kernels;
    if (!e->kernels)
        err = hd_fail(msg, HD_ERR_NOMEM, "engine: out of memory");
    if (!err)
        err = parse_preload(&e->preload, options->preload, msg);
    if (!err)
        err = parse_kv_type(&e->kv8, options->kv_type, msg);
    if (!err)
        err = parse_repack(&e->repack, options->repack, msg);
    if (!err && e->repack == HD_REPACK_OFF && e->preload != HD_PRELOAD_MMAP)
        err = hd_fail(msg, HD_ERR_USAGE,
                      "--repack off: there is no copy for --preload %s (leave one of them out)",
                      options->preload);
    if (!err && options->cache_dir && !(e->cache_dir = hd_path_join(options->cache_dir, "repack")))
        err = hd_fail(msg, HD_ERR_NOMEM, "engine: out of memory");
    if (!err)
        err = hd_backend_get(&e->backend, e->kernels, msg);
    if (!err && options->spill_dir && options->spill_bytes > 0)
        err = hd_spill_open(&e->spill, options->spill_dir, (uint64_t)options->spill_bytes, msg);
    /* More threads than cores only wait for one another: eight on two made a third of the tokens.
     */
    int cores = hd_pool_cores();
    if (e->options.n_thread > cores)
        e->options.n_thread = cores;
    if (!err && (err = hd_pool_new(&e->pool, e->options.n_thread)))
        err = hd_fail(msg, err, "engine: cannot start %d compute threads", options->n_thread);
    if (!err && pthread_create(&e->thread, NULL, hd_scheduler__main, e))
        err = hd_fail(msg, HD_ERR_UNAVAILABLE, "engine: cannot start the scheduler thread");
    if (err) {
        hd_engine_free(e);
        return err;
    }
    e->started = true;
    *out = e;
    return HD_OK;
}

void hd_engine_free(struct hd_engine *e)
{
    if (!e)
        return;
    if (e->started) {
        pthread_mutex_lock(&e->mu);
        e->stopping = true;
        pthread_cond_signal(&e->wake);
        pthread_mutex_unlock(&e->mu);
        pthread_join(e->thread, NULL);
    }
    for (size_t i = 0; i < e->n_model; i++)
        hd_loaded__free(e->model[i]);
    hd_spill_close(e->spill);
    hd_pool_free(e->pool);
    pthread_cond_destroy(&e->wake);
    pthread_cond_destroy(&e->call_done);
    pthread_mutex_destroy(&e->mu);
    pthread_mutex_destroy(&e->load_mu);
    free(e->kernels);
    free(e->cache_dir);
    free(e);
}

enum hd_err hd_engine__call(struct hd_engine *e, void (*fn)(struct hd_engine *, void *), void *ud)
{
    struct hd_call call = {.fn = fn, .ud = ud};
    pthread_mutex_lock(&e->mu);
    if (e->stopping) {
        call.err = HD_ERR_UNAVAILABLE;
        call.done = true;
    } else {
        struct hd_call **end = &e->calls;
        while (*end)
            end = &(*end)->next;
        *end = &call;
        pthread_cond_signal(&e->wake);
    }
    while (!call.done)
        pthread_cond_wait(&e->call_done, &e->mu);
    pthread_mutex_unlock(&e->mu);
    return call.err;
}

/* --- models ---------------------------------------------------------------------------------- */

enum hd_model_kind hd_loaded__kind(const struct hd_loaded *m)
{
    if (m->hp->arch != HD_ARCH_BERT)
        return HD_MODEL_LANGUAGE;
    return m->hp->enc.score_head ? HD_MODEL_RERANKER : HD_MODEL_ENCODER;
}

struct hd_loaded *hd_engine__find_kind(struct hd_engine *e, enum hd_model_kind kind)
{
    struct hd_loaded *found = NULL;
    pthread_mutex_lock(&e->mu);
    for (size_t i = 0; i < e->n_model && !found; i++)
        if (hd_loaded__kind(e->model[i]) == kind)
            found = e->model[i];
    pthread_mutex_unlock(&e->mu);
    return found;
}

struct hd_loaded *hd_engine__find(struct hd_engine *e, const char *name)
{
    struct hd_loaded *found = NULL;
    if (!name || !*name)
        found = hd_engine__find_kind(e, HD_MODEL_LANGUAGE);
    pthread_mutex_lock(&e->mu);
    for (size_t i = 0; i < e->n_model && !found; i++)
        if (!name || !*name || !strcmp(e->model[i]->name, name))
            found = e->model[i];
    pthread_mutex_unlock(&e->mu);
    return found;
}

enum hd_err hd_engine__language(struct hd_loaded **out, struct hd_engine *e, const char *name,
                                struct hd_errmsg *msg)
{
    *out = hd_engine__find(e, name);
    if (!*out)
        return hd_fail(msg, HD_ERR_NOTFOUND, "model %s is not loaded",
                       name && *name ? name : "(default)");
    if (hd_loaded__kind(*out) != HD_MODEL_LANGUAGE)
        return hd_fail(msg, HD_ERR_UNSUPPORTED,
                       "%s: is an encoder, which makes vectors of texts and writes none (use a "
                       "language model)",
                       (*out)->name);
    return HD_OK;
}

size_t hd_engine_n_model(const struct hd_engine *engine)
{
    struct hd_engine *e = (struct hd_engine *)engine;
    pthread_mutex_lock(&e->mu);
    size_t n = e->n_model;
    pthread_mutex_unlock(&e->mu);
    return n;
}

static double load_s(const struct hd_loaded *m)
{
    return atomic_load(&m->loader.loaded) ? m->loader.load_s : hd_clock_seconds() - m->loader.start;
}

static void describe(const struct hd_loaded *m, struct hd_model_info *out)
{
    enum hd_chat_form form = m->tokenizer ? hd_chat_form(m->tokenizer) : HD_CHAT_NONE;
    *out = (struct hd_model_info){
        .name = m->name,
        .path = m->path,
        .arch = m->hp->arch_name,
        .chat_form = hd_chat_form_name(form),
        .backend = hd_backend_name(hd_model_backend(m->model)),
        .kind = hd_loaded__kind(m),
        .n_ctx = m->n_ctx,
        .n_vocab = m->hp->n_vocab,
        .n_layer = m->hp->n_layer,
        .n_embd = m->hp->n_embd,
        .has_tokenizer = m->tokenizer != NULL,
        .thinks = m->tokenizer && hd_chat_thinks(m->tokenizer),
        .load_s = load_s(m),
        .file_bytes = hd_store_file_bytes(m->store),
        .weight_bytes_per_token = hd_model_weight_bytes_per_token(m->model),
        .created = m->created,
    };
}

enum hd_err hd_engine_model_info(const struct hd_engine *engine, size_t i,
                                 struct hd_model_info *out)
{
    struct hd_engine *e = (struct hd_engine *)engine;
    pthread_mutex_lock(&e->mu);
    struct hd_loaded *m = i < e->n_model ? e->model[i] : NULL;
    pthread_mutex_unlock(&e->mu);
    if (!m)
        return HD_ERR_NOTFOUND;
    describe(m, out);
    return HD_OK;
}

enum hd_err hd_engine_model_find(const struct hd_engine *engine, const char *name,
                                 struct hd_model_info *out)
{
    struct hd_loaded *m = hd_engine__find((struct hd_engine *)engine, name);
    if (!m)
        return HD_ERR_NOTFOUND;
    describe(m, out);
    return HD_OK;
}

void hd_engine_stats(const struct hd_engine *engine, struct hd_engine_stats *out)
{
    struct hd_engine *e = (struct hd_engine *)engine;
    pthread_mutex_lock(&e->mu);
    *out = e->stats;
    out->waiting = e->n_session - e->stats.running;
    out->embed_waiting = e->n_job;
    out->last_step_age_s =
        e->n_session || e->n_job || e->stepping ? hd_clock_seconds() - e->last_step_end : 0;
    pthread_mutex_unlock(&e->mu);
}
