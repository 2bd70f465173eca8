/* The model's share of loading: which weights are worked on, in which order, in what memory.
 *
 * A pass wants the layers in order and the output matrix last, so that is the order of work. Every
 * worker goes through the list and takes parts of the first weight that has some left; a product
 * that comes to a weight before its copy is made repacks what it needs on the way (kernels). */
#include <stdint.h>
#include <stdlib.h>

#include "base/checked.h"
#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "model/model_impl.h"

enum { PAGE = 4096, AHEAD = 3 /* weights that the kernel is asked to read before they are due */ };
/* For this long a pass has the machine to itself: the first prompt after a start should not wait
 * for copies that it can do without. Later the copies must get on, or they would never be made
 * under load. */
static const double GENTLE_S = 2;

static size_t padded(size_t bytes)
{
    return (bytes + PAGE - 1) / PAGE * PAGE;
}

static void list_work(struct hd_model *m, bool logits)
{
    for (size_t i = 0; i < m->n_owned; i++) {
        struct hd_weight *w = m->owned[i].ptr;
        if (m->owned[i].kind == HD_OWNED_WEIGHT && hd_weight_usage(w) & HD_WEIGHT_LAZY &&
            hd_weight_work_bytes(w) && logits == !!(hd_weight_usage(w) & HD_WEIGHT_LOGITS))
            m->work[m->n_work++] = w;
    }
}

enum hd_err hd_copies__plan(struct hd_model *m, struct hd_errmsg *msg)
{
    bool fits = true;
    m->work = calloc(m->n_owned + 1, sizeof(struct hd_weight *));
    if (!m->work)
        return hd_fail(msg, HD_ERR_NOMEM, "%s: out of memory", hd_store_path(m->store));
    list_work(m, false);
    list_work(m, true);
    for (size_t i = 0; i < m->n_work; i++) {
        size_t copy = hd_weight_bytes(m->work[i]);
        fits = fits && copy <= SIZE_MAX - PAGE &&
               hd_add(&m->copy_bytes, m->copy_bytes, padded(copy)) &&
               hd_add(&m->work_bytes, m->work_bytes, hd_weight_work_bytes(m->work[i]));
    }
    return fits ? HD_OK
                : hd_fail(msg, HD_ERR_LIMIT, "%s: the weights are larger than any memory",
                          hd_store_path(m->store));
}

void hd_model_without_copies(struct hd_model *m)
{
    m->n_work = m->work_bytes = m->copy_bytes = 0;
}

/* --- the cache on disk ----------------------------------------------------------------------- */

static struct hd_repack_key key_of(const struct hd_model *m, const struct hd_model_cache *cache)
{
    return (struct hd_repack_key){.path = cache->path,
                                  .identity = cache->identity,
                                  .source = hd_store_path(m->store),
                                  .weights = m->work,
                                  .n = m->n_work};
}

enum hd_err hd_model_copies_digest(const struct hd_model *m, char hex[65])
{
    struct hd_sha256 *sha;
    enum hd_err err = hd_sha256_new(&sha);
    if (err)
        return err;
    int64_t numbers[] = {HD_REPACK_LAYOUT, m->preload, (int64_t)m->n_work};
    hd_sha256_update(sha, numbers, sizeof numbers);
    for (size_t i = 0; i < m->n_work; i++) {
        const struct hd_weight *w = m->work[i];
        int64_t shape[] = {hd_weight_n_in(w), hd_weight_n_out(w), hd_weight_n_matrix(w),
                           (int64_t)hd_weight_bytes(w), hd_weight_usage(w)};
        hd_sha256_update(sha, shape, sizeof shape);
    }
    hd_sha256_finish(sha, hex);
    return HD_OK;
}

/* Opens the cache and, where its pages may be used as they are, maps it: *map. */
static void open_cache(struct hd_model *m, const struct hd_model_cache *cache, void **map)
{
    struct hd_errmsg why = {0};
    const struct hd_repack_key key = key_of(m, cache);
    enum hd_err err = hd_repack_open(&m->repack, &key, &why);
    *map = NULL;
    if (err && err != HD_ERR_NOTFOUND)
        hd_log(HD_LOG_WARN, "model", "repacked weights: %s; making them anew", why.text);
    if (err)
        return;
    /* In memory the model's file is repacked faster than the cache is read from a disk. */
    m->from_cache = !cache->source_resident || hd_repack_resident(m->repack);
    if (m->from_cache)
        *map = hd_repack_map(m->repack, cache->always_map);
}

