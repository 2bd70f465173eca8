/* Weights: checked shapes, and the copy in the back end's own layout, made at once or bit by bit.
 *
 * A copy consists of parts that do not depend on each other (panels of 16 rows on x86). Whoever has
 * time takes the next few parts: the loader's threads in the background, the compute pool where a
 * product cannot wait. Nobody reads the copy before all parts are made, so it does not matter who
 * made which. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/hash.h"
#include "kernels/ops.h"
#include "kernels/repack_impl.h"

enum {
    GRAB_BYTES = 256 << 10, /* of the copy, taken at once */
    PLAIN_PART = 64 << 10,  /* bytes per part of a plain copy, or of reading alone */
};
#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22 /* Linux 5.14 */
#endif

/* --- shapes ---------------------------------------------------------------------------------- */

static enum hd_err check_shape(struct hd_weight *w, struct hd_errmsg *msg)
{
    const struct hd_dtype_info *info = hd_dtype_info(w->dtype);
    size_t total;
    if (!info || !info->dequantise)
        return hd_fail(msg, HD_ERR_UNSUPPORTED, "weight: type %s cannot be computed with",
                       hd_dtype_gguf_name(w->dtype));
    w->row_bytes = hd_dtype_row_bytes(w->dtype, w->n_in);
    if (w->n_in <= 0 || w->n_out <= 0 || w->n_matrix <= 0 || !w->row_bytes ||
        !hd_mul(&total, w->row_bytes, (size_t)w->n_out) ||
        !hd_mul(&total, total, (size_t)w->n_matrix))
        return hd_fail(msg, HD_ERR_INVALID,
                       "weight: %lld matrices of %lld rows of %lld elements of type %s: "
                       "no possible shape",
                       (long long)w->n_matrix, (long long)w->n_out, (long long)w->n_in, info->name);
    return HD_OK;
}

static size_t source_bytes(const struct hd_weight *w)
{
    return w->row_bytes * (size_t)(w->n_out * w->n_matrix);
}

/* --- the copy -------------------------------------------------------------------------------- */

/* Whole pages of the source: all of them inside the range, or touching it. */
static void advise_source(const struct hd_weight *w, bool inside, int advice)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    uintptr_t begin = (uintptr_t)w->data, end = begin + source_bytes(w);
    begin = inside ? hd_round_up(begin, page) : begin / page * page;
    end = inside ? end / page * page : hd_round_up(end, page);
    if (end > begin)
        madvise((void *)begin, end - begin, advice);
}

static void plain_part(const struct hd_weight *w, size_t begin, size_t end)
{
    size_t from = begin * PLAIN_PART, to = end * PLAIN_PART;
    to = to < w->packed_bytes ? to : w->packed_bytes;
    memcpy(w->packed + from, w->data + from, to - from);
}

/* Without a copy, being in memory is all that there is to do. */
static void read_part(const struct hd_weight *w, size_t begin, size_t end)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    uintptr_t from = ((uintptr_t)w->data + begin * PLAIN_PART) / page * page;
    uintptr_t to = (uintptr_t)w->data + source_bytes(w),
              stop = (uintptr_t)w->data + end * PLAIN_PART;
    volatile uint8_t sum = 0;
    to = stop < to ? stop : to;
    if (!madvise((void *)from, to - from, MADV_POPULATE_READ) || errno != EINVAL)
        return;
    for (uintptr_t p = from > (uintptr_t)w->data ? from : (uintptr_t)w->data; p < to; p += page)
        sum ^= *(const uint8_t *)p;
    (void)sum;
}

/* Pieces that were repacked before; false where they cannot be trusted. */
static bool take_parts(const struct hd_weight *w, size_t begin, size_t end)
{
    const struct hd_weight_cached *c = w->fill->cached;
    size_t part = w->packed_bytes / w->n_part, n = (end - begin) * part;
    uint8_t *to = w->packed + begin * part;
    if ((c->mapped || hd_repack__read(c->fd, to, n, c->at + begin * part)) &&
        hd_hash64_bulk(to, n, begin) == c->sums[begin / w->fill->grab])
        return true;
    atomic_fetch_add(c->n_bad, 1);
    return false;
}

