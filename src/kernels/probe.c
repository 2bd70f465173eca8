/* What this machine can do at best, measured with the instructions that the kernels use. */
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "kernels/ops.h"

enum { WEIGHT_PIECE = 64 << 10, READ_BYTES = 1 << 30, READ_PIECE = 4 << 20, READ_TRIES = 5 };

struct probe {
    const struct hd_ops *ops;
    const uint8_t *data;
    int64_t steps;
    double *done;      /* operations, per thread */
    atomic_ullong sum; /* keeps the compiler from dropping the reads */
};

static void int8_task(void *ud, size_t begin, size_t end, int thread)
{
    struct probe *p = ud;
    for (size_t i = begin; i < end; i++)
        p->done[thread * 8] += p->ops->int8_work(p->steps); /* 64 bytes apart */
}

static void read_task(void *ud, size_t begin, size_t end, int thread)
{
    struct probe *p = ud;
    uint64_t sum = p->ops->read_work(p->data + begin, end - begin);
    atomic_fetch_add_explicit(&p->sum, sum, memory_order_relaxed);
}

double hd_backend_probe_int8_tops(const struct hd_backend *backend, struct hd_pool *pool)
{
    int n = hd_pool_threads(pool);
    struct probe p = {.ops = backend->ops, .steps = 1 << 20};
    p.done = calloc((size_t)n, 8 * sizeof *p.done);
    if (!p.done)
        return 0;
    double best = 0;
    for (int try = 0; try < 4; try++) { /* the first also warms the clock up */
        memset(p.done, 0, (size_t)n * 8 * sizeof *p.done);
        double start = hd_clock_seconds(), total = 0;
        hd_pool_run(pool, 4 * (size_t)n, 1, int8_task, &p);
        double seconds = hd_clock_seconds() - start;
        for (int i = 0; i < n; i++)
            total += p.done[8 * i];
        best = total / seconds > best ? total / seconds : best;
    }
    free(p.done);
    return best * 1e-12;
}

double hd_backend_probe_read_gbps(const struct hd_backend *backend, struct hd_pool *pool)
{
    struct probe p = {.ops = backend->ops};
    uint8_t *data = hd_pages_new(READ_BYTES);
    if (!data)
        return 0;
    memset(data, 1, READ_BYTES); /* real pages, not the shared zero page */
    p.data = data;
    double best = 0;
    for (int try = 0; try < READ_TRIES; try++) {
        double start = hd_clock_seconds();
        hd_pool_run(pool, READ_BYTES, READ_PIECE, read_task, &p);
        double rate = READ_BYTES / (hd_clock_seconds() - start);
        best = rate > best ? rate : best;
    }
    hd_pages_free(data, READ_BYTES);
    return best * 1e-9;
}

/* Pieces of all weights in one row, so that threads meet once, at the end. */
struct read_weights {
    struct hd_weight *const *weights;
    size_t *first; /* [n + 1] pieces before each weight */
    size_t n;
    atomic_ullong sum;
};

static void read_weights_task(void *ud, size_t begin, size_t end, int thread)
{
    struct read_weights *r = ud;
    size_t low = 0, high = r->n; /* first[low] <= begin < first[high] */
    while (high - low > 1) {
        size_t middle = (low + high) / 2;
        *(r->first[middle] <= begin ? &low : &high) = middle;
    }
    for (size_t piece = begin; piece < end; piece++) {
        while (r->first[low + 1] <= piece)
            low++;
        const struct hd_weight *w = r->weights[low];
        size_t at = (piece - r->first[low]) * WEIGHT_PIECE, left = w->packed_bytes - at;
        uint64_t sum =
            w->backend->ops->read_work(w->packed + at, left < WEIGHT_PIECE ? left : WEIGHT_PIECE);
        atomic_fetch_add_explicit(&r->sum, sum, memory_order_relaxed);
    }
}

uint64_t hd_backend_read_weights(struct hd_pool *pool, struct hd_weight *const *weights, size_t n,
                                 uint64_t most)
{
    struct read_weights r = {.weights = weights, .first = calloc(n + 1, sizeof *r.first)};
    uint64_t bytes = 0;
    for (; r.first && r.n < n && bytes < most; r.n++) {
        const struct hd_weight *w = weights[r.n];
        size_t packed =
            w->packed && hd_weight_ready(w) && w->backend->ops->read_work ? w->packed_bytes : 0;
        r.first[r.n + 1] = r.first[r.n] + (packed + WEIGHT_PIECE - 1) / WEIGHT_PIECE;
        bytes += packed;
    }
    if (bytes)
        hd_pool_run(pool, r.first[r.n], 4, read_weights_task, &r);
    free(r.first);
    return bytes;
}
