/* The model's share of loading: which weights are worked on, in which order, in what memory.
 *
 * A pass wants the layers in order and the output matrix last, so that is the order of work. Every
 * worker goes through the list and takes parts of the first weight that has some left; a product
 * that comes to a weight before its copy is made repacks what it needs on the way (kernels). */
#include <stdint.h>
#include <stdlib.h>

#include "base/checked.h"
#include "base/clock.h"
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

enum hd_err hd_model_reserve(struct hd_model *m, const char *key, struct hd_errmsg *msg)
{
    static const enum hd_arena_kind kinds[] = {[HD_PRELOAD_SHM] = HD_ARENA_SHM,
                                               [HD_PRELOAD_MEMFD] = HD_ARENA_MEMFD,
                                               [HD_PRELOAD_NONE] = 0};
    enum hd_err err = HD_OK;
    if (m->copy_bytes)
        err = hd_arena_new(&m->arena, kinds[m->preload], m->copy_bytes, key, msg);
    if (err == HD_ERR_BUSY &&
        m->preload == HD_PRELOAD_SHM) { /* started twice: this one for itself */
        hd_log(HD_LOG_WARN, "model", "shared copy: %s; using one of its own", msg->text);
        err = hd_arena_new(&m->arena, HD_ARENA_PRIVATE, m->copy_bytes, NULL, msg);
    }
    if (err)
        return err;
    m->reserved_at = hd_clock_seconds();
    char *at = m->arena ? hd_arena_data(m->arena) : NULL;
    for (size_t i = 0; i < m->n_work; i++) {
        if (m->arena && hd_arena_found(m->arena))
            hd_weight_place_made(m->work[i], at, &m->n_made);
        else
            hd_weight_place(m->work[i], at, &m->n_made, m->preload == HD_PRELOAD_NONE);
        at = at ? at + padded(hd_weight_bytes(m->work[i])) : NULL;
    }
    return HD_OK;
}

void hd_model_work(struct hd_model *m, const atomic_bool *stop)
{
    bool reads = m->n_work && !(m->arena && hd_arena_found(m->arena)) &&
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

void hd_model_seal(struct hd_model *m)
{
    if (m->arena)
        hd_arena_seal(m->arena);
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
    return m->arena && hd_arena_found(m->arena);
}
