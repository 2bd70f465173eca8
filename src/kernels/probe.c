/* What this machine can do at best, measured with the instructions that the kernels use. */
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "kernels/ops.h"

enum { READ_BYTES = 1 << 30, READ_PIECE = 4 << 20, READ_TRIES = 5 };

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
