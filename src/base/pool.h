/* The compute pool: a fixed set of threads that run one function over an index range.
 *
 * Owned by one caller at a time (the scheduler thread): hd_pool_run may not be called by two
 * threads at once, nor from inside a task. Work is handed out in chunks by an atomic counter, so a
 * core that is busy elsewhere slows only its own chunk, and a thread that does not run at all
 * nothing. Results must not depend on who runs what.
 */
#ifndef HD_BASE_POOL_H
#define HD_BASE_POOL_H

#include <stddef.h>

#include "base/error.h"

struct hd_pool;

/* Cores available to the process; at least 1. */
int hd_pool_cores(void);

/* n_thread counts the calling thread; 0 = one per core available to the process. */
enum hd_err hd_pool_new(struct hd_pool **out, int n_thread);
void hd_pool_free(struct hd_pool *pool); /* NULL is fine */
int hd_pool_threads(const struct hd_pool *pool);

/* Calls fn(ud, begin, end, thread) for disjoint ranges that cover [0, n), each at most `chunk`
 * long (0 = one share per thread); returns when all are done. thread is 0 … threads-1. */
typedef void (*hd_pool_fn)(void *ud, size_t begin, size_t end, int thread);
void hd_pool_run(struct hd_pool *pool, size_t n, size_t chunk, hd_pool_fn fn, void *ud);
/* The same in ranges that begin long, at half a share of what is left, and end at `least`, so that
 * threads that stream through memory do so in long stretches and still end together. */
void hd_pool_run_guided(struct hd_pool *pool, size_t n, size_t least, hd_pool_fn fn, void *ud);

#endif