enum hd_err hd_model_save_copies(struct hd_model *m, const struct hd_model_cache *cache,
                                 const atomic_bool *stop, struct hd_errmsg *msg)
{
    const struct hd_repack_key key = key_of(m, cache);
    bool good = m->repack && !hd_repack_n_bad(m->repack);
    enum hd_err err = HD_OK;
    if (!m->copy_bytes || (good && m->from_cache))
        return HD_OK;
    if (!good) {
        err = hd_repack_write(&key, stop, msg);
        if (err || m->repack) /* what is mapped already stays so */
            return err;
        err = hd_repack_open(&m->repack, &key, msg);
    }
    if (!err && m->arena)
        err = hd_repack_move(m->repack, hd_arena_data(m->arena), m->copy_bytes, cache->always_map,
                             stop, msg);
    return err;
}

uint64_t hd_model_read_copies(const struct hd_model *m, struct hd_pool *pool, uint64_t most)
{
    return hd_backend_read_weights(pool, m->work, m->n_work, most);
}

/* --- memory ---------------------------------------------------------------------------------- */

enum hd_err hd_model_reserve(struct hd_model *m, const char *key,
                             const struct hd_model_cache *cache, struct hd_errmsg *msg)
{
    static const enum hd_arena_kind kinds[] = {[HD_PRELOAD_SHM] = HD_ARENA_SHM,
                                               [HD_PRELOAD_MEMFD] = HD_ARENA_MEMFD,
                                               [HD_PRELOAD_NONE] = 0};
    enum hd_err err = HD_OK;
    void *map = NULL;
    if (cache && m->copy_bytes)
        open_cache(m, cache, &map);
    if (m->copy_bytes && !map)
        err = hd_arena_new(&m->arena, kinds[m->preload], m->copy_bytes, key, msg);
    if (err == HD_ERR_BUSY &&
        m->preload == HD_PRELOAD_SHM) { /* started twice: this one for itself */
        hd_log(HD_LOG_WARN, "model", "shared copy: %s; using one of its own", msg->text);
        err = hd_arena_new(&m->arena, HD_ARENA_PRIVATE, m->copy_bytes, NULL, msg);
    }
    if (err)
        return err;
    m->reserved_at = hd_clock_seconds();
    char *at = map ? map : m->arena ? hd_arena_data(m->arena) : NULL;
    for (size_t i = 0; i < m->n_work; i++) {
        if (m->arena && hd_arena_found(m->arena))
            hd_weight_place_made(m->work[i], at, &m->n_made);
        else
            /* Checking a map is less work than repacking on the way. */
            hd_weight_place(m->work[i], at, &m->n_made, map || m->preload == HD_PRELOAD_NONE);
        if (m->from_cache)
            hd_repack_attach(m->repack, m->work[i], i);
        at = at ? at + padded(hd_weight_bytes(m->work[i])) : NULL;
    }
    return HD_OK;
}

void hd_model_work(struct hd_model *m, const atomic_bool *stop)
{
    bool reads = m->n_work && !hd_model_found(m) &&
                 !atomic_exchange(&m->read_from, true); /* one of the workers asks */
    for (size_t i = 0; reads && i < AHEAD && i < m->n_work; i++)
        hd_weight_read_ahead(m->work[i]);
    for (size_t i = 0; i < m->n_work && !(stop && atomic_load(stop)); i++) {
        if (reads && i + AHEAD < m->n_work)
            hd_weight_read_ahead(m->work[i + AHEAD]);
        bool gentle = hd_clock_seconds() - m->reserved_at < GENTLE_S;
        hd_weight_work(m->work[i], stop, gentle ? &m->busy : NULL);
    }
}

void hd_model_wait(const struct hd_model *m)
{
    for (size_t i = 0; i < m->n_work; i++)
        hd_weight_wait(m->work[i]);
}

void hd_model_seal(struct hd_model *m)
{
    if (m->arena)
        hd_arena_seal(m->arena);
    if (m->repack)
        hd_repack_seal(m->repack);
}

size_t hd_model_copy_bytes(const struct hd_model *m)
{
    return m->copy_bytes;
}

size_t hd_model_work_bytes(const struct hd_model *m)
{
    return m->work_bytes;
}

size_t hd_model_made_bytes(const struct hd_model *m)
{
    return atomic_load(&((struct hd_model *)m)->n_made);
}

bool hd_model_found(const struct hd_model *m)
{
    return (m->arena && hd_arena_found(m->arena)) || m->from_cache;
}
