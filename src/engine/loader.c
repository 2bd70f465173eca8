/* The loader: threads that bring a model's weights into memory while it can already be used.
 *
 * They are nicer than the rest of the process, so that a first prompt, which repacks what it needs
 * on its way through the layers, goes first. */
#include <stdlib.h>
#include <sys/resource.h>

#include "base/clock.h"
#include "base/log.h"
#include "engine/engine_impl.h"

enum { NICER = 10 };

static void finish(struct hd_loaded *m)
{
    struct hd_loader *l = &m->loader;
    if (atomic_load(&l->stop))
        return;
    hd_model_wait(m->model); /* a pass may still be making the last pieces */
    hd_model_seal(m->model);
    pthread_mutex_lock(&l->mu);
    l->load_s = hd_clock_seconds() - l->start;
    atomic_store(&l->loaded, true);
    pthread_cond_broadcast(&l->done);
    pthread_mutex_unlock(&l->mu);
    hd_log(HD_LOG_INFO, "engine", "weights in memory name=%s mb=%.0f s=%.2f", m->name,
           (double)hd_model_work_bytes(m->model) / 1e6, l->load_s);
    hd_repacking__save(m);
}

static void *loader_main(void *arg)
{
    struct hd_loaded *m = arg;
    setpriority(PRIO_PROCESS, 0, getpriority(PRIO_PROCESS, 0) + NICER); /* of this thread alone */
    hd_model_work(m->model, &m->loader.stop);
    if (atomic_fetch_sub(&m->loader.n_running, 1) == 1)
        finish(m);
    return NULL;
}

enum hd_err hd_loader__start(struct hd_loaded *m, int n_thread, bool background,
                             struct hd_errmsg *msg)
{
    struct hd_loader *l = &m->loader;
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_mutex_init(&l->mu, NULL);
    pthread_cond_init(&l->done, &attr);
    pthread_condattr_destroy(&attr);
    l->started = true;
    if (!background || hd_model_made_bytes(m->model) == hd_model_work_bytes(m->model)) {
        l->load_s = hd_clock_seconds() - l->start;
        atomic_store(&l->loaded, true);
        return HD_OK;
    }
    l->thread = calloc((size_t)n_thread, sizeof *l->thread);
    if (!l->thread)
        return hd_fail(msg, HD_ERR_NOMEM, "%s: out of memory", m->path);
    atomic_store(&l->n_running, n_thread);
    for (; l->n_thread < n_thread; l->n_thread++)
        if (pthread_create(&l->thread[l->n_thread], NULL, loader_main, m))
            break;
    if (!l->n_thread)
        return hd_fail(msg, HD_ERR_UNAVAILABLE, "%s: cannot start threads", m->path);
    /* Fewer than wanted do the same work; the missing ones count as having ended. */
    int missing = n_thread - l->n_thread;
    if (missing && atomic_fetch_sub(&l->n_running, missing) == missing)
        finish(m);
    return HD_OK;
}

void hd_loader__stop(struct hd_loaded *m)
{
    struct hd_loader *l = &m->loader;
    if (!l->started)
        return;
    pthread_mutex_lock(&l->mu);
    atomic_store(&l->stop, true);
    pthread_cond_broadcast(&l->done); /* who waits before writing the cache */
    pthread_mutex_unlock(&l->mu);
    for (int i = 0; i < l->n_thread; i++)
        pthread_join(l->thread[i], NULL);
    free(l->thread);
    pthread_mutex_destroy(&l->mu);
    pthread_cond_destroy(&l->done);
}

/* --- watching -------------------------------------------------------------------------------- */

static void progress(const struct hd_loaded *m, struct hd_load_progress *out)
{
    const struct hd_loader *l = &m->loader;
    double s = hd_clock_seconds() - l->start;
    *out = (struct hd_load_progress){.name = m->name,
                                     .bytes_done = hd_model_made_bytes(m->model),
                                     .bytes_total = hd_model_work_bytes(m->model),
                                     .seconds = s,
                                     .eta_s = -1,
                                     .loaded = atomic_load(&l->loaded),
                                     .reused = hd_model_found(m->model)};
    if (out->loaded) {
        out->bytes_done = out->bytes_total;
        out->seconds = l->load_s;
        out->eta_s = 0;
    } else if (out->bytes_done) {
        double left = (double)(out->bytes_total - out->bytes_done);
        out->eta_s = left * s / (double)out->bytes_done;
    }
    out->ready = out->loaded || l->resident;
}

enum hd_err hd_engine_load_progress(const struct hd_engine *engine, size_t i,
                                    struct hd_load_progress *out)
{
    struct hd_engine *e = (struct hd_engine *)engine;
    pthread_mutex_lock(&e->mu);
    const struct hd_loaded *m = i < e->n_model ? e->model[i] : NULL;
    pthread_mutex_unlock(&e->mu);
    if (!m)
        return HD_ERR_NOTFOUND;
    progress(m, out);
    return HD_OK;
}

enum hd_err hd_engine_wait_loaded(struct hd_engine *e, const char *name)
{
    struct hd_loaded *m = hd_engine__find(e, name);
    if (!m)
        return HD_ERR_NOTFOUND;
    pthread_mutex_lock(&m->loader.mu);
    while (!atomic_load(&m->loader.loaded))
        pthread_cond_wait(&m->loader.done, &m->loader.mu);
    pthread_mutex_unlock(&m->loader.mu);
    return HD_OK;
}