static void make_parts(const struct hd_weight *w, size_t begin, size_t end)
{
    if (w->fill->cached && take_parts(w, begin, end))
        return;
    if (w->pack)
        w->backend->ops->weight_part(w, begin, end);
    else if (w->packed_bytes)
        plain_part(w, begin, end);
    else
        read_part(w, begin, end);
}

static void set_ready(const struct hd_weight *w)
{
    struct hd_weight_fill *f = w->fill;
    if (w->source)
        w->source->advise(w->source, false);
    if (w->packed_bytes && w->usage & HD_WEIGHT_MAPPED)
        advise_source(w, true, MADV_DONTNEED);
    pthread_mutex_lock(&f->mu);
    atomic_store_explicit(&f->ready, true, memory_order_release);
    pthread_cond_broadcast(&f->made);
    pthread_mutex_unlock(&f->mu);
}

/* Takes some parts and makes them; false where none was left. */
static bool make_some(const struct hd_weight *w)
{
    struct hd_weight_fill *f = w->fill;
    if (atomic_load_explicit(&f->next, memory_order_relaxed) >= w->n_part)
        return false;
    size_t begin = atomic_fetch_add(&f->next, f->grab);
    if (begin >= w->n_part)
        return false;
    size_t end = w->n_part - begin < f->grab ? w->n_part : begin + f->grab, n = end - begin;
    make_parts(w, begin, end);
    if (f->progress) {
        size_t all = hd_weight_work_bytes(w), each = all / w->n_part;
        atomic_fetch_add(f->progress, end == w->n_part ? all - begin * each : n * each);
    }
    if (atomic_fetch_add(&f->done, n) + n == w->n_part)
        set_ready(w);
    return true;
}

static bool is_set(const atomic_bool *flag)
{
    return flag && atomic_load_explicit(flag, memory_order_relaxed);
}

void hd_weight_work(struct hd_weight *w, const atomic_bool *stop, const atomic_bool *hold)
{
    const struct timespec pause = {.tv_nsec = 1000000};
    do {
        while (is_set(hold) && !is_set(stop))
            nanosleep(&pause, NULL);
    } while (w->fill && !is_set(stop) && make_some(w));
}

static void finish_task(void *ud, size_t begin, size_t end, int thread)
{
    while (make_some(ud))
        ;
}

void hd_weight_wait(const struct hd_weight *w)
{
    if (hd_weight_ready(w))
        return;
    pthread_mutex_lock(&w->fill->mu);
    while (!hd_weight_ready(w))
        pthread_cond_wait(&w->fill->made, &w->fill->mu);
    pthread_mutex_unlock(&w->fill->mu);
}

void hd_weight_finish(const struct hd_weight *w, struct hd_pool *pool)
{
    if (hd_weight_ready(w))
        return;
    hd_pool_run(pool, (size_t)hd_pool_threads(pool), 1, finish_task, (void *)w);
    hd_weight_wait(w);
}

void hd_weight_place(struct hd_weight *w, void *memory, atomic_size_t *progress, bool on_demand)
{
    if (!w->fill)
        return;
    w->packed = memory;
    w->packed_borrowed = true;
    w->fill->progress = progress;
    w->fill->on_demand = on_demand;
}

void hd_weight_place_made(struct hd_weight *w, void *memory, atomic_size_t *progress)
{
    if (!w->fill)
        return;
    hd_weight_place(w, memory, progress, false);
    atomic_store(&w->fill->next, w->n_part);
    if (progress)
        atomic_fetch_add(progress, hd_weight_work_bytes(w));
    set_ready(w);
}

void hd_weight_read_ahead(const struct hd_weight *w)
{
    if (w->source)
        w->source->advise(w->source, true);
    if (w->usage & HD_WEIGHT_MAPPED)
        advise_source(w, false, MADV_WILLNEED);
}

static enum hd_err plan_copy(struct hd_weight *w, struct hd_errmsg *msg)
{
    enum hd_err err = HD_OK;
    if (!(w->usage & HD_WEIGHT_MATMUL))
        return HD_OK;
    if (w->backend->ops->weight_plan) {
        err = w->backend->ops->weight_plan(w, msg);
    } else if (w->usage & HD_WEIGHT_COPY && !w->source) {
        w->packed_bytes = source_bytes(w);
        w->n_part = (w->packed_bytes + PLAIN_PART - 1) / PLAIN_PART;
    }
    bool read = !w->packed_bytes && w->usage & HD_WEIGHT_LAZY && w->usage & HD_WEIGHT_MAPPED;
    if (read)
        w->n_part = (source_bytes(w) + PLAIN_PART - 1) / PLAIN_PART;
    if (err || !w->n_part)
        return err;
    w->fill = calloc(1, sizeof *w->fill);
    if (!w->fill)
        return hd_fail(msg, HD_ERR_NOMEM, "weight: out of memory");
    w->fill->grab = 1 + GRAB_BYTES / (1 + hd_weight_work_bytes(w) / w->n_part);
    atomic_init(&w->fill->ready, read);
    pthread_mutex_init(&w->fill->mu, NULL);
    pthread_cond_init(&w->fill->made, NULL);
    return HD_OK;
}

/* --- life ------------------------------------------------------------------------------------ */

/* `made`: all of it but how far its copy has come. */
static enum hd_err new_weight(struct hd_weight **out, struct hd_weight made, struct hd_pool *pool,
                              struct hd_errmsg *msg)
{
    *out = NULL;
    struct hd_weight *w = calloc(1, sizeof *w);
    if (!w)
        return hd_fail(msg, HD_ERR_NOMEM, "weight: out of memory");
    *w = made;
    enum hd_err err = check_shape(w, msg);
    if (!err)
        err = plan_copy(w, msg);
    if (!err && w->fill && !(w->usage & HD_WEIGHT_LAZY)) {
        w->packed = hd_pages_new(w->packed_bytes);
        if (w->packed)
            hd_weight_finish(w, pool);
        else
            err = hd_fail(msg, HD_ERR_NOMEM, "weight: %zu bytes: out of memory", w->packed_bytes);
    }
    if (err) {
        hd_weight_free(w);
        return err;
    }
    *out = w;
    return HD_OK;
}

enum hd_err hd_weight_new(struct hd_weight **out, const struct hd_backend *backend,
                          enum hd_dtype dtype, int64_t n_in, int64_t n_out, int64_t n_matrix,
                          const void *data, unsigned usage, struct hd_pool *pool,
                          struct hd_errmsg *msg)
{
    const struct hd_weight made = {.backend = backend,
                                   .dtype = dtype,
                                   .usage = usage,
                                   .n_in = n_in,
                                   .n_out = n_out,
                                   .n_matrix = n_matrix,
                                   .data = data};
    return new_weight(out, made, pool, msg);
}

enum hd_err hd_weight_new_from(struct hd_weight **out, const struct hd_backend *backend,
                               enum hd_dtype dtype, int64_t n_in, int64_t n_out, int64_t n_matrix,
                               const struct hd_weight_source *source, unsigned usage,
                               struct hd_pool *pool, struct hd_errmsg *msg)
{
    const struct hd_weight made = {.backend = backend,
                                   .dtype = dtype,
                                   .usage = usage,
                                   .n_in = n_in,
                                   .n_out = n_out,
                                   .n_matrix = n_matrix,
                                   .source = source};
    return new_weight(out, made, pool, msg);
}

void hd_weight_free(struct hd_weight *w)
{
    if (!w)
        return;
    if (!w->packed_borrowed)
        hd_pages_free(w->packed, w->packed_bytes);
    if (w->fill) {
        pthread_mutex_destroy(&w->fill->mu);
        pthread_cond_destroy(&w->fill->made);
    }
    free(w->fill);
    free(w);
}

void hd_weight_set_order(struct hd_weight *weight, const int32_t *order)
{
    weight->order = order;
}

int64_t hd_weight_n_in(const struct hd_weight *weight)
{
    return weight->n_in;
}

int64_t hd_weight_n_out(const struct hd_weight *weight)
{
    return weight->n_out;
}

int64_t hd_weight_n_matrix(const struct hd_weight *weight)
{
    return weight->n_matrix;
}

size_t hd_weight_bytes(const struct hd_weight *weight)
{
    return weight->packed_bytes;
}

size_t hd_weight_work_bytes(const struct hd_weight *w)
{
    return w->packed_bytes ? w->packed_bytes : w->fill ? source_bytes(w) : 0;
}

unsigned hd_weight_usage(const struct hd_weight *weight)
{
    return weight->usage;
}
